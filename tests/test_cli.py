import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from toy_workspace import environment, lead, make_workspace, prefect_api, processes_in, wait_for

from flows import preflight
from flows.cli import app, main
from flows.workspace import hold_workspace
from lead_core.params import load_params


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(make_workspace(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory):
    """A workspace whose Prefect database is there already, since making one takes a while."""
    folder = make_workspace(tmp_path_factory.mktemp("workspace"))
    prefect_api()
    (folder / ".prefect").mkdir()
    made = sqlite3.connect(Path(os.environ["PREFECT_HOME"], "prefect.db"))
    copy = sqlite3.connect(folder / ".prefect" / "prefect.db")
    with contextlib.closing(made), contextlib.closing(copy):
        made.backup(copy)
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `lead` in this process; return its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lead", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return run


def start(folder, *arguments, **variables):
    return subprocess.Popen(
        lead(*arguments),
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder, *arguments, **variables):
    process = start(folder, *arguments, **variables)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_help_imports_nothing_heavy():
    """Which is what makes it instant; how long it takes is the machine's affair."""
    program = (
        "import sys; from flows.cli import main; sys.argv = ['lead', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'prefect', 'mlflow', 'dvc', 'transformers', 'pandas', 'numpy'}\n"
        "print('imported:', sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.check_output([sys.executable, "-c", program], env=environment(), text=True)
    assert "imported: []" in shown
    for command in ("lock", "run", "compare", "doctor", "export", "ui", "serve", "sync"):
        assert re.search(rf"│ {command}\b", shown)


def test_the_help_of_every_command_ends_in_an_example_as_it_would_be_typed(call):
    commands = [command.callback.__name__ for command in app.registered_commands]
    assert len(commands) >= 11
    for command in commands:
        code, out, _ = call(command, "--help")
        assert code == 0
        assert f"lead {command}" in out.partition("Examples:")[2]
    assert "data.sources='[my_data.jsonl, \"more/*.parquet\"]'" in call("run", "--help")[1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rnu", "lead: no such command 'rnu'. Did you mean 'run'? (see `lead --help`)"),
        (
            "run --dry-rnu",
            "lead run: no such option: --dry-rnu (Possible options: --dry-run) "
            "(see `lead run --help`)",
        ),
        ("serve", "lead serve: missing option '--cron' (see `lead serve --help`)"),
        ("doctor", "lead doctor: missing argument 'FILE...' (see `lead doctor --help`)"),
        (
            "gc everything",
            "lead gc: got unexpected extra argument(s) (everything) (see `lead gc --help`)",
        ),
        (
            "compare --jobs 0",
            "lead compare: invalid value for '--jobs': Input should be greater than or equal to 1 "
            "(see `lead compare --help`)",
        ),
    ],
)
def test_a_mistyped_line_is_one_line_with_the_help_to_read(call, line, said):
    assert call(*line.split()) == (2, "", f"error: {said}\n")


def test_lead_alone_shows_the_help(call):
    assert call() == call("--help")


def test_the_shell_completes_commands_and_the_workspaces_presets(workspace):
    (workspace / "presets").mkdir()
    (workspace / "presets" / "mine.yaml").write_text("seed: 1\n")

    def completions(line):
        asked = {"_LEAD_COMPLETE": "complete_bash", "COMP_WORDS": line}
        program = "import sys; from flows.cli import main; sys.argv = ['lead']; main()"
        variables = environment(**asked, COMP_CWORD=str(len(line.split(" ")) - 1))
        return subprocess.check_output(
            [sys.executable, "-c", program], cwd=workspace, env=variables, text=True
        ).split()

    assert completions("lead comp") == ["compare"]
    assert completions("lead run --preset ") == ["mine"]


def test_what_the_machine_refuses_is_one_line_with_the_place(call, workspace):
    (workspace / "pool.jsonl").write_text('{"prompt": "2+2?", "response": "4"}\n' * 2)
    arguments = ("doctor", "pool.jsonl", "--no-tokens", "--findings", "pool.jsonl/found.jsonl")
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    place = workspace / "pool.jsonl"
    assert err == f"error: {place}: File exists; that is in the way; name another place\n"


def test_outside_a_workspace_every_command_says_so_in_one_line(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = (["run"], ["lock"], ["export"], ["ui"], ["sync"], ["serve", "--cron", "0 3 * * *"])
    for arguments in commands:
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"error: no workspace here: .*\n", err)


def test_lock_writes_the_lock_from_a_folder_inside_the_workspace(call, workspace, monkeypatch):
    monkeypatch.chdir(workspace / "model")
    assert call("lock") == (0, "sources.lock.json: written\n", "")
    assert call("lock") == (0, "sources.lock.json: up to date\n", "")
    assert (workspace / "sources.lock.json").is_file()


def test_several_invalid_values_are_all_named_and_nothing_is_written(call, workspace):
    before = (workspace / "params.yaml").read_text()
    code, out, err = call("run", "--set", "bandit.exploration=1.5", "--set", "train.lora.rank=0")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: params.yaml: bandit.exploration must be in (0, 1], got 1.5",
        "error: params.yaml: train.lora.rank must be >= 1, got 0",
    ]
    assert (workspace / "params.yaml").read_text() == before
    assert not (workspace / "sources.lock.json").exists()


def test_a_dry_run_says_what_would_run_and_why_and_writes_nothing(call, workspace):
    before = sorted(path.name for path in workspace.iterdir())
    code, out, _ = call("run", "--dry-run")
    assert code == 0
    assert out.splitlines()[1:3] == ["train: never run", "report: never run; follows train"]
    assert out.splitlines()[-1] == "          not counting train, report: never run here"
    assert "sources.lock.json would be written anew: " in out
    assert sorted(path.name for path in workspace.iterdir()) == before


def test_a_dry_run_as_json_is_the_same_plan_or_the_settings_in_force(call, workspace):
    code, out, _ = call("run", "--dry-run", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["lock"].startswith(str(workspace / "sources.lock.json"))
    assert plan["stages"] == [
        {"stage": "train", "reasons": ["never run"]},
        {"stage": "report", "reasons": ["never run", "follows train"]},
    ]
    assert plan["estimate"]["unknown"] == ["train", "report"]
    code, out, _ = call("run", "--dry-run", "--json", "--set", "train.lora.rank=5")
    assert json.loads(out)["params"]["train"]["lora"]["rank"] == 5


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_dry_run_shows_the_plan_and_refuses_what_cannot_fit(call, monkeypatch, form):
    too_much = preflight.Estimate(0.0, 1 << 60, None, ())
    monkeypatch.setattr(preflight, "estimate_run", lambda *_: too_much)
    code, out, err = call("run", "--dry-run", *form)
    assert code == 2
    assert "never run" in out
    assert "GB free, the run needs about 1152921504.61 GB; make room" in err
    assert err.count("\n") == 1


def test_a_dry_run_of_settings_checks_them_and_writes_nothing(call, workspace):
    before = {path: path.read_bytes() for path in workspace.iterdir() if path.is_file()}
    code, out, err = call("run", "--dry-run", "--set", "train.lora.rank=5", "--set", "seed=3")
    assert (code, err) == (0, "")
    assert "LoRA rank 5, alpha 32" in out
    assert "source    data.jsonl, 1 file\n" in out
    assert out.splitlines()[-1] == "download  nothing"
    code, out, err = call("run", "--dry-run", "--set", "model.name=./gone", "--set", "seed=3")
    assert (code, out) == (2, "")
    assert err.startswith("error: model.name: no folder ./gone; give a folder")
    code, out, err = call("run", "--dry-run", "--set", "train.lora.rank=0")
    assert (code, out, err) == (2, "", "error: params.yaml: train.lora.rank must be >= 1, got 0\n")
    assert {path: path.read_bytes() for path in workspace.iterdir() if path.is_file()} == before


def test_a_workspace_in_use_is_refused_at_once_and_not_edited(workspace):
    with hold_workspace(workspace):
        code, out, err = finish(workspace, "run", "--set", "seed=1")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {workspace} is in use by another run, process {os.getpid()}")
    assert load_params(workspace / "params.yaml").seed == 0


def test_an_unknown_stage_is_refused_with_the_known_ones(call, workspace):
    code, _, err = call("run", "trian")
    assert (code, err) == (2, "error: dvc.yaml has no stage trian; it has train, report\n")


def test_an_export_before_any_training_says_what_to_run(call, workspace):
    for arguments in ([], ["--adapter", "adapter"], ["--merged", "model"]):
        code, out, err = call("export", *arguments)
        assert (code, out) == (2, "")
        assert err == (
            "error: nothing is trained yet: artifacts/train/manifest.json is not there; "
            "run `lead run train` first\n"
        )
    assert not (workspace / "export").exists()


def test_runs_recorded_on_a_server_are_looked_at_there(call, workspace):
    text = (workspace / "params.yaml").read_text()
    uri = "http://me:secret@tracking:5000"
    (workspace / "params.yaml").write_text(text.replace("  uri: null", f"  uri: {uri}"))
    code, out, _ = call("ui")
    assert code == 0
    assert "tracking:5000" in out
    assert "secret" not in out


def test_a_run_ends_in_a_table_and_the_next_one_finds_nothing_to_do(long_lived):
    code, out, err = finish(long_lived, "run", "--set", "train.learning_rate=1e-4")
    assert code == 0, err
    assert out.startswith("params.yaml: train.learning_rate: 0.001 -> 0.0001\n")
    for expected in (
        "1.5000 nats/token",
        "-0.2500 [-0.3000, -0.2000] over 64 records",
        "160 of 1000 (170 visits, 10 rounds, 11 steps)",
        "selection 0",
        "lead ui",
    ):
        assert expected in out
    assert "training" in err  # the stage's own line, in Prefect's log
    assert "\x1b" not in out + err
    assert not processes_in(long_lived)

    started = time.monotonic()
    code, again, err = finish(long_lived, "run")
    assert time.monotonic() - started < 15
    assert (code, err) == (0, "")
    assert again.startswith("Everything is up to date.\n")
    assert out.endswith(again.partition("\n")[2])


def test_the_outcome_as_json_is_all_that_is_printed(long_lived):
    arguments = ("run", "--json", "--set", "train.learning_rate=3e-4")
    code, out, err = finish(long_lived, *arguments, PREFECT_API_URL=prefect_api())
    assert code == 0, err
    outcome = json.loads(out)
    assert outcome["params_changed"][0].startswith("train.learning_rate: ")
    assert [run["stage"] for run in outcome["stages"]] == ["train", "report"]
    assert all(run["seconds"] > 0 for run in outcome["stages"])
    assert outcome["metrics"]["heldout_loss_difference"] == -0.25
    code, out, _ = finish(long_lived, "run", "--json")
    assert (code, json.loads(out)["stages"]) == (0, [])


def test_a_failed_stage_ends_in_its_exit_code_and_one_line(long_lived):
    (long_lived / "train.sh").write_text("echo 'error: it is odd' >&2; exit 2\n")
    code, out, err = finish(long_lived, "run", "--quiet", PREFECT_API_URL=prefect_api())
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "error: stage train failed: it is odd"
    assert "Traceback" not in err
    assert not processes_in(long_lived)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_however_a_run_is_ended_neither_stage_nor_server_is_left(long_lived, number):
    (long_lived / "started").unlink(missing_ok=True)
    (long_lived / "train.sh").write_text("touch started; sleep 300\n")
    run = start(long_lived, "run")
    wait_for((long_lived / "started").exists)
    run.send_signal(number)
    run.communicate(timeout=60)
    assert run.returncode != 0
    wait_for(lambda: not processes_in(long_lived))


def test_ctrl_c_ends_a_run_with_130_and_leaves_nothing(long_lived):
    (long_lived / "started").unlink(missing_ok=True)
    (long_lived / "train.sh").write_text("touch started; sleep 300\n")
    run = start(long_lived, "run", PREFECT_API_URL=prefect_api())
    wait_for((long_lived / "started").exists)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in err
    assert not processes_in(long_lived)


@pytest.mark.slow
def test_the_web_interface_answers_on_this_machine_only(workspace):
    process = start(workspace, "ui", "--port", "47123")
    try:

        def answers():
            try:
                with urllib.request.urlopen("http://127.0.0.1:47123/health") as answer:
                    return answer.status == 200
            except OSError:
                return False

        wait_for(answers)
        assert (workspace / "mlflow.db").exists()
    finally:
        process.kill()
        process.communicate(timeout=30)
    wait_for(lambda: not processes_in(workspace))


@pytest.mark.slow
def test_sync_reports_what_it_did(workspace):
    code, out, _ = finish(workspace, "sync")
    assert (code, out) == (
        0,
        "sent 0, in use 0, waiting 0, refused 0; 0 dead runs marked as killed\n",
    )

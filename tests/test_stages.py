"""The six stages with real tools on a tiny model: DVC runs them, MLflow records them."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import make_model, make_tokenizer

from lead_core.method_version import METHOD_VERSION
from lead_core.params import override

ROOT = Path(__file__).parents[1]

SETTINGS = [
    "model.name=model",
    "runtime.device=cpu",
    "runtime.threads=1",
    "runtime.precision=fp32",
    "data.sources=[colours.jsonl, sums.json]",
    "data.limit=null",
    "data.heldout_per_source=6",
    "cluster.difficulty_clusters=3",
    "cluster.min_cluster_size=4",
    "cluster.kmeans_restarts=2",
    "select.budget_fraction=null",
    "select.budget_samples=40",
    "train.effective_batch=2",
    "train.lora.rank=2",
    "train.lora.dropout=0.1",
    "train.learning_rate=0.003",
]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LEAD_"))}
    # As in an activated environment: DVC starts the stages with the `python` of the PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def call(workspace: Path, module: str, *arguments: str, code: int = 0, seconds: float = 900) -> str:
    """Run a Python module (or the `lead` command) in the workspace and return what it printed."""
    start = ["-c", "from flows.cli import main; main()"] if module == "lead" else ["-m", module]
    done = subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=workspace,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def limited_to(workspace: Path, size: int, module: str, *arguments: str) -> str:
    """Like `call` for a run that fails: no file may grow beyond `size` bytes, as on a full disk."""
    done = subprocess.run(
        ["prlimit", f"--fsize={size}", sys.executable, "-m", module, *arguments],
        cwd=workspace,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stdout
    return done.stdout


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder` but those that say how long things took."""
    timed = {"timings.jsonl", "evaluation-times.html"}
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in timed
    }


def make_workspace(folder: Path) -> Path:
    """Lay out a workspace as a clone has it, with a tiny model and two small sources."""
    for name in ("flows", "lead_core"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / "compare").mkdir()
    shutil.copy(ROOT / "compare/dvc.yaml", folder / "compare")
    shutil.copy(ROOT / ".dvcignore", folder)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    params = override(yaml.safe_load((ROOT / "params.yaml").read_text()), SETTINGS)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    make_model().save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    colours = [
        {"prompt": f"colour {i}", "response": f"{['red', 'blue'][i % 2]} {i}"} for i in range(60)
    ]
    lines = [json.dumps(row) for row in colours]
    lines[3] = "{broken"
    (folder / "colours.jsonl").write_text("\n".join([*lines, lines[0]]) + "\n")
    sums = [{"instruction": "add", "input": f"{i}+{i}", "output": f"{2 * i}"} for i in range(40)]
    (folder / "sums.json").write_text(json.dumps([*sums, {"instruction": "no output"}]))
    return folder


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A workspace after one `dvc repro`."""
    folder = make_workspace(tmp_path_factory.mktemp("pipeline") / "workspace")
    call(folder, "lead", "lock")
    call(folder, "dvc", "repro")
    return folder


@pytest.fixture
def copy(workspace, tmp_path) -> Path:
    """A workspace of the test's own, as the shared one is after its run."""
    return Path(shutil.copytree(workspace, tmp_path / "copy", symlinks=True))


def runs_of(workspace: Path):
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lead")
    return client, client.search_runs([experiment.experiment_id])


def test_every_record_is_accounted_for(workspace):
    counts = json.loads((workspace / "artifacts/pool/manifest.json").read_text())["counts"]
    assert counts["read"] == 61 + 41
    assert counts["kept"] + counts["heldout"] + counts["rejected"] + counts["not_sampled"] == 102
    rejected = [json.loads(x) for x in (workspace / "artifacts/pool/rejected.jsonl").open()]
    assert [(r["file"], r["line"], r["reason"]) for r in rejected[:2]] == [
        ("colours.jsonl", 4, "bad_json"),
        ("colours.jsonl", 61, "duplicate"),
    ]


def test_the_ledger_shows_two_offline_forwards_per_record_and_none_to_select(workspace):
    manifest = json.loads((workspace / "artifacts/train/manifest.json").read_text())
    metrics = json.loads((workspace / "artifacts/report/metrics.json").read_text())
    assert metrics["forwards_offline"] == 2 * manifest["pool_size"]
    assert metrics["forwards_selection"] == 0
    assert metrics["forwards_training"] == manifest["visits"] == 40
    assert metrics["forwards_evaluation"] == 2 * metrics["heldout_records"]


def test_a_warm_up_moves_ifd_and_leaves_the_utilities(copy):
    cold = pd.read_parquet(copy / "artifacts/scores/scores.parquet")
    settings = (
        "{samples: 10, epochs: 2, rank: 2, alpha: 4, learning_rate: 0.01, effective_batch: 4}"
    )
    output = call(copy, "flows.stages", "score", "--set", f"score.warmup={settings}")
    warm = pd.read_parquet(copy / "artifacts/scores/scores.parquet")
    assert warm["loss"].equals(cold["loss"])
    assert (warm["ifd"] != cold["ifd"]).all()
    assert f"{3 * len(cold) + 2 * 10} forwards" in output


def test_the_record_of_samples_agrees_with_the_record_of_rounds(workspace):
    rounds = [json.loads(x) for x in (workspace / "artifacts/train/rounds.jsonl").open()]
    samples = pd.read_parquet(workspace / "artifacts/train/selection.parquet")
    assert samples.groupby("round").size().tolist() == [row["n_selected"] for row in rounds]
    assert samples["step"].max() == sum(row["steps"] for row in rounds)
    assert (samples.groupby("id").size() == samples.groupby("id")["uses"].max()).all()


def test_outputs_hold_no_path_of_the_machine(workspace):
    for path in (workspace / "artifacts").rglob("*"):
        if path.is_file():
            assert str(workspace).encode() not in path.read_bytes(), path


def test_a_second_run_has_nothing_to_do(workspace):
    assert "Data and pipelines are up to date" in call(workspace, "dvc", "repro")


def test_editing_a_source_makes_the_pipeline_stale_once_it_is_locked(copy):
    source = copy / "colours.jsonl"
    source.write_text(source.read_text().replace("colour 7", "color 7"))
    assert "colours.jsonl" in call(copy, "flows.stages", "prepare", code=2).splitlines()[-1]
    assert "written" in call(copy, "lead", "lock")
    assert "sources.lock.json" in call(copy, "dvc", "status")


QUESTION = "Which of the old lamps on the northern pier burns longest when the tide is low?"


def check_against_quiz(workspace: Path) -> None:
    """Name a benchmark of one row in params.yaml."""
    (workspace / "quiz.jsonl").write_text(json.dumps({"question": QUESTION}) + "\n")
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    against = "data.decontaminate.against=[auto, {uri: quiz.jsonl, name: quiz}]"
    (workspace / "params.yaml").write_text(yaml.safe_dump(override(params, [against])))


def test_one_more_benchmark_is_checked_and_without_hits_leaves_score_and_training_alone(
    workspace, copy
):
    check_against_quiz(copy)
    output = call(copy, "dvc", "repro", code=255)
    assert "error: what data.decontaminate.against comes to is not what was locked" in output
    call(copy, "lead", "lock")
    output = call(copy, "dvc", "repro")
    assert "checked against quiz (1 rows): no record overlaps" in output
    assert "Stage 'score' didn't change, skipping" in output
    assert "Stage 'evaluate' didn't change, skipping" in output
    assert "Running stage 'report'" in output
    for folder in ("pool", "scores", "train"):
        assert hashes(copy / "artifacts" / folder) == hashes(workspace / "artifacts" / folder)
    page = (copy / "artifacts/report/page/index.html").read_text(encoding="utf-8")
    assert "quiz" in page[page.index("Overlap with benchmarks") :]
    (copy / "quiz.jsonl").write_text(json.dumps({"question": QUESTION.upper()}) + "\n")
    refused = call(copy, "flows.stages", "prepare", code=2).splitlines()[-1]
    assert refused == "error: quiz.jsonl changed since it was locked; run `lead lock`"


def test_a_row_of_a_benchmark_in_the_pool_is_removed_before_training(copy):
    check_against_quiz(copy)
    with (copy / "colours.jsonl").open("a") as source:
        source.write(json.dumps({"prompt": QUESTION, "response": "the third"}) + "\n")
    call(copy, "lead", "lock")
    output = call(copy, "flows.stages", "prepare")
    assert "checked against quiz (1 rows): 1 overlapping (1 verbatim, 0 edited), removed" in output
    [line] = (copy / "artifacts/pool/contamination.jsonl").read_text().splitlines()
    assert json.loads(line)["benchmark_text"] == QUESTION


def test_a_stage_refuses_files_that_do_not_belong_together(copy):
    scores = copy / "artifacts/scores/scores.parquet"
    scores.chmod(0o644)
    scores.write_bytes(scores.read_bytes()[:-1])
    output = call(copy, "flows.stages", "cluster", code=2)
    assert output.splitlines()[-1].startswith("error: artifacts/scores was made from another input")
    assert "run `dvc repro score`" in output


def test_a_bad_parameter_is_one_line(copy):
    output = call(copy, "flows.stages", "train", "--set", "bandit.exploration=2", code=2)
    assert output == "error: params.yaml: bandit.exploration must be in (0, 1], got 2\n"


def train_afresh(copy: Path) -> None:
    shutil.rmtree(copy / "artifacts/train")
    shutil.rmtree(copy / ".lead_state", ignore_errors=True)


def start_training(copy: Path, until: str) -> subprocess.Popen:
    """Start the train stage and return when the checkpoint `until` is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.stages", "train"],
        cwd=copy,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((copy / ".lead_state").glob(f"train-*/{until}")):
        assert process.poll() is None, "training ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_training_killed_twice_ends_with_the_same_bits_in_the_same_mlflow_run(workspace, copy):
    train_afresh(copy)
    (copy / "mlflow.db").unlink()
    for until in ("checkpoint-000003", "checkpoint-000009"):
        process = start_training(copy, until)
        process.kill()
        process.wait()
    call(copy, "flows.stages", "train")
    expected = hashes(workspace / "artifacts/train")
    assert hashes(copy / "artifacts/train") == expected
    client, runs = runs_of(copy)
    assert len(runs) == 1
    assert runs[0].info.status == "FINISHED"
    history = client.get_metric_history(runs[0].info.run_id, "train/loss")
    steps = [point.step for point in history]
    assert sorted(steps) == list(range(1, len(steps) + 1))
    samples = pd.read_parquet(copy / "artifacts/train/selection.parquet")
    assert len(steps) == samples["step"].max()


# What a cell of a comparison does: its held-out pass comes after the training.
PART_OF_A_CELL = """
import signal
from pathlib import Path
from flows.stages.train import run_training
from lead_core.artifacts import Layout
from lead_core.params import load_params
before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
workspace = Path.cwd()
params = load_params(workspace / "params.yaml")
trained = run_training(params, Layout.below(Path("artifacts")), workspace)
assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
print(trained.state.name)
"""


def test_a_training_within_something_longer_is_not_finished_and_drops_nobodys_state(copy):
    """Not even when it goes on from a finished state, which others would be free to delete."""
    (own,) = (copy / ".lead_state").glob("train-*")
    assert (own / "finished").exists()
    other = copy / ".lead_state/train-other"
    other.mkdir()
    (other / "finished").touch()
    done = subprocess.run(
        [sys.executable, "-c", PART_OF_A_CELL],
        cwd=copy,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == own.name
    assert not (own / "finished").exists()
    assert other.exists()
    call(copy, "flows.stages", "train")
    assert (own / "finished").exists()
    assert not other.exists()


def test_a_full_disk_ends_training_in_one_line_and_the_rerun_has_the_same_bits(workspace, copy):
    train_afresh(copy)
    output = limited_to(copy, 4096, "flows.stages", "train")
    assert "Traceback" not in output
    assert "cannot be written (File too large); raise the limit of a file's size" in output
    call(copy, "flows.stages", "train")
    assert hashes(copy / "artifacts/train") == hashes(workspace / "artifacts/train")


def test_another_algorithm_does_not_continue_a_finished_training(workspace, copy):
    utility = copy / "lead_core/utility.py"
    utility.write_text(
        utility.read_text().replace("return (1 - smoothing)", "return 0.5 * (1 - smoothing)")
    )
    call(copy, "flows.stages", "train")
    assert hashes(copy / "artifacts/train") != hashes(workspace / "artifacts/train")


def test_sigterm_ends_training_with_a_run_that_says_killed_and_repeats_nothing(workspace, copy):
    train_afresh(copy)
    (copy / "mlflow.db").unlink()
    process = start_training(copy, "checkpoint-000002")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert [run.info.status for run in runs_of(copy)[1]] == ["KILLED"]
    call(copy, "flows.stages", "train")
    assert hashes(copy / "artifacts/train") == hashes(workspace / "artifacts/train")
    spent = json.loads((copy / "artifacts/train/timings.jsonl").read_text().splitlines()[-1])
    assert spent["replayed"] == {"sequences": 0, "tokens": 0}


def test_a_forced_rerun_of_everything_gives_the_same_bits(workspace, copy):
    shutil.rmtree(copy / ".lead_state")  # DVC alone would be given the finished training's state
    call(copy, "dvc", "repro", "--force")
    assert hashes(copy / "artifacts") == hashes(workspace / "artifacts")


def test_training_and_evaluation_share_one_mlflow_run_with_what_people_compare(workspace):
    client, runs = runs_of(workspace)
    assert len(runs) == 1
    run = runs[0]
    assert run.info.run_name == "informative-seed0"
    assert run.data.params["select.selector"] == "informative"
    assert run.data.params["train.lora.rank"] == "2"
    assert {"lead.selector", "lead.seed", "lead.pool_hash", "lead.train_hash"} <= set(run.data.tags)
    assert run.data.tags["lead.stage"] == "train"
    assert run.data.tags["lead.evaluated"] == "true"
    assert {
        "eval/lead_heldout/loss",
        "eval/lead_heldout/loss.base",
        "forwards/selection",
        "round/reward",
        "train/loss",
    } <= set(run.data.metrics)
    assert [d.dataset.name for d in run.inputs.dataset_inputs] == ["pool", "selected"]
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"selection.json", "train", "eval"} <= artifacts


def test_an_evaluation_offers_its_adapter_as_champion_and_says_what_became_of_it(copy):
    output = call(copy, "flows.stages", "evaluate", "--set", "tracking.champion=night")
    (run,) = runs_of(copy)[1]
    reason = run.data.tags["lead.promotion"]
    assert output.splitlines()[-1] == f"promotion: {reason}"
    pair = json.loads((copy / "artifacts/eval/results.json").read_text())["paired"]
    better = pair["lead_heldout/loss"]["high"] < 0
    assert reason.startswith(
        "night version 1 is champion" if better else "not better than the base"
    )


def test_gc_keeps_the_state_that_params_ask_for_and_frees_the_rest(copy):
    (own,) = (copy / ".lead_state").glob("train-*")
    other = Path(shutil.copytree(own, own.with_name("train-of-earlier-parameters")))
    for path in [*own.rglob("*"), *other.rglob("*"), own, other]:
        os.utime(path, (0, 0))
    params = copy / "params.yaml"
    shipped = params.read_text()
    params.write_text(shipped.replace("heldout_per_source: ", "heldout_per_source: 1"))
    kept = call(
        copy, "lead", "gc"
    )  # artifacts of other parameters do not tell whose state is whose
    assert "prepare, score, cluster would run anew; `lead run` first" in kept
    params.write_text(shipped)
    output = call(copy, "lead", "gc", "--dry-run")
    assert other.exists()
    assert f".lead_state/{other.name}: state of a training that params.yaml no longer" in output
    assert output.splitlines()[-1].endswith(" MB  would be freed")
    assert call(copy, "lead", "gc").splitlines()[-1].endswith(" MB  freed")
    assert own.exists()
    assert not other.exists()


class ClaimedError(Exception):
    """Ends a training as soon as it has claimed its state."""


def test_gc_takes_the_states_of_all_cells_of_a_comparison_for_wanted(copy, monkeypatch):
    from flows.gc import wanted_states
    from flows.stages import train
    from flows.stages.cell import cell
    from lead_core.artifacts import Layout
    from lead_core.params import load_params

    def claim(state):
        raise ClaimedError(state.name)

    monkeypatch.chdir(copy)
    monkeypatch.setattr(train, "claim_state", claim)
    layout = Layout.below(Path("artifacts"))
    compare = load_params(copy / "params.yaml").compare
    claimed = set()
    for selector in compare.selectors:
        for seed in compare.seeds:
            own = [f"select.selector={selector}", f"seed={seed}"]
            with pytest.raises(ClaimedError) as found:
                cell(load_params(copy / "params.yaml", own), layout, copy)
            claimed.add(str(found.value))
    wanted = wanted_states(copy, layout)
    assert len(claimed) == len(compare.selectors) * len(compare.seeds)
    assert claimed < wanted
    assert len(wanted) == len(claimed) + 1  # the run's own


def test_the_fidelity_benchmark_measures_each_seed_once_and_touches_no_output(copy):
    before = hashes(copy / "artifacts"), (copy / "params.yaml").read_text()
    options = ["fidelity", "--rounds", "2", "--probe-samples", "8", "--seeds", "0,1"]
    options += ["--set", "utility.drift=cluster", "--out", "measured"]
    first = call(copy, "lead", *options)
    assert "seed 1, round 2: " in first
    assert "Spearman of trained samples at least 0.95: not applicable before round 12 (" in first
    files = hashes(copy / "measured")
    assert set(files) == {
        "fidelity-seed0.json",
        "fidelity-seed1.json",
        "fidelity.md",
        "fidelity.png",
    }
    result = json.loads((copy / "measured/fidelity-seed1.json").read_text())
    assert result["configured"] == "displacement/remaining, b=0.1 + drift"
    assert [row["round"] for row in result["rounds"]] == [1, 2]
    assert result["params"]["seed"] == 1
    assert result["method_version"] == METHOD_VERSION
    assert result["ledger"]["training"]["sequences"] == result["trajectory"]["visits"]
    assert result["ledger"]["evaluation"]["sequences"] > 0
    assert f"lead {' '.join(options[:7])} --out measured --set utility.drift=cluster" in (
        copy / "measured/fidelity.md"
    ).read_text(encoding="utf-8")
    again = call(copy, "lead", *options)
    assert "seed 0: measured already" in again
    assert hashes(copy / "measured") == files
    assert (hashes(copy / "artifacts"), (copy / "params.yaml").read_text()) == before
    assert "measured with other rounds than now" in call(
        copy, "lead", *options, "--rounds", "3", code=2
    )


def test_the_fidelity_of_a_selector_is_that_of_the_values_it_fixes(copy):
    options = ["fidelity", "--rounds", "1", "--probe-samples", "8", "--seeds", "0"]
    options += ["--set", "select.selector=lead-paper", "--set", "utility.smoothing=0.3"]
    said = call(copy, "lead", *options)
    assert "select.selector lead-paper fixes bandit.step_size: 1.0 -> 0.1\n" in said
    assert "select.selector lead-paper fixes utility.smoothing: 0.3 -> 0.1\n" in said
    result = json.loads((copy / "results/fidelity/fidelity-seed0.json").read_text())
    assert (result["selector"], result["configured"]) == ("lead-paper", "paper/whole, b=0.1")
    assert (
        result["params"]["bandit"]["step_size"] == result["params"]["utility"]["smoothing"] == 0.1
    )
    page = (copy / "results/fidelity/fidelity.md").read_text(encoding="utf-8")
    assert "| **paper/whole, b=0.1** |" in page


def test_an_adapter_recorded_in_mlflow_loads_and_answers(workspace):
    import mlflow

    client, runs = runs_of(workspace)
    models = client.search_logged_models([runs[0].info.experiment_id])
    assert len(models) == 1
    pipeline = mlflow.transformers.load_model(models[0].artifact_location)
    assert pipeline("hi", max_new_tokens=2)[0]["generated_text"]


def test_a_comparison_computes_each_cell_once_and_agrees_with_the_pipeline(workspace, copy):
    """`informative` with seed 0 is the pipeline's own training too, evaluated there by lm-eval."""
    options = ["compare", "--jobs", "2"]
    options += ["--set", "compare.selectors=[random, informative]", "--set", "compare.seeds=[0]"]
    first = call(copy, "lead", *options)
    assert "| `informative` | 1 |" in first
    assert "| `random` | 1 |" in first
    assert "2 of 2 cells to compute" in first
    cell_file = next((copy / "artifacts/compare").glob("*/cells/informative-seed0.*.json"))
    cell = json.loads(cell_file.read_text())
    kept = hashes(cell_file.parent)
    assert cell["origin"]["seconds"]["training"] > 0
    page = (cell_file.parents[1] / "comparison.html").read_text(encoding="utf-8")
    assert '<th scope="row">informative</th>' in page and str(copy) not in page
    evaluated = json.loads((workspace / "artifacts/eval/results.json").read_text())
    tuned = evaluated["tasks"]["lead_heldout"]["tuned"]["loss_macro"]
    assert cell["heldout"]["macro"] == pytest.approx(tuned, abs=1e-6)
    trained = hashes(workspace / "artifacts/train")
    in_cell = hashes(copy / "artifacts/compare/informative-seed0/train")
    assert in_cell["selection.parquet"] == trained["selection.parquet"]
    assert (
        in_cell["adapter/adapter_model.safetensors"] == trained["adapter/adapter_model.safetensors"]
    )
    assert cell["ledger"]["selection"]["sequences"] == 0
    assert "compare.seeds: [0, 1, 2] -> [0]" in first
    assert yaml.safe_load((copy / "params.yaml").read_text())["select"]["selector"] == "informative"
    _, runs = runs_of(copy)
    parents = [run for run in runs if run.data.tags.get("lead.stage") == "compare"]
    assert len(parents) == 1
    children = [r for r in runs if "mlflow.parentRunId" in r.data.tags]
    assert {run.data.params["select.selector"] for run in children} == {"random", "informative"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    shutil.rmtree(copy / "artifacts/compare/random-seed0")
    again = call(copy, "lead", *options)
    assert "0 of 2 cells to compute" in again
    assert hashes(cell_file.parent) == kept
    other = call(copy, "lead", *options, "--set", "train.learning_rate=0.002")
    assert "2 of 2 cells to compute" in other
    assert "| `informative` | 1 |" in other
    assert hashes(cell_file.parent) == kept
    assert len(list((copy / "artifacts/compare").glob("*/comparison.md"))) == 2


def test_subset_adapter_and_merged_model_leave_the_workspace(workspace, copy):
    inner = copy / "notes"
    inner.mkdir()
    options = ["export", "subset", "--format", "sharegpt", "--adapter", "adapter"]
    output = call(inner, "lead", *options, "--merged", "merged")
    manifest = json.loads((copy / "artifacts/train/manifest.json").read_text())
    assert f"{manifest['distinct']} records (sharegpt) in {inner / 'subset'}, with " in output
    samples = pd.read_parquet(copy / "artifacts/train/selection.parquet")
    rows = [json.loads(line) for line in (inner / "subset/train.jsonl").open()]
    assert [row["id"] for row in rows] == samples["id"].drop_duplicates().tolist()
    trl = yaml.safe_load((inner / "subset/trl.yaml").read_text())
    assert trl["model_name_or_path"] == str(copy / "model")
    assert (trl["lora_r"], trl["lora_dropout"], trl["learning_rate"]) == (2, 0.1, 0.003)
    assert trl["num_train_epochs"] * len(rows) == pytest.approx(manifest["visits"], abs=0.01)
    merged, tuned = (loaded_logits(inner / name) for name in ("merged", "adapter"))
    assert merged == pytest.approx(tuned, abs=1e-4)
    assert merged != pytest.approx(loaded_logits(copy / "model"), abs=1e-3)
    assert hashes(copy / "artifacts") == hashes(workspace / "artifacts")
    (inner / "subset/trl.yaml").write_text("mine")
    refused = call(inner, "lead", *options, code=2)
    assert "subset was changed since it was exported (trl.yaml)" in refused


def test_the_champion_is_exported_as_it_was_trained_whatever_the_workspace_has_become(
    workspace, copy, tmp_path, monkeypatch
):
    from flows.export import export
    from lead_core.errors import LeadError
    from lead_core.export_forms import Form
    from lead_core.storage import sha256_file
    from lead_core.tracking import open_run, resolve_settings

    def exported(name: str, *, champion: bool) -> tuple[Path, list[str]]:
        out = tmp_path / name
        folders = {"subset": out / "subset", "adapter": out / "adapter", "merged": None}
        return out, list(
            export(copy, champion=champion, form=Form.MESSAGES, scores=True, **folders)
        )

    monkeypatch.chdir(copy)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it, for good
    own, _ = exported("own", champion=False)
    manifest = json.loads((copy / "artifacts/train/manifest.json").read_text())
    key = {"lead.train_hash": sha256_file(copy / "artifacts/train/manifest.json")}
    settings = resolve_settings(copy, None, "lead")
    with open_run(settings, name="evaluate", key=key, tags={}, params={}) as run:
        heldout = copy / "artifacts/eval/heldout.parquet"
        run.offer_champion("night", heldout, manifest["model_sha256"])
    params = copy / "params.yaml"
    with pytest.raises(LeadError, match=r"tracking\.champion must name the registered model whose"):
        exported("none", champion=True)
    moved_on = ["tracking.champion=night", "train.lora.rank=7", "model.name=gone"]
    params.write_text(yaml.safe_dump(override(yaml.safe_load(params.read_text()), moved_on)))
    shutil.rmtree(copy / "artifacts/train")

    out, said = exported("champion", champion=True)
    assert said[0].startswith("champion night version 1 (MLflow run informative-seed0, ")
    for folder in ("subset", "adapter"):
        assert hashes(out / folder) == hashes(own / folder)

    make_model(seed=5).save_pretrained(copy / "model")
    with pytest.raises(LeadError, match=r"trained on another state of model \(hash \w{12}\.\.\., "):
        exported("none", champion=True)


def test_what_was_trained_on_other_clusters_is_not_exported(copy, monkeypatch):
    from flows.export import export
    from lead_core.errors import LeadError
    from lead_core.export_forms import Form

    manifest = copy / "artifacts/clusters/manifest.json"
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**facts, "clusters_sha256": "0" * 64}))
    monkeypatch.chdir(copy)
    folders = {"subset": copy / "out", "adapter": None, "merged": None}
    with pytest.raises(LeadError, match=r"the training \(the clusters\) was made from another in"):
        list(export(copy, champion=False, form=Form.MESSAGES, scores=True, **folders))


def loaded_logits(folder: Path) -> list[float]:
    """Load a model or an adapter as its users do and return the logits behind a short prompt."""
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    adapter = (folder / "adapter_config.json").exists()
    loader = AutoPeftModelForCausalLM if adapter else AutoModelForCausalLM
    with torch.inference_mode():
        return (
            loader.from_pretrained(folder)
            .eval()(torch.arange(20)[None] + 90)
            .logits[0, -1]
            .tolist()
        )

"""`lead doctor` as it is called: what it measures with, its exit codes, its output."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_pool import pair, pairs, write

from flows.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that is no workspace."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.jsonl", pairs(30))
    write(tmp_path / "bad.jsonl", [*pairs(8), "{broken\n", pair("?", ""), pair("Why?", "So.")])
    return tmp_path


@pytest.fixture
def workspace(folder, tiny_model_folder):
    """A folder with the shipped parameters, but for the model and the limit on tokens."""
    (folder / "dvc.yaml").write_text("stages: {}\n")
    params = (ROOT / "params.yaml").read_text()
    params = params.replace("embedded://smollm2-135m-instruct", str(tiny_model_folder))
    (folder / "params.yaml").write_text(params.replace("max_tokens: 192", "max_tokens: 50"))
    return folder


@pytest.fixture
def doctor(monkeypatch, capsys):
    """Run `lead doctor` in this process; return its exit code and what it printed."""

    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lead", "doctor", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return run


def test_a_good_pool_is_fine_in_any_folder(folder, doctor):
    code, out, err = doctor("good.jsonl")
    assert (code, err) == (0, "")
    assert out.startswith("30 records: 30 usable, 0 rejected (0 %), 0 of the usable suspicious")
    assert "LENGTHS in words" in out
    assert out.endswith(
        "VERDICT: fine\n"
        "next: for every record, not only examples: lead doctor --findings findings.jsonl "
        "good.jsonl\n"
        "next: to train, in a checkout of LEAD: lead run --set data.sources='[\"good.jsonl\"]'\n"
    )
    assert {path.name for path in folder.iterdir()} == {"bad.jsonl", "good.jsonl"}


def test_problems_are_exit_code_one_until_they_are_tolerated(folder, doctor):
    code, out, _ = doctor("good.jsonl", "bad.jsonl", "--max-duplicates", "1")
    assert code == 1
    assert "  bad_json" in out
    assert "      bad.jsonl:9  not JSON: Expecting property name" in out
    assert (
        "VERDICT: 1 problem rejected: 2 of 41 records cannot be used (4.88 %; --max-rejected"
        in " ".join(out.split())
    )
    tolerant = ("--max-duplicates", "0.2", "--max-rejected", "0.05")
    assert doctor("good.jsonl", "bad.jsonl", *tolerant)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "missing argument 'FILE...'"),
        (("good.jsonl", "--max-rejected", "2"), "less than or equal to 1"),
        (("good.jsonl", "nope.jsonl"), "error: nope.jsonl: no such file (looked in "),
        (("nope/*.json",), "error: nope/*.json: no file matches (looked in "),
        (("empty.jsonl",), "error: empty.jsonl holds no records; "),
        (("notes.txt",), "error: notes.txt: the format is not known by this name; "),
        (("good.jsonl", "--tokens"), "error: --tokens: there is no workspace here that names a "),
        (("good.jsonl", "--max-tokens", "9"), "error: --max-tokens needs a tokenizer: "),
        (
            ("good.jsonl", "--no-tokens", "--model", "x"),
            "error: --no-tokens counts words and --model tokens; give one of them",
        ),
        (("good.jsonl", "--model", "./x"), "error: model.name: no folder ./x; give a folder"),
    ],
)
def test_nothing_to_read_or_a_wrong_option_is_exit_code_two(folder, doctor, arguments, message):
    (folder / "empty.jsonl").touch()
    (folder / "notes.txt").write_text("x")
    code, out, err = doctor(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_json_is_all_there_is_on_standard_output(folder, doctor):
    code, out, err = doctor("good.jsonl", "bad.jsonl", "--json")
    report = json.loads(out)
    assert (code, err) == (1, "")
    assert (report["fine"], report["read"], report["usable"]) == (False, 41, 31)
    assert report["rejected"] == {"bad_json": 1, "duplicate": 8, "no_response": 1}


def test_every_finding_can_be_written_as_json_lines(folder, doctor):
    _, out, _ = doctor(
        "good.jsonl", "bad.jsonl", "--findings", "out/found.jsonl", "--examples", "0"
    )
    rows = [json.loads(line) for line in (folder / "out/found.jsonl").read_text().splitlines()]
    assert len(rows) == 10
    assert rows[8] == {
        "file": "bad.jsonl",
        "line": 9,
        "index": 8,
        "source": "bad",
        "kind": "bad_json",
        "detail": "not JSON: Expecting property name enclosed in double quotes (column 2)",
    }
    assert "bad.jsonl:" not in out
    assert "next: out/found.jsonl lists every record with its file, line and reason\n" in out


def test_in_a_workspace_its_model_and_its_limit_count(workspace, doctor, tiny_model_folder):
    write(workspace / "good.jsonl", [*pairs(99), pair("long", "x" * 99)])
    (workspace / "below").mkdir()
    os.chdir(workspace / "below")
    code, out, _ = doctor("../good.jsonl", "--findings", "found.jsonl")
    assert code == 0
    assert f"LENGTHS in tokens ({tiny_model_folder}, chat template included)" in out
    assert "max_tokens 50 refuses 1 record (1.0 %), " in out
    assert "      ../good.jsonl:100  1" in out
    assert (workspace / "below" / "found.jsonl").is_file()


def test_options_come_before_the_workspace(workspace, doctor):
    code, out, _ = doctor("good.jsonl", "--max-tokens", "20")
    assert code == 1
    assert "max_tokens 20 refuses 30 records (100.0 %)" in out
    assert "nothing_usable: no record of good can be used" in out
    assert "LENGTHS in words" in doctor("good.jsonl", "--no-tokens")[1]


def test_a_model_can_be_named_without_a_workspace(folder, doctor, tiny_model_folder):
    code, out, _ = doctor("good.jsonl", "--model", str(tiny_model_folder), "--max-tokens", "60")
    assert code == 0
    assert "LENGTHS in tokens" in out
    assert "max_tokens 60 refuses 0 records (0 %)" in out
    assert out.endswith(f" --set model.name={tiny_model_folder} --set data.max_tokens=60\n")


def test_a_model_that_is_not_here_is_not_fetched_unasked(workspace, doctor, monkeypatch):
    monkeypatch.setenv("LEAD_CACHE", str(workspace / "cache"))
    (workspace / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    code, out, _ = doctor("good.jsonl")
    assert code == 0
    told = " ".join(out.split())
    assert (
        "note: embedded://smollm2-135m-instruct is not on this machine, so lengths are in words; "
        "--tokens fetches it"
    ) in told


def test_files_that_are_not_plain_utf8_are_noted(folder, doctor):
    text = json.dumps(pair("a", "b"))
    (folder / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (folder / "wide.json").write_bytes(text.encode("utf-16"))
    _, out, _ = doctor("bom.jsonl", "wide.json")
    assert "note: bom.jsonl starts with a byte order mark" in out
    assert "note: wide.json is utf-16; " in out


def test_without_tokens_nothing_heavy_is_imported(folder):
    program = (
        "import sys; from flows.cli import main; sys.argv = ['lead', 'doctor', 'good.jsonl']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'prefect', 'mlflow', 'dvc', 'pandas'}\n"
        "print('imported:', sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert "imported: []" in shown

"""`lead bench` as it is called: what it measures, writes and refuses."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from flows import bench, bench_measurements, cli
from flows.bench import BenchPlan, chosen_measurements
from flows.bench_subject import Subject
from lead_core.bench import records
from lead_core.bench.bookkeeping import measure_bookkeeping
from lead_core.bench.effort import QUICK
from lead_core.errors import LeadError
from lead_core.params import load_params
from lead_core.storage import sha256_file

ROOT = Path(__file__).parents[1]


@pytest.fixture
def workspace(tmp_path, tiny_model_folder, monkeypatch):
    """A folder with the shipped parameters, but for a toy model and what fits it."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    params["model"]["name"] = "model"
    params["runtime"]["threads"] = 1
    params["data"]["max_tokens"] = 400
    params["score"]["batch_tokens"] = 512
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(records, "PACKAGE", "asyncio")  # mined in a fraction of a second
    return tmp_path


@pytest.fixture
def lead_bench(monkeypatch, capsys):
    """Run `lead bench` in this process; return its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lead", "bench", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return run


def test_measurements_are_shown_and_written_with_where_they_come_from(workspace, lead_bench):
    names = ("matmul", "scoring", "training", "attention", "evaluation")
    before = {path.name for path in workspace.iterdir()}
    code, out, err = lead_bench(*names, "--out", "results")
    assert code == 0
    assert [line for line in err.splitlines() if line.startswith("measuring")] == [
        f"measuring {name}" for name in names
    ]
    assert "evaluation: skipped, it needs MMLU as files: lead bench evaluation --data-dir" in out
    written = json.loads((workspace / "results" / "bench.json").read_text())
    assert list(written["results"]) == sorted(names[:-1])
    assert set(written["skipped"]) == {"evaluation"}
    assert written["machine"]["threads"] == 1
    assert written["effort"]["scoring_records"] == QUICK.scoring_records
    assert written["results"]["training"]["samples"] == 4
    origin = json.loads((workspace / "results" / "origin.json").read_text())
    assert origin["command"] == f"lead bench {' '.join(names)} --quick --out results"
    assert origin["sha256"] == sha256_file(workspace / "results" / "bench.json")
    assert origin["libraries"]["torch"] == written["machine"]["torch"]
    table = (workspace / "results" / "bench.md").read_text()
    assert table.count("| scoring |") == len(written["results"]["scoring"]["figures"])
    for path in (workspace / "results").iterdir():
        assert str(workspace) not in path.read_text()
    assert {path.name for path in workspace.iterdir()} == before | {"results"}


def test_bookkeeping_is_measured_on_the_loop_of_the_train_stage(workspace, tmp_path_factory):
    params = load_params(workspace / "params.yaml", ["select.selector=random", "seed=3"])
    subject = Subject(workspace, params, QUICK, None)
    loop = bench_measurements.make_loop(subject, tmp_path_factory.mktemp("state"))
    result = measure_bookkeeping(loop, on_round=lambda report: None, repetitions=1)
    assert loop.selector.name == "lead"
    assert (result.rounds, result.samples) == (QUICK.loop_rounds, 4 * QUICK.loop_rounds)


def test_clustering_is_measured_with_the_parameters_of_the_stage_in_a_process_of_its_own(workspace):
    params = load_params(workspace / "params.yaml", ["cluster.fit_limit=50"])
    effort = replace(QUICK, clustered_pools=(300,))
    result = bench_measurements.clustering(Subject(workspace, params, effort, None))
    assert (result.width, result.exact_limit, result.agreement) == (16, 7 * 50, None)
    assert [pool.records for pool in result.pools] == [300]
    # Without torch, which this process has imported, it is a small one.
    assert result.pools[0].peak_gigabytes < 0.5


@pytest.mark.slow
def test_bookkeeping_records_in_a_store_of_its_own(workspace, lead_bench):
    before = {path.name for path in workspace.iterdir()}
    code, out, _ = lead_bench("bookkeeping")
    assert code == 0
    assert "all that LEAD" in out
    assert {path.name for path in workspace.iterdir()} == before


def test_without_names_all_are_measured_and_no_op_runs_only_in_full():
    every = list(bench_measurements.MEASUREMENTS)
    assert chosen_measurements((), full=True) == tuple(every)
    assert chosen_measurements((), full=False) == tuple(n for n in every if n != "pipeline")
    assert chosen_measurements(("pipeline", "pipeline"), full=False) == ("pipeline",)


def test_a_name_that_is_none_is_refused_with_those_that_are(workspace, lead_bench):
    code, out, err = lead_bench("scorring")
    assert (code, out) == (2, "")
    assert err.startswith("error: lead bench: no measurement 'scorring'; there is matmul, scoring,")


def test_files_that_are_not_there_are_found_out_before_anything_is_measured(workspace):
    (workspace / "files").mkdir()
    plan = BenchPlan((), False, None, workspace / "files", None, ())
    with pytest.raises(LeadError, match=r"--data-dir: no file .*mmlu/test.jsonl"):
        bench.run_bench(workspace, plan)


def test_the_command_line_is_told_without_a_path_of_the_machine(tmp_path):
    plan = BenchPlan(
        ("scoring",), True, tmp_path / "results", Path("/elsewhere"), 2, ("runtime.threads=1",)
    )
    assert plan.command(tmp_path) == (
        "lead bench scoring --full --data-dir FOLDER --out results --subjects 2 "
        "--set runtime.threads=1"
    )


def test_no_op_runs_need_a_workspace_that_is_up_to_date(workspace, lead_bench):
    code, out, _ = lead_bench("pipeline")
    assert code == 0
    assert "pipeline: skipped, the workspace is not up to date (sources.lock.json is not" in out
    assert "run `lead run` first" in " ".join(out.split())

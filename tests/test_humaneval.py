"""HumanEval: lm-eval's own definition, run in the sandbox."""

import gzip
import json
import os
import shutil
from itertools import combinations
from pathlib import Path

import lm_eval.tasks
import pytest
import yaml
from conftest import make_model, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from lm_eval import evaluator
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from lead_core.errors import LeadError
from lead_core.evaluation import TASKS, load_tasks
from lead_core.evaluation import evaluate as run_evaluation
from lead_core.model import ResolvedRuntime, add_adapter
from lead_core.tasks.humaneval.humaneval import (
    estimate_pass_at_k,
    pass_at_k,
    run_responses,
    write_program,
)

PROBLEMS = Path(__file__).parent / "humaneval_problems.jsonl"
OURS = TASKS / "humaneval"
CONTEXT = 8192  # a byte is a token here
STOCK = Path(lm_eval.tasks.__file__).parent / "humaneval" / "humaneval.yaml"


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rates(problems, responses):
    return [
        pass_at_k(references=[""], predictions=[samples], k=[1])["pass@1"]
        for samples in run_responses([[response] for response in responses], problems)
    ]


@pytest.fixture
def folder(tmp_path):
    """Tasks that include ours and take their problems from a file."""
    for name in ("humaneval", "humaneval_pass10"):
        config = {
            "include": str(OURS / f"{name}.yaml"),
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(PROBLEMS)},
                "cache_dir": str(tmp_path / "cache"),
            },
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def load(name, folder, **options):
    tokenizer = make_tokenizer()
    return load_tasks(
        [name], pool=folder, tokenizer=tokenizer, max_length=CONTEXT, folders=(folder,), **options
    )


class Writer(LM):
    """Answers each problem with what `answers` makes of it: one text for each time it is asked."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def generate_until(self, requests, disable_tqdm=False):
        asked = {}
        written = []
        for request in requests:
            name = request.doc["task_id"]
            asked[name] = asked.get(name, -1) + 1
            written.append(self.answers(request.doc, asked[name]))
        return written

    def loglikelihood(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


def evaluate(name, folder, answers):
    tasks = load(name, folder, run_generated_code=True).tasks
    return evaluator.evaluate(Writer(answers), {"tasks": tasks}, confirm_run_unsafe_code=True)


def test_pass_at_k_agrees_with_numbers_by_hand():
    assert estimate_pass_at_k(1, 1, 1) == 1.0
    assert estimate_pass_at_k(1, 0, 1) == 0.0
    assert estimate_pass_at_k(20, 3, 1) == pytest.approx(3 / 20)
    assert estimate_pass_at_k(20, 3, 10) == pytest.approx(1 - (10 * 9 * 8) / (20 * 19 * 18))
    assert estimate_pass_at_k(20, 11, 10) == 1.0  # any ten hold one of the eleven
    assert estimate_pass_at_k(20, 0, 10) == 0.0
    with pytest.raises(ValueError, match="pass@10 takes at least 10 samples of a problem, got 9"):
        estimate_pass_at_k(9, 1, 10)


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_draws_that_hold_a_pass(samples, data):
    passed = data.draw(st.integers(0, samples))
    k = data.draw(st.integers(1, samples))
    draws = [any(i < passed for i in draw) for draw in combinations(range(samples), k)]
    assert estimate_pass_at_k(samples, passed, k) == pytest.approx(sum(draws) / len(draws))


def test_the_definition_is_lm_evals_but_for_what_runs_the_programs():
    ours, stock = (load_yaml(path, resolve_func=False) for path in (OURS / "humaneval.yaml", STOCK))
    for config in (ours, stock):
        del config["metric_list"][0]["metric"]
        del config["filter_list"][0]["filter"][0]["filter_fn"]
    assert ours["metadata"].pop("sandboxed") is True
    assert ours == stock


def test_pass10_is_the_same_prompt_sampled_as_the_paper_and_lm_evals_sampling_task_do():
    ours, base, stock = (
        load_yaml(path, resolve_func=False)
        for path in (
            OURS / "humaneval_pass10.yaml",
            OURS / "humaneval.yaml",
            STOCK.with_name("humaneval_64.yaml"),
        )
    )
    assert (ours["repeats"], ours["metric_list"][0]["k"]) == (20, [1, 10])
    assert ours["generation_kwargs"] == {**stock["generation_kwargs"], "temperature": 0.8}
    changed = {"task", "repeats", "metric_list", "generation_kwargs"}
    assert {key for key in ours if ours[key] != base[key]} == changed


def test_prompts_and_targets_are_rendered_as_lm_evals_own(folder):
    stock = load_yaml(STOCK, resolve_func=False)
    local = load_yaml(folder / "humaneval.yaml", resolve_func=False)
    for key in ("dataset_path", "dataset_kwargs"):
        stock[key] = local[key]
    del stock["metric_list"], stock["filter_list"]  # these fetch from the hub
    theirs = ConfigurableTask(config=stock)
    ours = load("humaneval", folder, run_generated_code=True).tasks["humaneval"]
    for task in (theirs, ours):
        task.build_all_requests(rank=0, world_size=1)
    assert len(ours.instances) == 3
    for mine, other, problem in zip(ours.instances, theirs.instances, read(PROBLEMS), strict=True):
        assert mine.args == other.args
        assert mine.args[0] == problem["prompt"]
        target = f"{problem['test']}\ncheck({problem['entry_point']})"
        assert ours.doc_to_target(mine.doc) == theirs.doc_to_target(other.doc) == target


def test_a_program_is_the_prompt_the_response_and_the_tests():
    problem = {"prompt": "def f():\n", "test": "def check(x): ...", "entry_point": "f"}
    assert write_program(problem, "  return") == "def f():\n  return\ndef check(x): ...\ncheck(f)"


def test_right_and_empty_and_wrong_answers_score_as_they_should(folder):
    def right(problem, time):
        return problem["canonical_solution"]

    results = evaluate("humaneval", folder, right)
    assert results["results"]["humaneval"]["pass@1,create_test"] == 1.0
    results = evaluate("humaneval", folder, lambda problem, time: "")
    assert results["results"]["humaneval"]["pass@1,create_test"] == 0.0
    harm = ["    raise SystemExit(0)\n", "    while True: pass\n", "    import os; os._exit(0)\n"]
    results = evaluate("humaneval", folder, lambda problem, time: harm[int(problem["task_id"][-1])])
    assert results["results"]["humaneval"]["pass@1,create_test"] == 0.0
    samples = [sample["filtered_resps"][0][0] for sample in results["samples"]["humaneval"]]
    assert [sample["outcome"] for sample in samples] == ["failed", "timed_out", "failed"]
    assert samples[0]["program"].startswith("def double")


def test_pass10_counts_passes_among_twenty(folder):
    def answers(problem, time):
        passes = {"Made/0": 3, "Made/1": 0, "Made/2": 20}[problem["task_id"]]
        return problem["canonical_solution"] if time < passes else "    return None\n"

    results = evaluate("humaneval_pass10", folder, answers)["results"]["humaneval_pass10"]
    assert results["pass@1,create_test"] == pytest.approx((3 / 20 + 0 + 1) / 3)
    hand = 1 - (10 * 9 * 8) / (20 * 19 * 18)
    assert results["pass@10,create_test"] == pytest.approx((hand + 0 + 1) / 3)


def test_base_and_tuned_model_are_scored_side_by_side(folder, tmp_path):
    path = folder / "humaneval.yaml"
    stock = load_yaml(OURS / "humaneval.yaml", resolve_func=False)
    short = {"generation_kwargs": {**stock["generation_kwargs"], "max_gen_toks": 8}}
    path.write_text(path.read_text() + yaml.safe_dump(short))
    model = add_adapter(
        make_model(), rank=2, alpha=4, dropout=0.0, target_modules="all-linear", seed=0
    )
    results = run_evaluation(
        model=model.eval(),
        tokenizer=make_tokenizer(),
        runtime=ResolvedRuntime("cpu", 1, "fp32"),
        tasks=load("humaneval", folder, run_generated_code=True, limit=2),
        batch_size=2,
        bootstrap_samples=0,
        inputs={"model_sha256": "m" * 64, "adapter_sha256": "a" * 64},
        cache=tmp_path / "cache-of-answers",
        out=tmp_path / "eval",
    )
    task = results["tasks"]["humaneval"]
    assert task["base"] == task["tuned"] == {"pass@1,create_test": 0.0}
    assert results["paired"]["humaneval/pass@1,create_test"]["n"] == task["n"] == 2
    with gzip.open(tmp_path / "eval" / "samples" / "humaneval.jsonl.gz", "rt") as stream:
        [filtered] = json.loads(stream.readline())["tuned"]["filtered"]["create_test"]
    assert filtered[0]["outcome"] == "failed"
    assert filtered[0]["program"].startswith("def double")


def test_without_the_parameter_it_is_refused_before_any_data_is_fetched(tmp_path):
    for name in ("humaneval", "humaneval_pass10"):
        with pytest.raises(LeadError) as caught:
            load_tasks([name], pool=tmp_path, tokenizer=make_tokenizer(), max_length=CONTEXT)
        assert str(caught.value) == (
            f"params.yaml: evaluate.tasks: {name} runs code that the model wrote; set "
            "evaluate.run_generated_code to true to run it, each program on its own without network, "
            "files, settings or rights (docs/security.md), or remove it"
        )


def test_with_a_folder_of_benchmarks_both_tasks_read_their_problems_there(tmp_path):
    shutil.copy(PROBLEMS, tmp_path / "humaneval_test.jsonl")
    names = ["humaneval", "humaneval_pass10"]
    settings = {"pool": tmp_path, "tokenizer": make_tokenizer(), "max_length": CONTEXT}
    with pytest.raises(LeadError, match=r"set evaluate\.run_generated_code to true"):
        load_tasks(names, data_dir=tmp_path, **settings)
    loaded = load_tasks(names, data_dir=tmp_path, run_generated_code=True, **settings)
    prompts = [problem["prompt"] for problem in read(PROBLEMS)]
    for name in names:
        assert [request.args[0] for request in loaded.tasks[name].instances] == prompts


def test_a_machine_without_isolation_is_told_before_any_model_is_loaded(folder, monkeypatch):
    monkeypatch.setattr("lead_core.sandbox.run.platform.machine", lambda: "sparc")
    with pytest.raises(LeadError, match="this machine is sparc"):
        load("humaneval", folder, run_generated_code=True)


@pytest.mark.slow
def test_all_reference_solutions_pass_and_none_that_is_empty():
    """With LEAD_BENCHMARK_DATA naming a folder that holds humaneval_test.jsonl."""
    path = Path(os.environ.get("LEAD_BENCHMARK_DATA", "")) / "humaneval_test.jsonl"
    if not path.is_file():
        pytest.skip("LEAD_BENCHMARK_DATA names no folder with humaneval_test.jsonl")
    problems = read(path)
    assert len(problems) == 164
    failed = [
        problem["task_id"]
        for problem, rate in zip(
            problems, rates(problems, [p["canonical_solution"] for p in problems]), strict=True
        )
        if rate != 1.0
    ]
    assert failed == []
    assert sum(rates(problems, [""] * len(problems))) == 0.0

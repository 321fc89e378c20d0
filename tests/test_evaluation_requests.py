"""What is checked of a task before a model is loaded: one line for each mistake."""

import json

import pytest
import yaml
from conftest import make_tokenizer
from toy_benchmarks import write_benchmarks

from lead_core.errors import LeadError
from lead_core.evaluation import load_tasks
from lead_core.evaluation_requests import context_length
from lead_core.params import TaskParams


@pytest.fixture
def folder(tmp_path):
    """Tasks over six sums: one that generates, one that scores, one without examples by definition."""
    rows = [{"question": f"{i} + {i} =", "answer": str(2 * i)} for i in range(6)]
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "question",
        "doc_to_target": "answer",
    }
    writing = {
        "output_type": "generate_until",
        "generation_kwargs": {"max_gen_toks": 40, "until": ["\n"]},
    }
    for name, config in (
        ("scores", {"output_type": "loglikelihood"}),
        ("writes", writing),
        ("never", {**writing, "num_fewshot": 0}),
    ):
        path = tmp_path / "tasks" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"task": name, **common, **config}))
    return tmp_path / "tasks"


def load(folder, *entries, max_length=512, **others):
    return load_tasks(
        [TaskParams.model_validate({"num_fewshot": None, "limit": None, **e}) for e in entries],
        pool=folder,
        tokenizer=make_tokenizer(),
        max_length=max_length,
        folders=[folder],
        **others,
    )


def test_a_task_that_says_nothing_of_examples_gets_none_as_in_lm_eval(folder):
    loaded = load(folder, {"task": "scores"})
    assert loaded.tasks["scores"].get_config("num_fewshot") == 0
    assert loaded.tasks["scores"].instances[0].args == ("0 + 0 =", "0")
    assert len(loaded.tasks["scores"].instances) == 6


def test_an_entry_sets_examples_and_limit_of_its_own(folder):
    loaded = load(
        folder, {"task": "scores", "num_fewshot": 2, "limit": 3}, {"task": "writes"}, limit=5
    )
    assert [len(loaded.tasks[name].instances) for name in ("scores", "writes")] == [3, 5]
    assert loaded.tasks["scores"].instances[0].args[0].count("=") == 3
    assert loaded.limits == {"scores": 3, "writes": 5}


def test_examples_are_drawn_by_the_seed(folder):
    def prompts(seed):
        loaded = load(folder, {"task": "writes", "num_fewshot": 3}, seed=seed)
        return [request.args[0] for request in loaded.tasks["writes"].instances]

    assert prompts(1) == prompts(1) != prompts(2)


def test_more_examples_than_there_are_is_one_line(folder):
    assert load(folder, {"task": "scores", "num_fewshot": 5}).tasks
    with pytest.raises(
        LeadError,
        match=r"^params\.yaml: evaluate\.tasks: scores has 5 examples to choose from, num_fewshot asks "
        r"for 6; lower it$",
    ):
        load(folder, {"task": "scores", "num_fewshot": 6})


def test_more_examples_than_a_benchmark_has_is_one_line(tmp_path):
    write_benchmarks(tmp_path)
    entry = TaskParams(task="mmlu_anatomy", num_fewshot=6, limit=None)
    with pytest.raises(LeadError, match=r"mmlu_anatomy has 5 examples to choose from, .* for 6"):
        load_tasks(
            [entry], pool=tmp_path, tokenizer=make_tokenizer(), max_length=8192, data_dir=tmp_path
        )


def test_examples_for_a_task_that_is_defined_without_is_one_line(folder):
    assert load(folder, {"task": "never", "num_fewshot": 0}).tasks
    with pytest.raises(
        LeadError, match=r"never is defined without examples, num_fewshot asks for 2"
    ):
        load(folder, {"task": "never", "num_fewshot": 2})


def test_a_task_named_twice_must_be_asked_the_same(folder):
    assert list(load(folder, {"task": "scores"}, {"task": "scores"}).tasks) == ["scores"]
    with pytest.raises(
        LeadError, match=r"scores is named twice, with different num_fewshot or limit"
    ):
        load(folder, {"task": "scores"}, {"task": "scores", "limit": 2})


def test_a_prompt_longer_than_the_model_is_named(folder):
    longest = len("5 + 5 =10")  # a byte is a token here; the last one is only predicted
    assert load(folder, {"task": "scores"}, max_length=longest - 1).tasks
    with pytest.raises(
        LeadError,
        match=r"^params\.yaml: evaluate\.tasks: document 5 of scores has a prompt of 9 tokens, the "
        r"model has room for 8; lower num_fewshot, or remove the task$",
    ):
        load(folder, {"task": "scores"}, max_length=longest - 2)


def test_a_prompt_leaves_room_for_what_is_to_be_written(folder):
    assert load(folder, {"task": "writes"}, max_length=40 + 7).tasks
    with pytest.raises(LeadError, match=r"document 0 of writes has a prompt of 7 .* room for 6"):
        load(folder, {"task": "writes"}, max_length=40 + 6)


def test_the_context_is_read_from_the_models_configuration(tiny_model_folder, tmp_path):
    assert context_length(tiny_model_folder, make_tokenizer(), trust_remote_code=False) == 512
    with pytest.raises(LeadError, match=r"^model\.name: the configuration in .* does not load \("):
        context_length(tmp_path, make_tokenizer(), trust_remote_code=False)

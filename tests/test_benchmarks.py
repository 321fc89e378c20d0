"""Which benchmarks are checked for which tasks, and what text their rows give."""

import json
import re

import pytest

from lead_core.benchmarks import (
    _KNOWN,
    Benchmark,
    benchmarks_to_check,
    read_texts,
    unchecked_tasks,
)
from lead_core.errors import LeadError
from lead_core.params import BenchmarkParams


def entry(uri, name=None, fields=None):
    return BenchmarkParams(uri=uri, name=name, fields=fields)


AUTO = entry("auto")


def checked(against, tasks):
    return [(b.name, b.uri, b.automatic) for b in benchmarks_to_check(against, tasks)]


@pytest.mark.parametrize(
    ("tasks", "names"),
    [
        (["lead_heldout", "lead_heldout_choice"], []),
        (["gsm8k", "gsm8k_cot", "lead_heldout"], ["gsm8k"]),
        (["mmlu", "gsm8k_cot", "tydiqa_goldp", "humaneval"], ["mmlu", "gsm8k", "tydiqa", "humaneval"]),
        (["mmlu_professional_law", "mmlu_stem", "mmlu_flan_n_shot_generative"], ["mmlu"]),
        (["tydiqa_goldp_sw", "humaneval_64_instruct"], ["tydiqa", "humaneval"]),
    ],
)  # fmt: skip
def test_auto_names_the_data_sets_behind_the_tasks_once(tasks, names):
    assert [name for name, _, _ in checked([AUTO], tasks)] == names


def test_auto_says_which_part_of_which_data_set():
    assert checked([AUTO], ["gsm8k", "humaneval"]) == [
        ("gsm8k", "hf://openai/gsm8k?config=main&split=test", True),
        ("humaneval", "hf://openai/openai_humaneval?split=test", True),
    ]


def test_auto_takes_the_files_that_evaluation_reads():
    tasks = ["mmlu", "gsm8k", "humaneval", "tydiqa_goldp"]
    found = benchmarks_to_check([AUTO], tasks, data_dir="bench")
    assert [benchmark.uri for benchmark in found] == [
        "bench/mmlu/test.jsonl",
        "bench/gsm8k_test.jsonl",
        "bench/humaneval_test.jsonl",
        "bench/tydiqa/validation.jsonl",
    ]
    assert all(benchmark.automatic for benchmark in found)


@pytest.mark.parametrize(
    "task",
    [
        "arc_easy",
        "mmlu_pro",
        "mmlu_pro_law",
        "mmlu_prox_de",
        "mmlu_redux_generative",
        "mmlu_de_llama",
        "mmlu_anatomy_generative_spanish",
        "gsm8k_platinum_cot",
        "humaneval_plus",
        "humaneval_single_line_infilling",
    ],
)
def test_a_task_of_another_data_set_is_refused_with_both_ways_out(task):
    with pytest.raises(LeadError) as error:
        benchmarks_to_check([AUTO], ["gsm8k", task])
    assert str(error.value) == (
        f"params.yaml: evaluate.tasks: {task}: no data set is known to check the pool against; name a "
        f"copy as {{uri: FILE, name: {task}}} in data.decontaminate.against, or set data.decontaminate "
        "to null to train on an unchecked pool"
    )


def test_an_entry_named_like_a_task_or_its_benchmark_takes_the_place_of_auto():
    local = [entry("gsm.jsonl", "gsm8k"), AUTO, entry("arc/*.jsonl", "arc_easy", ("question",))]
    assert checked(local, ["gsm8k_cot", "arc_easy", "mmlu"]) == [
        ("gsm8k", "gsm.jsonl", False),
        ("arc_easy", "arc/*.jsonl", False),
        ("mmlu", "hf://cais/mmlu?config=all&split=test", True),
    ]
    assert benchmarks_to_check(local, ["arc_easy"])[1].fields == ("question",)


def test_without_auto_only_what_is_listed_is_checked_and_the_rest_is_named():
    against = [entry("gsm.jsonl", "gsm8k"), entry("other.jsonl")]
    assert checked(against, ["mmlu"]) == [
        ("gsm8k", "gsm.jsonl", False),
        (None, "other.jsonl", False),
    ]
    tasks = ["gsm8k_cot", "lead_heldout", "mmlu", "arc_easy"]
    assert unchecked_tasks(against, tasks) == ["mmlu", "arc_easy"]
    assert unchecked_tasks([AUTO], tasks) == []
    assert unchecked_tasks([], tasks) == ["gsm8k_cot", "mmlu", "arc_easy"]


def texts(folder, rows, *, fields=None, name=None):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "quiz.jsonl").write_text("\n".join(lines) + "\n")
    benchmark = Benchmark("quiz.jsonl", name, fields)
    return [
        (text.benchmark, text.row, text.text)
        for text in read_texts(benchmark, min_words=8, workspace=folder)
    ]


LONG = "Which of these rivers has its source in the highest mountains?"


def test_the_question_of_each_row_is_taken_whatever_its_key(tmp_path):
    rows = [
        {"question": LONG, "answer": "none"},
        {"task_id": "HumanEval/0", "prompt": "def f():\n", "test": "assert f()"},
        {"problem": "Add.", "solution": "3"},
        {"question": " ", "instruction": "Say hello."},
    ]
    assert texts(tmp_path, rows) == [
        ("quiz", 0, LONG),
        ("quiz", 1, "def f():\n"),
        ("quiz", 2, "Add."),
        ("quiz", 3, "Say hello."),
    ]
    assert {name for name, _, _ in texts(tmp_path, rows, name="arc_easy")} == {"arc_easy"}


@pytest.mark.parametrize(
    "row",
    [
        {"choices": ["red", "blue"]},
        {"choices": {"text": ["red", "blue"], "label": ["A", "B"]}},
        {"options": {"A": "red", "B": "blue"}},
    ],
)
def test_a_short_question_comes_alone_with_its_choices_and_with_letters(tmp_path, row):
    assert texts(tmp_path, [{"question": "Which colour?", **row}]) == [
        ("quiz", 0, "Which colour?"),
        ("quiz", 0, "Which colour?\nred\nblue"),
        ("quiz", 0, "Which colour?\nA. red\nB. blue"),
    ]
    assert texts(tmp_path, [{"question": LONG, **row}]) == [("quiz", 0, LONG)]


def test_named_fields_are_the_text(tmp_path):
    row = {"question": LONG, "context": "A map.", "answers": ["1", "2"]}
    assert texts(tmp_path, [row], fields=("context", "answers")) == [("quiz", 0, "A map.\n1\n2")]


@pytest.mark.parametrize(
    ("row", "fields", "message"),
    [
        (
            {"premise": "x", "label": 1},
            None,
            "quiz.jsonl:2: no question (question, problem, instruction, prompt, query, input, text); "
            "found keys premise, label; name the keys of the text in data.decontaminate.against, as in "
            "{uri: FILE, fields: [KEY]}",
        ),
        (
            {"question": "x"},
            ("question", "context"),
            "quiz.jsonl:2: no text in context (data.decontaminate.against, fields); found keys "
            "question",
        ),
        (["x"], None, "quiz.jsonl:2: a row of a benchmark must be an object"),
        (
            '{"question": ',
            None,
            "quiz.jsonl:2: not JSON: Expecting value (column 13); a benchmark must be read to its last "
            "row: repair the file or fetch it again",
        ),
    ],
)
def test_a_row_without_a_text_is_an_error_of_one_line(tmp_path, row, fields, message):
    good = {"question": "What?", "context": "Here."}
    with pytest.raises(LeadError, match=f"^{re.escape(message)}$"):
        texts(tmp_path, [good, row], fields=fields)


@pytest.mark.slow
def test_the_stock_tasks_claimed_for_a_data_set_are_those_that_read_it():
    """lm-eval's own definitions, all of them: its index takes 16 s."""
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    claimed = {known.name: set() for known in _KNOWN}
    reading = {known.uri.removeprefix("hf://").partition("?")[0]: set() for known in _KNOWN}
    for name, item in TaskManager().task_index.items():
        if item.kind.name != "TASK":
            continue
        path = load_yaml(item.yaml_path, resolve_func=False).get("dataset_path")
        if path in reading:
            reading[path].add(name)
        for known in _KNOWN:
            if known.tasks.fullmatch(name):
                claimed[known.name].add(name)
    for known, (path, tasks) in zip(_KNOWN, reading.items(), strict=True):
        assert claimed[known.name] == {task for task in tasks if task.startswith(known.name)}, path
        assert claimed[known.name]

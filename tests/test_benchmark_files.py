"""Benchmarks as files: what is read, and one line for each way in which a file can be wrong."""

import json

import pytest
from toy_benchmarks import write_benchmarks

from lead_core.benchmark_files import BENCHMARKS, files_in, load_rows
from lead_core.errors import LeadError

GSM8K = {"benchmark": "openai/gsm8k", "splits": ["train", "test"], "subset": "main"}


def test_every_benchmark_is_read_as_its_splits_with_its_columns(tmp_path):
    write_benchmarks(tmp_path)
    for name, files in BENCHMARKS.items():
        subset = "anatomy" if name == "cais/mmlu" else None
        found = load_rows(
            benchmark=name, folder=str(tmp_path), splits=list(files.splits), subset=subset
        )
        assert list(found) == list(files.splits)
        for rows in found.values():
            assert list(rows.features) == list(files.columns)
    assert {row["subject"] for row in load_mmlu(tmp_path, "anatomy")} == {"anatomy"}


def load_mmlu(folder, subset):
    return load_rows(benchmark="cais/mmlu", folder=str(folder), splits=["test"], subset=subset)[
        "test"
    ]


def test_only_the_splits_asked_for_are_read(tmp_path):
    write_benchmarks(tmp_path)
    (tmp_path / "gsm8k_train.jsonl").unlink()
    assert list(load_rows(folder=str(tmp_path), **{**GSM8K, "splits": ["test"]})) == ["test"]
    with pytest.raises(
        LeadError,
        match=r"^evaluate\.data_dir: no file .*gsm8k_train\.jsonl for openai/gsm8k; it must hold one "
        r"JSON mapping a line, with question, answer \(docs/evaluation\.md\), or set ",
    ):
        load_rows(folder=str(tmp_path), **GSM8K)


def test_an_edited_file_is_read_again(tmp_path):
    write_benchmarks(tmp_path)
    before = load_rows(folder=str(tmp_path), **GSM8K)["test"]
    path = tmp_path / "gsm8k_test.jsonl"
    path.write_text(path.read_text() + json.dumps({"question": "New?", "answer": "#### 1"}) + "\n")
    assert len(load_rows(folder=str(tmp_path), **GSM8K)["test"]) == len(before) + 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"question": "cut of', r"line 2: not valid JSON \(Unterminated string"),
        ("[1, 2]", "line 2: expected a mapping with subject, question, choices, answer, got list"),
        (
            '{"subject": "anatomy", "question": "?", "target": 1, "choices": []}',
            "line 2: no column answer; expected subject, question, choices, answer, "
            "got subject, question, target, choices",
        ),
        ("{}", "line 2: no column subject, question, choices, answer; .* got nothing"),
        (
            '{"subject": "anatomy", "question": "?", "choices": ["a", "b"], "answer": 1}',
            r"line 2: choices must be a list of four texts, got \[\"a\", \"b\"\]",
        ),
        (
            '{"subject": "anatomy", "question": "?", "choices": ["a", "b", "c", "d"], "answer": "B"}',
            'line 2: answer must be 0, 1, 2 or 3, got "B"',
        ),
        (
            '{"subject": "anatomy", "question": null, "choices": ["a", "b", "c", "d"], "answer": 1}',
            "line 2: question must be text, got null",
        ),
    ],
)
def test_a_row_of_another_form_is_named_by_file_and_line(tmp_path, line, problem):
    write_benchmarks(tmp_path)
    path = tmp_path / "mmlu/test.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, line, *rest]) + "\n")
    with pytest.raises(LeadError, match=rf"^evaluate\.data_dir: .*mmlu/test\.jsonl, {problem}"):
        load_mmlu(tmp_path, "anatomy")


def test_answers_of_tydiqa_must_be_lists_of_texts(tmp_path):
    write_benchmarks(tmp_path)
    path = tmp_path / "tydiqa/train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["answers"] = ["an answer"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(LeadError, match=r'answers must be a mapping with "text", a list of texts'):
        load_rows(
            benchmark="google-research-datasets/tydiqa",
            folder=str(tmp_path),
            splits=["train"],
            subset="secondary_task",
        )


def test_a_file_without_rows_or_without_those_of_a_subject_is_one_line(tmp_path):
    write_benchmarks(tmp_path)
    with pytest.raises(LeadError, match=r"test\.jsonl has no row with subject 'alchemy'$"):
        load_mmlu(tmp_path, "alchemy")
    (tmp_path / "mmlu/test.jsonl").write_text("\n\n")
    with pytest.raises(LeadError, match=r"test\.jsonl is empty; expected rows of cais/mmlu$"):
        load_mmlu(tmp_path, "anatomy")


def test_bytes_that_are_no_text_are_one_line(tmp_path):
    write_benchmarks(tmp_path)
    (tmp_path / "gsm8k_test.jsonl").write_bytes(b'{"question": "\xff"}')
    with pytest.raises(LeadError, match=r"gsm8k_test\.jsonl cannot be read \('utf-8' codec"):
        load_rows(folder=str(tmp_path), **GSM8K)


def test_the_files_of_a_folder_are_those_of_the_layout(tmp_path):
    write_benchmarks(tmp_path)
    (tmp_path / "other.jsonl").write_text("{}\n")
    assert files_in(tmp_path) == [
        *("gsm8k_test.jsonl", "gsm8k_train.jsonl", "humaneval_test.jsonl"),
        *("mmlu/dev.jsonl", "mmlu/test.jsonl", "tydiqa/train.jsonl", "tydiqa/validation.jsonl"),
    ]
    with pytest.raises(LeadError, match=r"^evaluate\.data_dir: no folder .*gone; put the bench"):
        files_in(tmp_path / "gone")

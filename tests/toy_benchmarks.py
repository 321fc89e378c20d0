"""Rows in the benchmarks' own schemas, made up, as files in the layout of docs/evaluation.md."""

from __future__ import annotations

import json
from pathlib import Path

SUBJECTS = ("abstract_algebra", "anatomy")
LANGUAGES = {
    "ar": "arabic",
    "bn": "bengali",
    "en": "english",
    "fi": "finnish",
    "id": "indonesian",
    "ko": "korean",
    "ru": "russian",
    "sw": "swahili",
    "te": "telugu",
}


def write_benchmarks(folder: Path, *, subjects: tuple[str, ...] = SUBJECTS) -> None:
    """Write every file of the layout below `folder`."""
    for name, rows in benchmark_rows(subjects).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def benchmark_rows(subjects: tuple[str, ...] = SUBJECTS) -> dict[str, list[dict]]:
    """Return the rows of every file by its name below the folder."""
    return {
        "mmlu/dev.jsonl": [mmlu_row(subject, "dev", i) for subject in subjects for i in range(5)],
        "mmlu/test.jsonl": [mmlu_row(subject, "test", i) for i in range(4) for subject in subjects],
        "gsm8k_train.jsonl": [gsm8k_row(i) for i in range(12)],
        "gsm8k_test.jsonl": [gsm8k_row(i) for i in range(20, 24)],
        "humaneval_test.jsonl": [humaneval_row(i) for i in range(3)],
        "tydiqa/train.jsonl": [
            tydiqa_row(name, i) for i in range(4) for name in LANGUAGES.values()
        ],
        "tydiqa/validation.jsonl": [
            tydiqa_row(name, i) for name in LANGUAGES.values() for i in range(4, 6)
        ],
    }


def mmlu_row(subject: str, split: str, i: int) -> dict:
    return {
        "subject": subject,
        "question": f" What is {i} of {split} in {subject}?\n",
        "choices": [f"the {word} {i}" for word in ("first", "second", "third", "fourth")],
        "answer": (i + len(subject)) % 4,
    }


def gsm8k_row(i: int) -> dict:
    return {
        "question": f"Ann has {i} pens and buys {i} more. How many are there?",
        "answer": f"She has {i}+{i}=<<{i}+{i}={2 * i}>>{2 * i} pens.\n#### {2 * i}",
    }


def humaneval_row(i: int) -> dict:
    return {
        "task_id": f"HumanEval/{i}",
        "prompt": f'def add_{i}(x):\n    """Add {i} to x."""\n',
        "entry_point": f"add_{i}",
        "canonical_solution": f"    return x + {i}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {1 + i}\n",
    }


def tydiqa_row(language: str, i: int) -> dict:
    return {
        "id": f"{language}-{i}",
        "title": f"Title {i}",
        "context": f"{language.title()} число {i}: the capital is Town-{i}.",
        "question": f"{language} {i}?",
        "answers": {"text": [f"Town-{i}", f"the Town-{i}"], "answer_start": [10, 6]},
    }

"""Per-document outputs of both models, side by side."""

import gzip
import json

import pytest
from toy_evaluation import HELDOUT, load, run, write_pool, write_tasks

from lead_core.evaluation_index import TASKS
from lead_core.evaluation_samples import sample_rows


def read(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


@pytest.fixture
def evaluated(tmp_path):
    write_pool(tmp_path / "pool")
    folders = (TASKS, write_tasks(tmp_path))
    names = [HELDOUT, "sums_choice", "sums_write"]
    results = run(tmp_path / "pool", tmp_path / "eval", names=names, folders=folders)
    return results, tmp_path / "eval/samples", load(names, tmp_path / "pool", folders=folders)


def test_every_document_has_its_prompt_target_answers_and_metrics(evaluated):
    import hashlib

    results, folder, tasks = evaluated
    rows = read(folder / "sums_choice.jsonl.gz")
    assert [row["document"] for row in rows] == list(range(6))
    prompts = [request.args[0] for request in tasks.tasks["sums_choice"].instances[::2]]
    hashes = [hashlib.sha256(prompt.encode()).hexdigest() for prompt in prompts]
    assert [row["prompt_sha256"] for row in rows] == hashes
    assert [row["target"] for row in rows] == [1] * 6
    for side in ("base", "tuned"):
        outcomes = [row[side]["metrics"]["acc"] for row in rows]
        assert sum(outcomes) / 6 == results["tasks"]["sums_choice"][side]["acc"]
        for row in rows:
            [(first, _)], [(second, _)] = row[side]["answers"]
            assert row[side]["metrics"]["acc"] == float(second > first)
            assert row[side]["filtered"] == {}


def test_losses_and_texts_are_kept_too(evaluated):
    results, folder, tasks = evaluated
    rows = read(folder / f"{HELDOUT}.jsonl.gz")
    losses = [row["tuned"]["metrics"]["loss"] for row in rows]
    assert sum(losses) / len(rows) == pytest.approx(results["tasks"][HELDOUT]["tuned"]["loss"])
    documents = tasks.tasks[HELDOUT].eval_docs
    assert [row["tuned"]["metrics"]["loss_macro"] for row in rows] == [
        [document["source"], loss] for document, loss in zip(documents, losses, strict=True)
    ]
    written = read(folder / "sums_write.jsonl.gz")
    assert all(isinstance(row["base"]["answers"][0][0], str) for row in written)


def sample(filter_name, **others):
    return {
        "doc_id": 0,
        "prompt_hash": "p",
        "target": "4",
        "filter": filter_name,
        "resps": [["so it is 4"]],
        "filtered_resps": ["4"],
        "metrics": ["exact_match"],
        "exact_match": 1.0,
        **others,
    }


def test_what_each_filter_made_of_an_answer_stands_beside_it():
    before = [sample("strict", filtered_resps=["[invalid]"], exact_match=0.0), sample("flexible")]
    [row] = sample_rows(before, [sample("strict"), sample("flexible")])
    assert row["base"] == {
        "answers": [["so it is 4"]],
        "filtered": {"strict": ["[invalid]"], "flexible": ["4"]},
        "metrics": {"exact_match,strict": 0.0, "exact_match,flexible": 1.0},
    }
    assert row["tuned"]["metrics"] == {"exact_match,strict": 1.0, "exact_match,flexible": 1.0}


def test_numbers_that_are_not_finite_become_null():
    import numpy as np

    odd = sample("none", resps=[[(float("nan"), np.bool_(False))]], exact_match=np.float64("inf"))
    [row] = sample_rows([odd], [odd])
    assert row["base"] == {
        "answers": [[[None, False]]],
        "filtered": {},
        "metrics": {"exact_match": None},
    }
    json.dumps(row, allow_nan=False)

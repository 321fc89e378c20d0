"""The Python side of lead_heldout_choice.yaml: each held-out record with other records' responses."""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from lead_core.errors import LeadError

DRAWN_FROM = 3  # times as many responses of the closest length as are drawn

Record = Mapping[str, Any]


def load_choices(*, documents: str, choices: int, **_metadata: Any) -> dict[str, datasets.Dataset]:
    """Return the held-out split as questions with `choices` responses, from records in JSON lines.

    documents: see `heldout.load_documents`. Records of a source with fewer different responses than
    that are left out, and counted on stderr. A question: ``id``, ``source``, ``prompt``, ``choices``
    and ``answer`` (index of the record's own), ``prompt_ids`` and ``choice_ids`` (the same as tokens).
    """
    lines = Path(documents).read_text(encoding="utf-8").split("\n")
    records = [json.loads(line) for line in lines if line]
    by_source: dict[str, dict[tuple[int, ...], Record]] = defaultdict(dict)
    for record in records:
        by_source[record["source"]].setdefault(_response(record), record)
    questions = [
        make_question(record, list(by_source[record["source"]].values()), choices)
        for record in records
        if len(by_source[record["source"]]) >= choices
    ]
    few = sorted(source for source, different in by_source.items() if len(different) < choices)
    if not questions:
        raise LeadError(
            f"lead_heldout_choice: no source has {choices} held-out records with different responses; "
            "raise data.heldout_per_source in params.yaml, or take it out of evaluate.tasks"
        )
    if few:
        print(
            f"lead_heldout_choice: {len(records) - len(questions)} of {len(records)} records left out, "
            f"of sources with fewer than {choices} different held-out responses: {', '.join(few)}",
            file=sys.stderr,
        )
    return {"heldout": datasets.Dataset.from_list(questions)}


def make_question(record: Record, others: Sequence[Record], choices: int) -> dict[str, Any]:
    """Return `record` as a question whose wrong responses are drawn from `others`, all different.

    They are drawn from those closest in tokens, and the right one's place too, by the record's id: so
    the question is the same whatever else is evaluated.
    """
    own = _response(record)
    wrong = [other for other in others if _response(other) != own]
    wrong.sort(key=lambda other: (abs(len(_response(other)) - len(own)), other["id"]))
    rng = random.Random(record["id"])  # noqa: S311 - not a secret
    drawn: list[Record] = rng.sample(wrong[: DRAWN_FROM * (choices - 1)], choices - 1)
    answer = rng.randrange(choices)
    offered = [*drawn[:answer], record, *drawn[answer:]]
    return {
        "id": record["id"],
        "source": record["source"],
        "prompt": record["prompt"],
        "choices": [other["response"] for other in offered],
        "answer": answer,
        "prompt_ids": record["input_ids"][: record["response_start"]],
        "choice_ids": [list(_response(other)) for other in offered],
    }


def _response(record: Record) -> tuple[int, ...]:
    return tuple(record["input_ids"][record["response_start"] :])

"""The Python side of lead_heldout.yaml: its documents, one record's outcome, and the macro average."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets


def load_documents(*, documents: str, **_metadata: Any) -> dict[str, datasets.Dataset]:
    """Return the held-out split from a JSON-lines file, one record per line.

    A record: ``id``, ``source``, ``prompt`` and ``response`` (text as the chat template frames it),
    ``input_ids`` and ``response_start`` (the same as tokens), ``response_bytes`` (UTF-8 bytes of the
    response's own text).
    """
    lines = Path(documents).read_text(encoding="utf-8").split("\n")
    return {"heldout": datasets.Dataset.from_list([json.loads(line) for line in lines if line])}


def score_record(
    document: Mapping[str, Any], results: Sequence[tuple[float, bool]]
) -> dict[str, Any]:
    """Return one record's metrics from the log-likelihood of its response, end-of-turn included."""
    log_likelihood, _ = results[0]
    tokens = len(document["input_ids"]) - document["response_start"]
    loss = -log_likelihood / tokens
    return {
        "loss": loss,
        "loss_macro": (document["source"], loss),
        "bits_per_byte": (log_likelihood, document["response_bytes"]),
    }


def mean_over_sources(items: Iterable[tuple[str, float]]) -> float:
    """Return the mean of the sources' mean losses, so that each source counts the same."""
    by_source = defaultdict(list)
    for source, loss in items:
        by_source[source].append(loss)
    means = [sum(losses) / len(losses) for losses in by_source.values()]
    return sum(means) / len(means)

"""What both models answered to every document of a task, side by side, as JSON lines."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lead_core.evaluation_results import metric_key
from lead_core.storage import write_bytes

Samples = Sequence[Mapping[str, Any]]  # lm-eval's: one per filter and document


def write_samples(path: Path, base: Samples, tuned: Samples) -> None:
    """Write `sample_rows` to `path`, compressed; equal rows give equal bytes."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in sample_rows(base, tuned))
    text = "".join(lines).encode("utf-8", "surrogatepass")
    write_bytes(path, gzip.compress(text, mtime=0))


def sample_rows(base: Samples, tuned: Samples) -> Iterator[dict[str, Any]]:
    """Yield one row per document.

    ``document`` (its number in the task's split), ``prompt_sha256``, ``target``, and for base and tuned
    each: ``answers`` (per request, per repeat: text, or log-likelihood and greediness), ``filtered``
    (filter -> what the metrics saw, where a filter changed the answer) and ``metrics``.
    """
    answered = _by_document(tuned)
    for document, samples in _by_document(base).items():
        yield {
            "document": document,
            "prompt_sha256": samples[0]["prompt_hash"],
            "target": _plain(samples[0]["target"]),
            "base": _side(samples),
            "tuned": _side(answered[document]),
        }


def _by_document(samples: Samples) -> dict[int, list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        found.setdefault(sample["doc_id"], []).append(sample)
    return found


def _side(samples: Samples) -> dict[str, Any]:
    return {
        "answers": _plain(samples[0]["resps"]),
        "filtered": {
            sample["filter"]: _plain(sample["filtered_resps"])
            for sample in samples
            if sample["filter"] != "none"
        },
        "metrics": {
            metric_key(metric, sample["filter"]): _plain(sample[metric])
            for sample in samples
            for metric in sample["metrics"]
        },
    }


def _plain(value: Any) -> Any:
    """Return `value` as JSON takes it; a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)

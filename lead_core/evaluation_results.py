"""From what lm-eval reports of base and tuned model to one table, and their paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from lm_eval.api.group import Group

from lead_core.evaluation_model import HELDOUT
from lead_core.statistics import exact_mcnemar, paired_difference

Outcomes = dict[str, dict[int, float]]  # metric -> document -> value


@dataclass
class Row:
    """What one model reached: lm-eval's figures per task or group, and outcomes per task.

    figures: ``metric,filter`` -> value, as lm-eval reports them.
    """

    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, Outcomes] = field(default_factory=dict)

    def add(self, task: str, reported: Any) -> None:
        """Take over what `lm_eval.evaluator.evaluate` returned for one task."""
        self.figures[task] = reported["results"][task]
        self.outcomes[task] = outcomes_of(reported["samples"][task])

    def add_groups(self, groups: Mapping[str, Group]) -> None:
        """Add the groups' figures, made from those of their tasks."""
        for name, group in groups.items():
            self.figures[name] = dict(group.aggregate(self.figures))


def side_by_side(name: str, base: Row, tuned: Row) -> dict[str, Any]:
    """Return what lm-eval reports of one task or group, base beside tuned."""
    return {
        "base": metrics_of(base.figures[name], errors=False),
        "base_stderr": metrics_of(base.figures[name], errors=True),
        "tuned": metrics_of(tuned.figures[name], errors=False),
        "tuned_stderr": metrics_of(tuned.figures[name], errors=True),
    }


def metrics_of(reported: Mapping[str, Any], *, errors: bool) -> dict[str, float | None]:
    """Return lm-eval's metrics, or their standard errors, by name.

    A key ``metric,filter`` keeps its filter unless that is ``none``. Standard errors that lm-eval does
    not know are left out; a metric that is no finite number is None.
    """
    metrics: dict[str, float | None] = {}
    for key, value in reported.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr") is not errors or not _is_number(value):
            continue
        name = metric_key(metric.removesuffix("_stderr"), filter_name)
        metrics[name] = float(value) if math.isfinite(value) else None
    return metrics


def metric_key(metric: str, filter_name: str) -> str:
    """Return the name of a metric in results: with its filter, unless that is ``none``."""
    return metric if filter_name == "none" else f"{metric},{filter_name}"


def outcomes_of(samples: Sequence[Mapping[str, Any]]) -> Outcomes:
    """Return the numbers among the documents' own outcomes."""
    outcomes: Outcomes = {}
    for sample in samples:
        for metric in sample["metrics"]:
            if _is_number(sample[metric]):
                key = metric_key(metric, sample["filter"])
                outcomes.setdefault(key, {})[sample["doc_id"]] = float(sample[metric])
    return outcomes


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number)


def pair_rows(
    base: Row, tuned: Row, leaves: Mapping[str, Sequence[str]], heldout: pd.DataFrame | None
) -> dict[str, Any]:
    """Return paired differences, ``task/metric`` -> figures; per source for held-out records.

    leaves: the tasks behind each task or group. A metric has a difference where its value is the mean
    of its documents' own: not a corpus' F1, say. ``mcnemar_p`` is None where outcomes are not 0 or 1.
    """
    pairs = {}
    for name in sorted(base.figures):
        for metric, reported in metrics_of(base.figures[name], errors=False).items():
            values = list(_values(metric, leaves[name], base, tuned))
            if not values or reported is None:
                continue
            pair = _pair(*zip(*values, strict=True))
            if math.isclose(pair["base"], reported, rel_tol=1e-9, abs_tol=1e-12):
                pairs[f"{name}/{metric}"] = pair
    if heldout is not None:
        for source, rows in heldout.groupby("source"):
            pairs[f"{HELDOUT}/loss/{source}"] = _pair(rows["base_loss"], rows["tuned_loss"])
    return pairs


def _values(
    metric: str, leaves: Sequence[str], base: Row, tuned: Row
) -> Iterator[tuple[float, float]]:
    for leaf in leaves:
        after = tuned.outcomes[leaf].get(metric, {})
        for document, value in base.outcomes[leaf].get(metric, {}).items():
            yield value, after[document]


def _pair(base: Sequence[float], tuned: Sequence[float]) -> dict[str, Any]:
    binary = set(base) | set(tuned) <= {0.0, 1.0}
    p = exact_mcnemar(base, tuned) if binary else None
    return {**asdict(paired_difference(base, tuned)), "mcnemar_p": p}

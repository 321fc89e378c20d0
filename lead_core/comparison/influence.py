"""How a difference between two selectors is spread over the held-out records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lead_core.statistics import PairedDifference, paired_difference


@dataclass(frozen=True)
class SpreadOverRecords:
    """What means over held-out records hide: one whose loss is far above the rest can decide them.

    lower: share of the held-out records whose loss, mean over seeds, is lower than the baseline's.
    without_one: the paired difference of macro losses without the record that moves it most, found by
    looking; None where a source has a single record.
    """

    lower: float
    without_one: PairedDifference | None


def spread_over_records(
    found: Sequence[Mapping[str, Any]], against: Sequence[Mapping[str, Any]]
) -> SpreadOverRecords | None:
    """Return how the cells `found` differ from `against`, the same seeds in the same order, by record.

    None when a cell has no losses by record (it is older than they are), or not of the same records.
    """
    losses = [_losses(cell) for cell in (*found, *against)]
    if not losses or any(one is None for one in losses):
        return None
    table = pd.DataFrame(losses)  # a row per cell, a column per source and record
    if table.empty or table.isna().any(axis=None):
        return None
    change = table.iloc[: len(found)].mean() - table.iloc[len(found) :].mean()
    return SpreadOverRecords(
        lower=float((change < 0).mean()), without_one=_without_one(table, len(found))
    )


def _without_one(table: pd.DataFrame, found: int) -> PairedDifference | None:
    """Return the difference of the first `found` rows to the others; see `SpreadOverRecords`."""
    sizes = table.columns.get_level_values(0).value_counts()
    if sizes.min() < 2:
        return None
    means = table.T.groupby(level=0).mean().T
    sources = table.columns.get_level_values(0)
    n = sizes[sources].to_numpy()
    # What leaving a record out adds to its source's mean, and so to the macro average.
    moved = (means[sources].to_numpy() - table.to_numpy()) / (n - 1) / len(sizes)
    left = means.mean(axis=1).to_numpy()[:, None] + moved
    shift = np.abs((moved[:found] - moved[found:]).mean(axis=0))
    most = int(shift.argmax())
    return paired_difference(left[found:, most], left[:found, most])


def _losses(cell: Mapping[str, Any]) -> pd.Series[float] | None:
    by_record = cell["heldout"].get("by_record")
    if by_record is None:
        return None
    return pd.Series(
        {(source, id): loss for source, rows in by_record.items() for id, loss in rows.items()}
    )

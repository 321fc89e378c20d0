"""How much the selectors of a comparison agree on what to train on."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence

import pandas as pd

from lead_core.comparison.table import FULL, Record


def overlap_of_picks(cells: Sequence[Record]) -> pd.DataFrame:
    """Return which share of the row's distinct samples the column picked too, selector by selector.

    Means over the seeds that both have. On the diagonal two seeds of one selector are held against
    each other, mean over all pairs (NaN: one seed only). `full`, which picks everything, is left out.
    """
    picks: dict[str, dict[int, frozenset[str]]] = {}
    for cell in cells:
        if cell["selector"] != FULL:
            picks.setdefault(cell["selector"], {})[cell["seed"]] = frozenset(cell["selected"])
    rows = [
        [_agreement(mine, theirs, itself=mine is theirs) for theirs in picks.values()]
        for mine in picks.values()
    ]
    return pd.DataFrame(rows, index=list(picks), columns=list(picks), dtype=float)


def _agreement(
    mine: Mapping[int, frozenset[str]], theirs: Mapping[int, frozenset[str]], *, itself: bool
) -> float:
    if itself:
        pairs = list(itertools.permutations(mine.values(), 2))
    else:
        pairs = [(mine[seed], theirs[seed]) for seed in sorted(set(mine) & set(theirs))]
    if not pairs:
        return float("nan")
    return statistics.fmean(len(first & second) / len(first) for first, second in pairs)

"""How a round is divided among task clusters."""

from __future__ import annotations

import numpy as np

from lead_core.selectors.contract import FloatArray, IntArray, SelectionSettings

_DECIMALS = 9  # of the edges between shares: sums of whole shares are whole numbers again


def round_size(settings: SelectionSettings, eligible: float) -> int:
    """Return how many samples a round takes of so many eligible ones."""
    # Not one more for a product that rounding put above a whole number.
    share = int(np.ceil(settings.round_fraction * eligible - 1e-9))
    return max(settings.min_round, share)


def expected_shares(weights: FloatArray, counts: IntArray, n: int) -> FloatArray:
    """Divide `n` among groups in proportion to `weights` [J], none above its `counts` [J].

    What a full group cannot take goes to the others, in proportion again. Float64 [J], its sum `n`;
    raises ValueError when `n` is above the sum of `counts`.
    """
    if n > counts.sum():
        raise ValueError(f"cannot divide {n} among groups that hold {int(counts.sum())}")
    shares = np.zeros(len(counts))
    open_groups, left = counts > 0, float(n)
    while left > 0:
        wanted = np.where(open_groups, weights, 0.0)
        wanted *= left / wanted.sum()
        full = open_groups & (wanted >= counts)
        if not full.any():
            return shares + wanted
        shares[full] = counts[full]
        left -= float(counts[full].sum())
        open_groups &= ~full
    return shares


def draw_shares(expected: FloatArray, rng: np.random.Generator) -> IntArray:
    """Return whole numbers, int64 [J], of the same sum, each the one below or above `expected`.

    Systematic sampling: the groups lie end to end on a line, cut at regular places from a random
    start. Each expects its exact share, though a batch is often smaller than the number of groups: by
    largest remainder the same few large ones would take every batch.
    """
    edges = np.concatenate([[0.0], np.cumsum(expected)])
    return cut_line(np.round(edges, _DECIMALS), rng)


def cut_line(edges: FloatArray, rng: np.random.Generator) -> IntArray:
    """Return how many cuts, one per unit from a random start, fall between `edges` [J + 1]."""
    return np.diff(np.floor(edges + rng.random())).astype(np.int64)

"""How close utilities are to true losses: several estimates followed along one training trajectory.

LEAD.md, Fidelity. Every estimate sees the same rounds through their reports, so that they differ by
their rule alone. The naive ones are ends of the same update: with ``b = 1`` it never leaves ``u_0``
(stale), with ``b = 0`` and no loss change it is the raw loss last seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from lead_core.utility import (
    FloatArray,
    LossChange,
    drift_unvisited,
    published_change,
    sample_loss_changes,
    update_utility,
)

if TYPE_CHECKING:
    from lead_core.rounds import RoundReport

STALE, LAST_SEEN = "stale", "last_seen"
GROUPS = ("trained", "fresh", "unvisited")


@dataclass(frozen=True)
class Estimator:
    """One rule by which a sample's current loss is estimated; see `params.UtilityParams`."""

    loss_change: LossChange
    whole_round: bool
    smoothing: float
    drift: bool

    @property
    def name(self) -> str:
        """Return the name used in tables: `stale`, `last_seen`, or what the rule is made of."""
        if self.smoothing == 1:
            return STALE
        if self == Estimator("none", False, 0.0, False):
            return LAST_SEEN
        charged = (
            "" if self.loss_change == "none" else "/whole" if self.whole_round else "/remaining"
        )
        drift = " + drift" if self.drift else ""
        return f"{self.loss_change}{charged}, b={self.smoothing:g}{drift}"


def estimators_for(smoothing: float) -> tuple[Estimator, ...]:
    """Return the two naive estimates and the variants of IDU, at `smoothing` and, for some, at 0."""
    variants = [
        Estimator("none", False, 1.0, False),
        Estimator("none", False, 0.0, False),
        Estimator("none", False, smoothing, False),
        Estimator("paper", True, smoothing, False),
        Estimator("paper", False, smoothing, False),
        Estimator("paper", False, smoothing, True),
        Estimator("displacement", True, smoothing, False),
        Estimator("displacement", False, smoothing, False),
        Estimator("displacement", False, smoothing, True),
        Estimator("displacement", False, 0.0, False),
        Estimator("displacement", False, 0.0, True),
    ]
    return tuple(dict.fromkeys(variants))  # at b = 0 some are one


@dataclass(frozen=True)
class SeenRound:
    """What a round tells every estimator of its n trained samples and its S optimizer steps.

    indices int [n]: places in the pool; steps int [n]: the 0-based step of each; loss_seen float64
    [n]; predicted: the published change of the whole round; displacement, learning_rates [S].
    """

    indices: NDArray[np.int64]
    steps: NDArray[np.int64]
    loss_seen: FloatArray
    predicted: float
    displacement: FloatArray
    learning_rates: FloatArray


def read_round(
    report: RoundReport, places: Mapping[str, int], learning_rate_at: Callable[[int], float]
) -> SeenRound:
    """Return what `report` tells, of a loop with displacement charged for the rest of the round.

    places: from an id to its place in the pool. learning_rate_at: of a 0-based step of the training.
    """
    record, rows = report.round, report.samples
    first = rows[0]["step"]
    steps = np.array([row["step"] - first for row in rows])
    displacement = np.empty(record["steps"])
    displacement[steps] = [row["loss_change"] for row in rows]
    names = ("eta", "grad_sq_norm_arm", "grad_sq_norm_prev", "cos", "beta")
    return SeenRound(
        indices=np.array([places[row["id"]] for row in rows]),
        steps=steps,
        loss_seen=np.array([row["loss_seen"] for row in rows]),
        predicted=published_change(*(record[name] for name in names)),
        displacement=displacement,
        learning_rates=np.array([learning_rate_at(first - 1 + s) for s in range(record["steps"])]),
    )


@dataclass(frozen=True)
class ShadowState:
    """Every estimator's current estimates, float64 [n], and which samples were trained, bool [n]."""

    estimates: Mapping[Estimator, FloatArray]
    visited: NDArray[np.bool_]


def init_shadow(estimators: tuple[Estimator, ...], loss: FloatArray) -> ShadowState:
    """Return the state before the first round: all estimates are ``u_0`` = `loss` [n]."""
    return ShadowState(dict.fromkeys(estimators, loss), np.zeros(len(loss), dtype=bool))


def update_shadow(
    state: ShadowState, seen: SeenRound, clusters: NDArray[np.int32], drift_prior_samples: float
) -> ShadowState:
    """Return the state after a round. clusters int [n, 2]: difficulty and task of every sample."""
    visited = state.visited.copy()
    visited[seen.indices] = True
    estimates = {}
    for estimator, utility in state.estimates.items():
        before = utility[seen.indices]
        change = sample_loss_changes(
            estimator.loss_change,
            whole_round=estimator.whole_round,
            predicted=seen.predicted,
            displacement=seen.displacement,
            learning_rates=seen.learning_rates,
            steps=seen.steps,
        )
        after = update_utility(before, seen.loss_seen, change, estimator.smoothing)
        utility = utility.copy()
        utility[seen.indices] = after
        if estimator.drift:
            utility = drift_unvisited(
                utility, visited, clusters, seen.indices, before - after, drift_prior_samples
            )
        estimates[estimator] = utility
    return ShadowState(estimates, visited)


@dataclass(frozen=True)
class Figures:
    """How n estimates compare with the true losses.

    spearman: rank correlation, None where it is not defined (one sample, or all values equal).
    mae: mean absolute error; bias: mean of estimate minus truth; both in nats/token.
    """

    spearman: float | None
    mae: float
    bias: float
    n: int


def compare(estimate: FloatArray, true: FloatArray) -> Figures | None:
    """Return the figures of `estimate` [n] against `true` [n]; None without samples."""
    if not len(true):
        return None
    errors = estimate - true
    ranked = np.ptp(estimate) > 0 and np.ptp(true) > 0
    spearman = float(spearmanr(estimate, true).statistic) if ranked else None
    return Figures(spearman, float(np.abs(errors).mean()), float(errors.mean()), len(true))


def draw_probe(
    candidates: NDArray[np.int64], n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return `n` of `candidates` (all, if there are fewer), in rising order."""
    return np.sort(rng.choice(candidates, min(n, len(candidates)), replace=False))

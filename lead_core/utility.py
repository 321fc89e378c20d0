"""Instance-level dynamic uncertainty (IDU): a sample's current loss without forwarding it again.

LEAD.md B.4. The loss seen while training, plus the first-order change that the round's optimizer
steps made to it afterwards, smoothed over rounds. All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
LossChange = Literal["displacement", "paper", "none"]

DEGENERATE = 1e-12


@dataclass(frozen=True)
class GradientSummary:
    """What is kept of a round's mean gradient ``g_t``, whatever the model's size.

    sq_norm: ``||g_t||^2``, exact. sketch: float64 [m], from `gradients.sketch`, for angles only.
    """

    sq_norm: float
    sketch: FloatArray


@dataclass(frozen=True)
class GradientMemory:
    """The gradients that IDU looks back to: of the last round, and of each arm's last round."""

    previous: GradientSummary | None
    of_arm: tuple[GradientSummary | None, ...]


@dataclass(frozen=True)
class PredictedChange:
    """The published first-order loss change of one round, with every quantity it came from.

    In the first round, and for an arm never drawn before, some of these are unknown: None.
    """

    sq_norm_arm: float | None
    sq_norm_previous: float | None
    cos: float | None
    beta: float | None
    loss_change: float


def init_memory(n_arms: int) -> GradientMemory:
    """Return a memory of no gradient."""
    return GradientMemory(None, (None,) * n_arms)


def remember(memory: GradientMemory, arm: int | None, summary: GradientSummary) -> GradientMemory:
    """Return the memory after a round on `arm` (None: a selector without arms)."""
    of_arm = tuple(summary if k == arm else kept for k, kept in enumerate(memory.of_arm))
    return GradientMemory(summary, of_arm)


def cosine(a: GradientSummary, b: GradientSummary) -> float:
    """Return the cosine of the angle between two gradients, from their sketches, in [-1, 1].

    Sketch dot over sketch norms: a gradient has cosine 1 with itself exactly. A zero sketch has
    no direction; its cosine counts as 0.
    """
    norms = float(np.linalg.norm(a.sketch) * np.linalg.norm(b.sketch))
    if norms == 0.0:
        return 0.0
    return float(np.clip(np.dot(a.sketch, b.sketch) / norms, -1.0, 1.0))


def minimum_norm_weight(sq_norm_arm: float, sq_norm_previous: float, cos: float) -> float:
    """Return ``beta`` in [0, 1], the weight of the arm's gradient in the shortest combination.

    ``beta = (d_p - sqrt(d_k d_p) cos) / (d_k + d_p - 2 sqrt(d_k d_p) cos)``; 0 where the denominator
    vanishes against ``d_k + d_p`` (the two gradients are one).
    """
    cross = np.sqrt(sq_norm_arm * sq_norm_previous) * cos
    denominator = sq_norm_arm + sq_norm_previous - 2 * cross
    if denominator <= DEGENERATE * (sq_norm_arm + sq_norm_previous):
        return 0.0
    return float(np.clip((sq_norm_previous - cross) / denominator, 0.0, 1.0))


def combined_sq_norm(sq_norm_arm: float, sq_norm_previous: float, cos: float, beta: float) -> float:
    """Return ``||beta g_k + (1 - beta) g_p||^2``, the bracket of the published formula, >= 0."""
    cross = np.sqrt(sq_norm_arm * sq_norm_previous) * cos
    value = (
        beta**2 * sq_norm_arm + (1 - beta) ** 2 * sq_norm_previous + 2 * beta * (1 - beta) * cross
    )
    return max(0.0, float(value))


def predict_change(memory: GradientMemory, arm: int | None, eta: float) -> PredictedChange:
    """Return the published change ``dL_t = -eta ||beta g_k + (1 - beta) g_p||^2`` of a whole round.

    `eta` is the sum of the learning rates of the round's steps. Before the first round there is no
    gradient: 0. For an arm never drawn before, ``beta = 0``: the last round's gradient stands alone.
    """
    previous = memory.previous
    if previous is None:
        return PredictedChange(None, None, None, None, 0.0)
    of_arm = None if arm is None else memory.of_arm[arm]
    if of_arm is None:
        change = published_change(eta, None, previous.sq_norm, None, 0.0)
        return PredictedChange(None, previous.sq_norm, None, 0.0, change)
    cos = cosine(of_arm, previous)
    beta = minimum_norm_weight(of_arm.sq_norm, previous.sq_norm, cos)
    change = published_change(eta, of_arm.sq_norm, previous.sq_norm, cos, beta)
    return PredictedChange(of_arm.sq_norm, previous.sq_norm, cos, beta, change)


def published_change(
    eta: float,
    sq_norm_arm: float | None,
    sq_norm_previous: float | None,
    cos: float | None,
    beta: float | None,
) -> float:
    """Return ``dL_t`` of a whole round from the five quantities that its record holds.

    What is unknown is None, as in `PredictedChange`.
    """
    if sq_norm_previous is None:
        return 0.0
    if sq_norm_arm is None or cos is None or beta is None:
        return -eta * sq_norm_previous
    return -eta * combined_sq_norm(sq_norm_arm, sq_norm_previous, cos, beta)


def share_of_round(learning_rates: FloatArray, steps: NDArray[np.int64]) -> FloatArray:
    """Return, per sample, the share of the round's learning rate that came at or after its step.

    learning_rates [S] of the round's steps, steps [n] the 0-based step that consumed each sample. A
    sample's loss is read just before its own step, which is thus part of what is still to come.
    0 where no step made an update.
    """
    remaining = np.cumsum(learning_rates[::-1])[::-1]
    if remaining[0] == 0.0:
        return np.zeros(len(steps))
    return np.asarray(remaining[steps] / remaining[0], dtype=np.float64)


def sample_loss_changes(
    variant: LossChange,
    *,
    whole_round: bool,
    predicted: float,
    displacement: FloatArray,
    learning_rates: FloatArray,
    steps: NDArray[np.int64],
) -> FloatArray:
    """Return ``dL_t(x)`` per sample, float64 [n], in nats/token, by the chosen variant.

    predicted: the published change of the whole round. displacement [S]: the first-order change from
    just before each of the round's steps to its end. learning_rates [S]: of those steps. steps int
    [n]: the 0-based step of each sample. whole_round: charge every sample the whole round.
    """
    if variant == "none":
        return np.zeros(len(steps))
    if variant == "displacement":
        return displacement[np.zeros_like(steps) if whole_round else steps]
    if whole_round:
        return np.full(len(steps), predicted)
    return predicted * share_of_round(learning_rates, steps)


def update_utility(
    utility_before: FloatArray, loss_seen: FloatArray, loss_change: FloatArray, smoothing: float
) -> FloatArray:
    """Return ``u_t = (1 - b) (L_seen + dL_t) + b u_{t-1}``, float64 [n]; never clamped."""
    return (1 - smoothing) * (loss_seen + loss_change) + smoothing * utility_before


def cluster_drift(utility_drop: FloatArray, prior_samples: float) -> float:
    """Return the shift for a task cluster's unvisited samples, from the drops [m] of its trained ones.

    Their mean, shrunk towards 0 as if `prior_samples` more had not moved.
    """
    return float(utility_drop.sum() / (len(utility_drop) + prior_samples))


def drift_unvisited(
    utility: FloatArray,
    visited: NDArray[np.bool_],
    clusters: NDArray[np.int32],
    trained: NDArray[np.int64],
    drops: FloatArray,
    prior_samples: float,
) -> FloatArray:
    """Return `utility` [n] with never-visited samples shifted by their task cluster's `cluster_drift`.

    visited bool [n], this round included. clusters int [n, 2]: difficulty and task. trained int [m]:
    the round's samples; drops [m]: how far the utility of each fell. Ours: the part of a task cluster
    that was trained tells, at no inference, about the rest.
    """
    shifted = utility.copy()
    for cluster in np.unique(clusters[trained], axis=0):
        inside = (clusters[trained] == cluster).all(axis=1)
        rest = (clusters == cluster).all(axis=1) & ~visited
        shifted[rest] -= cluster_drift(drops[inside], prior_samples)
    return shifted

"""EXP3 over difficulty clusters (Auer, Cesa-Bianchi, Freund & Schapire 2002), in log-weights.

Weights are kept as logarithms: after many rounds the weights themselves overflow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class BanditState:
    """Log-weights ``log w_k`` of the K arms, float64 [K]."""

    log_weights: FloatArray


def init_bandit(n_arms: int) -> BanditState:
    """Return a bandit that prefers no arm: ``w_k = 1``."""
    return BanditState(np.zeros(n_arms, dtype=np.float64))


def arm_probabilities(state: BanditState, eligible: BoolArray, exploration: float) -> FloatArray:
    """Return the probability of each arm, float64 [K].

    ``p_k = (1 - gamma) w_k / sum(w) + gamma / K'`` with sum and K' over the eligible arms only;
    0 for the others. Raises ValueError when no arm is eligible.
    """
    if not eligible.any():
        raise ValueError("no eligible arm to draw")
    log_weights = np.where(eligible, state.log_weights, -np.inf)
    weights = np.exp(log_weights - log_weights.max())
    uniform = eligible / eligible.sum()
    mixed: FloatArray = (1 - exploration) * weights / weights.sum() + exploration * uniform
    return mixed


def draw_arm(probabilities: FloatArray, rng: np.random.Generator) -> int:
    """Draw an arm; one uniform number from `rng`, whatever K is."""
    cumulative = np.cumsum(probabilities)
    arm = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    # Rounding can put the draw on the upper edge: stay on the last arm that can be drawn.
    return min(arm, int(np.flatnonzero(probabilities)[-1]))


def update_bandit(
    state: BanditState,
    arm: int,
    reward: float,
    probability: float,
    n_eligible_arms: int,
    step_size: float,
) -> BanditState:
    """Return the state after `arm`, drawn with `probability`, paid `reward` in [-1, 1].

    ``log w_k += step_size / K' * R' / p_k`` for the drawn arm: the importance-weighted reward. The
    paper's step size equals its exploration rate gamma.
    """
    log_weights = state.log_weights.copy()
    log_weights[arm] += step_size / n_eligible_arms * reward / probability
    # Only differences matter; keeping the largest at 0 keeps a million rounds representable.
    return BanditState(log_weights - log_weights.max())

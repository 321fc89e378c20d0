"""What an optimizer step tells of its samples, whoever takes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepResult:
    """What one step saw, per sample: losses float64 [n] before the update, in nats/token; tokens."""

    losses: np.ndarray
    lengths: np.ndarray
    learning_rate: float

"""What an optimizer step tells of its samples, whoever takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class StepResult:
    """What one step saw, per sample: losses float64 [n] before the update, in nats/token; tokens.

    skipped: what was not finite, so that no update was made and the learning rate counts as 0.
    """

    losses: np.ndarray
    lengths: np.ndarray
    learning_rate: float
    skipped: Literal["loss", "gradient"] | None = None

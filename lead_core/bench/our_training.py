"""Our training loop on given samples, with per-sample losses and gradient bookkeeping as in LEAD."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lead_core.bench.restart import remember_start
from lead_core.chat import Encoded
from lead_core.gradients import RoundGradientMeter, plan_sketch
from lead_core.model import ResolvedRuntime, ResponseLoss
from lead_core.training import OptimizerSettings, Trainer


@dataclass(frozen=True)
class TrainingSettings:
    """What decides the cost of a step, as `params.TrainParams` and `params.UtilityParams` have it."""

    optimizer: OptimizerSettings
    effective_batch: int
    micro_batch_tokens: int
    sketch_size: int
    pad_id: int


class OurSide:
    """Training of `model` by LEAD's `Trainer`, from the same start each time.

    Every step ends a round, whose gradient is sketched and whose displacement is taken. The objective
    is the mean over tokens, which other trainers minimise; it costs what the mean over samples does.
    """

    def __init__(
        self,
        model: Any,
        samples: Sequence[Encoded],
        settings: TrainingSettings,
        *,
        runtime: ResolvedRuntime,
    ):
        self.losses: tuple[float, ...] = ()
        self._restart = remember_start(model)
        size = settings.effective_batch
        self._batches = [samples[start : start + size] for start in range(0, len(samples), size)]
        self._trainer = Trainer(
            ResponseLoss(model, runtime),
            settings.optimizer,
            loss_mean="token",
            micro_batch_tokens=settings.micro_batch_tokens,
            pad_id=settings.pad_id,
        )
        self._plan = plan_sketch(
            sum(parameter.numel() for parameter in self._trainer.parameters),
            settings.sketch_size,
            seed=0,
            device=runtime.device,
        )

    def train(self) -> float:
        """Train on all samples once; return the seconds, and keep `losses` per step, nats/token."""
        self._restart()
        losses = []
        started = time.perf_counter()
        for samples in self._batches:
            meter = RoundGradientMeter(self._trainer.parameters, 1, 1)
            step = self._trainer.step(samples, meter)
            meter.close(self._plan)
            losses.append(step.losses)
        seconds = time.perf_counter() - started
        self.losses = tuple(map(_token_mean, losses, self._batches))
        return seconds


def _token_mean(losses: np.ndarray, samples: Sequence[Encoded]) -> float:
    """Return the mean over response tokens of samples whose own means are `losses` [n]."""
    tokens = [len(sample.input_ids) - sample.response_start for sample in samples]
    return float(np.average(losses, weights=tokens))

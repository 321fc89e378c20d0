"""The training loop: ours, with all that LEAD reads off it, against Hugging Face's `Trainer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lead_core.bench.hugging_face import HuggingFaceSide
from lead_core.bench.interleaving import interleave
from lead_core.bench.our_training import OurSide, TrainingSettings
from lead_core.bench.records import BenchRecords
from lead_core.bench.result import Figure, Target
from lead_core.bench.spread import Spread, spread_of_rates, spread_of_ratios
from lead_core.model import ResolvedRuntime

SPEED_UP = Target(1.25)


@dataclass(frozen=True)
class TrainingResult:
    """The same steps by two trainers: seconds of each repetition, and the losses of the last one.

    Sides are ``ours`` and ``trainer-N``: Hugging Face's with N samples in a micro-batch. losses: per
    step, nats per response token, before the step's update.
    """

    samples: int
    tokens: int
    effective_batch: int
    precision: str
    seconds: dict[str, tuple[float, ...]]
    losses: dict[str, tuple[float, ...]]

    def tokens_per_second(self, side: str) -> Spread:
        """Return tokens trained on per second, padding not counted."""
        return spread_of_rates(self.tokens, self.seconds[side])

    def speed_up(self, side: str) -> Spread:
        """Return how many times as many tokens per second ours trains on as `side`."""
        return spread_of_ratios(self.seconds[side], self.seconds["ours"])

    def loss_difference(self, side: str) -> float:
        """Return the largest difference between a step's loss in ours and in `side`."""
        return float(np.abs(np.subtract(self.losses[side], self.losses["ours"])).max())

    def figures(self) -> Sequence[Figure]:
        """Return the speed of every side, and ours over each of the others."""
        others = [side for side in self.seconds if side != "ours"]
        lines = [
            Figure(_label(side), self.tokens_per_second(side), "tokens/s") for side in self.seconds
        ]
        for side in others:
            name = _label(side)
            lines += [
                Figure(f"ours over {name}", self.speed_up(side), "x", SPEED_UP),
                Figure(f"ours and {name}, losses", self.loss_difference(side), "nats/token"),
            ]
        return lines


def measure_training(
    make_model: Callable[[], Any],
    tokenizer: Any,
    records: BenchRecords,
    settings: TrainingSettings,
    *,
    micro_batches: Sequence[int],
    runtime: ResolvedRuntime,
    repetitions: int,
) -> TrainingResult:
    """Train on `records` by turns with ours and with Hugging Face's at each of `micro_batches`.

    `make_model` returns a model of its own for each side, with equal adapters. The records are a whole
    number of effective batches.
    """
    ours = OurSide(make_model(), records.samples, settings, runtime=runtime)
    others = {
        f"trainer-{micro_batch}": HuggingFaceSide(
            make_model(),
            tokenizer,
            records.samples,
            optimizer=settings.optimizer,
            runtime=runtime,
            effective_batch=settings.effective_batch,
            micro_batch=micro_batch,
        )
        for micro_batch in micro_batches
    }
    sides: dict[str, OurSide | HuggingFaceSide] = {"ours": ours, **others}
    try:
        for side in sides.values():
            side.train()
        seconds = interleave({name: side.train for name, side in sides.items()}, repetitions)
    finally:
        for other in others.values():
            other.close()
    return TrainingResult(
        samples=len(records.samples),
        tokens=records.tokens,
        effective_batch=settings.effective_batch,
        precision=runtime.precision,
        seconds=seconds,
        losses={name: side.losses for name, side in sides.items()},
    )


def _label(side: str) -> str:
    name, _, size = side.partition("-")
    return f"Trainer, micro-batches of {size}" if name == "trainer" else side

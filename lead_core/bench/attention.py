"""Attention in training: eager against sdpa, by tokens per second of our loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lead_core.bench.interleaving import interleave
from lead_core.bench.our_training import OurSide, TrainingSettings
from lead_core.bench.records import BenchRecords
from lead_core.bench.result import Figure
from lead_core.bench.spread import Spread, spread_of_rates, spread_of_ratios
from lead_core.model import ResolvedRuntime

IMPLEMENTATIONS = ("eager", "sdpa")


@dataclass(frozen=True)
class AttentionResult:
    """The same steps with both implementations: seconds of each repetition."""

    tokens: int
    longest: int
    seconds: dict[str, tuple[float, ...]]

    def tokens_per_second(self, implementation: str) -> Spread:
        """Return tokens trained on per second, padding not counted."""
        return spread_of_rates(self.tokens, self.seconds[implementation])

    @property
    def speed_up(self) -> Spread:
        """Return how many times as many tokens per second eager trains on."""
        return spread_of_ratios(self.seconds["sdpa"], self.seconds["eager"])

    def figures(self) -> Sequence[Figure]:
        """Return both speeds and their ratio."""
        return [
            *(
                Figure(f"{name}, training", self.tokens_per_second(name), "tokens/s")
                for name in self.seconds
            ),
            Figure(f"eager over sdpa, up to {self.longest} tokens", self.speed_up, "x"),
        ]


def measure_attention(
    make_model: Callable[[str], Any],
    records: BenchRecords,
    settings: TrainingSettings,
    *,
    runtime: ResolvedRuntime,
    repetitions: int,
) -> AttentionResult:
    """Train on `records` by turns with each; `make_model` is given the implementation's name."""
    sides = {
        name: OurSide(make_model(name), records.samples, settings, runtime=runtime)
        for name in IMPLEMENTATIONS
    }
    for side in sides.values():
        side.train()
    seconds = interleave({name: side.train for name, side in sides.items()}, repetitions)
    longest = max(len(sample.input_ids) for sample in records.samples)
    return AttentionResult(records.tokens, longest, seconds)

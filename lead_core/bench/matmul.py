"""The machine's matmul throughput at the model's shapes: the roof under which all else is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from lead_core.bench.flops import ModelShape
from lead_core.bench.interleaving import Seconds, interleave, timed
from lead_core.bench.result import Figure
from lead_core.bench.spread import Spread, spread_of_rates

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class MatmulResult:
    """Operations per second of the matrix products of one forward, by precision.

    rows: tokens in the batch. flops: operations of all products. seconds: of all products, per
    repetition, each product timed on its own.
    """

    rows: int
    threads: int
    flops: int
    seconds: dict[str, tuple[float, ...]]

    def throughput(self, precision: str) -> Spread:
        """Return operations per second."""
        return spread_of_rates(self.flops, self.seconds[precision])

    def figures(self) -> Sequence[Figure]:
        """Return the throughput in every precision."""
        return [
            Figure(
                f"{precision}, {self.rows} rows", self.throughput(precision).times(1e-9), "GFLOP/s"
            )
            for precision in self.seconds
        ]


def measure_matmul(
    shape: ModelShape, *, rows: int, calls: int, repetitions: int, device: str
) -> MatmulResult:
    """Time the products of a forward over `rows` tokens, output head included.

    Every distinct shape is timed `calls` times per repetition and counted as often as the model has it.
    """
    products = (*shape.matrices, (shape.hidden, shape.vocabulary, 1))
    totals = {name: [0.0] * repetitions for name in PRECISIONS}
    for inputs, outputs, count in products:
        for name, seconds in _time_product(
            rows, inputs, outputs, calls, repetitions, device
        ).items():
            totals[name] = [a + count * b for a, b in zip(totals[name], seconds, strict=True)]
    flops = 2 * rows * (shape.decoder_weights + shape.head_weights)
    whole = {name: tuple(values) for name, values in totals.items()}
    return MatmulResult(rows, torch.get_num_threads(), flops, whole)


def _time_product(
    rows: int, inputs: int, outputs: int, calls: int, repetitions: int, device: str
) -> Seconds:
    """Return the seconds of one product of this shape, by precision."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator)

    def product(dtype: torch.dtype) -> None:
        a, b = operands[dtype]
        for _ in range(calls):
            torch.nn.functional.linear(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    operands = {
        dtype: (left.to(device, dtype), weight.to(device, dtype)) for dtype in PRECISIONS.values()
    }
    sides = {name: timed(partial(product, dtype)) for name, dtype in PRECISIONS.items()}
    for side in sides.values():
        side()
    seconds = interleave(sides, repetitions)
    return {name: tuple(value / calls for value in values) for name, values in seconds.items()}

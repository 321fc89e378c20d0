"""The offline pass: ours against the authors' way, against the roof, and bf16 against fp32.

The authors' way is measured twice: as an algorithm, with our precision and attention, and as released,
in float32 with sdpa attention and a third forward per record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lead_core.bench.authors_scoring import AuthorsScores, score_as_the_authors
from lead_core.bench.flops import shape_of, total_forward_flops
from lead_core.bench.interleaving import interleave, timed
from lead_core.bench.records import BenchRecords
from lead_core.bench.result import Figure, Target
from lead_core.bench.spread import Spread, spread_of_rates, spread_of_ratios
from lead_core.chat import Encoded, assistant_header, encode
from lead_core.model import ResolvedRuntime, ResponseLoss
from lead_core.scoring import Scores, score_pool

SPEED_UP = Target(6.0)
SHARE_OF_ROOF = Target(65.0)


@dataclass(frozen=True)
class ScoringResult:
    """Passes over the same records by the same weights, and what their losses differ by.

    flops: useful operations of both forwards of every record. roof: matmul operations per second at
    this precision. seconds: per repetition, of ``ours``, ``authors`` (our precision and attention) and,
    where it was measured, ``released``. loss_difference: the largest between ours and theirs, in nats
    per token; released_loss_difference: between ours in fp32 and theirs as released.
    bf16_loss_difference, bf16_ifd_difference: the largest between ours in bf16 and in fp32; None where
    the pass runs in fp32 anyway.
    """

    records: int
    tokens: int
    precision: str
    flops: int
    roof: float
    seconds: dict[str, tuple[float, ...]]
    loss_difference: float
    released_loss_difference: float | None
    bf16_loss_difference: float | None
    bf16_ifd_difference: float | None

    def samples_per_second(self, side: str) -> Spread:
        """Return records scored per second by one side of `seconds`."""
        return spread_of_rates(self.records, self.seconds[side])

    def speed_up(self, side: str) -> Spread:
        """Return how many times as many records per second ours scores as `side`."""
        return spread_of_ratios(self.seconds[side], self.seconds["ours"])

    @property
    def share_of_roof(self) -> Spread:
        """Return the useful operations per second of ours as a percentage of the roof."""
        return spread_of_rates(self.flops, self.seconds["ours"]).times(100 / self.roof)

    def figures(self) -> Sequence[Figure]:
        """Return speeds, their ratio, the share of the roof, and how far losses differ."""
        lines = [
            Figure("ours", self.samples_per_second("ours"), "samples/s"),
            Figure("the authors' way", self.samples_per_second("authors"), "samples/s"),
            Figure("ours over the authors'", self.speed_up("authors"), "x", SPEED_UP),
            Figure("ours, share of matmul roof", self.share_of_roof, "%", SHARE_OF_ROOF),
            Figure("largest difference of losses", self.loss_difference, "nats/token"),
        ]
        if self.released_loss_difference is not None:
            released = self.samples_per_second("released")
            ratio = self.speed_up("released")
            difference = self.released_loss_difference
            lines += [
                Figure("the authors' way as released", released, "samples/s"),
                Figure("ours over the authors' as released", ratio, "x", SPEED_UP),
                Figure("fp32 against the authors' as released", difference, "nats/token"),
            ]
        if self.bf16_loss_difference is not None and self.bf16_ifd_difference is not None:
            lines += [
                Figure("bf16 against fp32, loss", self.bf16_loss_difference, "nats/token"),
                Figure("bf16 against fp32, IFD", self.bf16_ifd_difference, ""),
            ]
        return lines


def measure_scoring(
    model: Any,
    tokenizer: Any,
    records: BenchRecords,
    *,
    runtime: ResolvedRuntime,
    batch_tokens: int,
    depth_fraction: float,
    roof: float,
    repetitions: int,
    as_released: Any | None,
) -> ScoringResult:
    """Score `records` both ways by turns; `roof` is the matmul throughput, operations per second.

    All start from text; ours yields embeddings besides. as_released: the same weights with the
    attention that the authors' code runs with; None leaves that side out, slow as it is.
    """
    header = assistant_header(tokenizer)
    losses = {
        precision: ResponseLoss(model, replace(runtime, precision=precision))
        for precision in {runtime.precision, "fp32"}
    }

    def ours(chosen: BenchRecords, precision: str) -> Scores:
        return score_pool(
            losses[precision],
            [encode(tokenizer, messages) for messages in chosen.conversations],
            header=header,
            pad_id=tokenizer.eos_token_id,
            batch_tokens=batch_tokens,
            depth_fraction=depth_fraction,
        )

    def authors(chosen: BenchRecords) -> AuthorsScores:
        return score_as_the_authors(
            model,
            tokenizer,
            chosen.conversations,
            header=header,
            runtime=runtime,
            third_forward=False,
        )

    def released(chosen: BenchRecords) -> AuthorsScores:
        return score_as_the_authors(
            as_released,
            tokenizer,
            chosen.conversations,
            header=header,
            runtime=replace(runtime, precision="fp32"),
            third_forward=True,
        )

    found: dict[str, Any] = {}
    sides = {
        "ours": timed(lambda: found.update(ours=ours(records, runtime.precision))),
        "authors": timed(lambda: found.update(authors=authors(records))),
    }
    ours(records.first(1), runtime.precision)
    authors(records.first(1))
    if as_released is not None:
        sides["released"] = timed(lambda: found.update(released=released(records)))
        released(records.first(1))
    seconds = interleave(sides, repetitions)
    scores: Scores = found["ours"]
    exact = ours(records, "fp32") if runtime.precision != "fp32" else None
    shape = shape_of(model)
    bare = [_alone(sample, len(header)) for sample in records.samples]
    return ScoringResult(
        records=len(records.samples),
        tokens=records.tokens,
        precision=runtime.precision,
        flops=total_forward_flops(shape, records.samples) + total_forward_flops(shape, bare),
        roof=roof,
        seconds=seconds,
        loss_difference=_differ(scores, found["authors"]),
        released_loss_difference=(
            None if as_released is None else _differ(exact or scores, found["released"])
        ),
        bf16_loss_difference=None if exact is None else _largest(scores.loss, exact.loss),
        bf16_ifd_difference=None if exact is None else _largest(scores.ifd, exact.ifd),
    )


def _alone(sample: Encoded, header_tokens: int) -> Encoded:
    """Return a sample as long as the response behind a header, for counting."""
    length = header_tokens + len(sample.input_ids) - sample.response_start
    return Encoded(range(length), 0, header_tokens)


def _differ(ours: Scores, theirs: AuthorsScores) -> float:
    """Return the largest difference between both losses of the same records, in nats per token."""
    return max(_largest(ours.loss, theirs.loss), _largest(ours.response_loss, theirs.response_loss))


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())

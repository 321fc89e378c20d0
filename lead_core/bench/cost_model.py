"""What LEAD costs at a size nobody tries out first: seconds and dollars from operation counts.

``python -m lead_core.bench.cost_model`` prints the tables of docs/performance.md. Plain arithmetic: the
operations of `flops`, divided by what a processor does in a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lead_core.bench.flops import ModelShape, attention_flops, forward_flops

MISTRAL_7B = ModelShape(
    matrices=((1024, 4096, 64), (4096, 4096, 64), (4096, 14336, 64), (14336, 4096, 32)),
    layers=32,
    attention_width=4096,
    hidden=4096,
    vocabulary=32000,
)
SMOLLM2_135M = ModelShape(
    matrices=((576, 192, 60), (576, 576, 60), (576, 1536, 60), (1536, 576, 30)),
    layers=30,
    attention_width=576,
    hidden=576,
    vocabulary=49152,
)
POOLS = (600_000, 10_000_000)


@dataclass(frozen=True)
class Processor:
    """What runs the model: peak operations per second, the share of it that is reached, its price."""

    name: str
    peak_flops: float
    utilisation: float
    dollars_per_hour: float

    def seconds(self, flops: float) -> float:
        """Return how long `flops` operations take."""
        return flops / (self.peak_flops * self.utilisation)

    def dollars(self, seconds: float) -> float:
        """Return what `seconds` cost."""
        return seconds / 3600 * self.dollars_per_hour


@dataclass(frozen=True)
class Workload:
    """How long samples are, and how much of a pool is trained on.

    tokens, response_tokens: of every sample. header_tokens: of the assistant header before a lone
    response. budget_fraction: samples trained on, once each. rank: of adapters on every matrix of the
    decoder. rounds: of the iterative reference, which forwards the pool before each.
    """

    tokens: int
    response_tokens: int
    header_tokens: int
    budget_fraction: float
    rank: int
    rounds: int


A100 = Processor(
    "A100 (312 TFLOP/s in bf16)", peak_flops=312e12, utilisation=0.4, dollars_per_hour=2.0
)
PAPER_LIKE = Workload(
    tokens=500, response_tokens=300, header_tokens=4, budget_fraction=0.025, rank=64, rounds=12
)


@dataclass(frozen=True)
class Cost:
    """Operations of LEAD's stages, and of what the iterative reference forwards in order to select."""

    offline: int
    training: int
    iterative_selection: int

    @property
    def lead(self) -> int:
        """Return the operations of LEAD as a whole: selection adds none."""
        return self.offline + self.training

    @property
    def iterative(self) -> int:
        """Return the operations of the iterative reference, which needs LEAD's offline pass as well."""
        return self.lead + self.iterative_selection


def offline_flops(shape: ModelShape, work: Workload) -> int:
    """Return the operations of one sample's offline pass: with its prompt, and its response alone."""
    alone = work.header_tokens + work.response_tokens
    return forward_flops(shape, work.tokens, work.response_tokens) + forward_flops(
        shape, alone, work.response_tokens
    )


def scoring_table(
    shape: ModelShape,
    scorer: ModelShape,
    work: Workload,
    processor: Processor,
    pools: Sequence[int],
) -> str:
    """Return a Markdown table: the offline pass by the model itself, and by `scorer` in its place.

    Both are taken to read samples as equally many tokens.
    """
    lines = [
        "| pool | offline pass by the model | by the scoring model | share |",
        "|---:|---:|---:|---:|",
    ]
    share = offline_flops(scorer, work) / offline_flops(shape, work)
    for samples in pools:
        cells = [_cell(processor, samples * offline_flops(each, work)) for each in (shape, scorer)]
        lines.append(f"| {samples:,} | {' | '.join(cells)} | {share:.1%} |")
    return "\n".join(lines) + "\n"


def training_flops(shape: ModelShape, work: Workload) -> int:
    """Return the operations of training on one sample with frozen weights and adapters of `work.rank`.

    Backwards, a frozen matrix takes as many as forwards (the gradient of its input alone); an adapter,
    and attention, whose factors both need gradients, twice as many.
    """
    forward = forward_flops(shape, work.tokens, work.response_tokens)
    adapters = sum(work.rank * (inputs + outputs) * n for inputs, outputs, n in shape.matrices)
    return 2 * forward + attention_flops(shape, work.tokens) + 3 * 2 * adapters * work.tokens


def estimate_cost(shape: ModelShape, work: Workload, samples: int) -> Cost:
    """Return what a pool of `samples` costs."""
    selected = round(work.budget_fraction * samples)
    once = forward_flops(shape, work.tokens, work.response_tokens)
    return Cost(
        offline=samples * offline_flops(shape, work),
        training=selected * training_flops(shape, work),
        iterative_selection=work.rounds * samples * once,
    )


def cost_table(
    shape: ModelShape, work: Workload, processor: Processor, pools: Sequence[int]
) -> str:
    """Return a Markdown table: for each pool, hours and dollars of LEAD and of the reference."""
    lines = [
        "| pool | offline pass | training | LEAD | iterative reference | reference / LEAD |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for samples in pools:
        cost = estimate_cost(shape, work, samples)
        parts = (cost.offline, cost.training, cost.lead, cost.iterative)
        cells = [_cell(processor, flops) for flops in parts]
        ratio = cost.iterative / cost.lead
        lines.append(f"| {samples:,} | {' | '.join(cells)} | {ratio:.1f} |")
    return "\n".join(lines) + "\n"


def _cell(processor: Processor, flops: int) -> str:
    seconds = processor.seconds(flops)
    return f"{seconds:,.0f} s = {seconds / 3600:,.1f} h, ${processor.dollars(seconds):,.0f}"


if __name__ == "__main__":
    print(cost_table(MISTRAL_7B, PAPER_LIKE, A100, POOLS))
    print(scoring_table(MISTRAL_7B, SMOLLM2_135M, PAPER_LIKE, A100, POOLS), end="")

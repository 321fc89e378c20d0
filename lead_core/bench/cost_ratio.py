"""How many times as long the iterative reference takes as LEAD, against pool size and rounds.

``python -m lead_core.bench.cost_ratio`` prints the table of docs/performance.md. Computed, by the
operation counts and under the assumptions of `cost_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lead_core.bench.cost_model import MISTRAL_7B, PAPER_LIKE, Workload, estimate_cost
from lead_core.bench.flops import ModelShape

# As in the reference benchmark, where the same was counted (results/reference): mean lengths there.
REFERENCE_BENCHMARK = Workload(
    tokens=102, response_tokens=47, header_tokens=3, budget_fraction=0.08, rank=16, rounds=10
)
POOLS = (10_000, 100_000, 1_000_000, 10_000_000)
ROUNDS = (4, 12, 40)
FIXED_BUDGET = 2_500  # samples, whatever the pool


def cost_ratio(shape: ModelShape, work: Workload, samples: int) -> float:
    """Return the operations of the iterative reference over those of LEAD, offline pass included.

    On one processor at one utilisation that is the ratio of their total times.
    """
    cost = estimate_cost(shape, work, samples)
    return cost.iterative / cost.lead


def ratio_table(
    shape: ModelShape,
    work: Workload,
    pools: Sequence[int],
    rounds: Sequence[int],
    fixed_budget: int,
) -> str:
    """Return a Markdown table of `cost_ratio`: pools down, rounds across.

    Rounds stand there twice: with the budget of `work`, a share of the pool, and with `fixed_budget`
    samples, which no pool may have less of.
    """
    heads = [
        f"{budget}: {n} rounds"
        for budget in (f"{work.budget_fraction:.1%} of it", f"{fixed_budget:,} samples")
        for n in rounds
    ]
    lines = [f"| pool | {' | '.join(heads)} |", f"|---:|{'---:|' * len(heads)}"]
    for samples in pools:
        budgets = (work, replace(work, budget_fraction=fixed_budget / samples))
        ratios = [
            cost_ratio(shape, replace(budget, rounds=n), samples)
            for budget in budgets
            for n in rounds
        ]
        lines.append(f"| {samples:,} | {' | '.join(f'{ratio:.1f}' for ratio in ratios)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(ratio_table(MISTRAL_7B, PAPER_LIKE, POOLS, ROUNDS, FIXED_BUDGET), end="")

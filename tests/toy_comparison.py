"""Cells of a comparison, made up but complete enough for its table, pictures and page."""

from __future__ import annotations

import numpy as np

from lead_core.comparison.table import ComparisonTable, tabulate_cells

POOL = 2000


def cells(
    selector: str, loss: float, n: int, *, seed: int = 0, seconds: float = 80.0
) -> list[dict]:
    rng = np.random.default_rng(seed)
    bandit = selector.startswith("lead")
    probabilities = rng.dirichlet(np.ones(7), size=10).tolist() if bandit else [None] * 10
    selection = 20_000 if selector == "iterative" else 0
    return [
        {
            "selector": selector,
            "seed": number,
            "heldout": {"macro": loss + 0.01 * rng.normal()},
            "visits": 160,
            "distinct": 150,
            "steps": 10,
            "measured": {},
            "inputs": {"scores_sha256": "s"},
            "tokens": 16_000,
            "ledger": {
                "offline": {"sequences": 4000, "tokens": 300_000},
                "selection": {"sequences": selection, "tokens": 100 * selection},
                "training": {"sequences": 160, "tokens": 16_000},
                "evaluation": {"sequences": 192, "tokens": 19_000},
            },
            "planted": {"exchanged": {"pool": 240, "visits": 20 + 5 * number, "distinct": 20}},
            "record": [{"probabilities": row} for row in probabilities],
            "curve": [{"tokens": 4000 * i, "loss": loss + 0.1 / i} for i in (1, 2, 3)],
            "selected": [f"{i:04d}" for i in rng.choice(POOL, 150, replace=False)],
            "origin": {"seconds": {"offline": 600.0, "training": seconds}},
        }
        for number in range(n)
    ]


def some_cells() -> list[dict]:
    return [
        *cells("random", 1.39, 4, seed=1),
        *cells("lead", 1.52, 4, seed=2),
        *cells("lead-paper", 1.50, 4, seed=3),
        *cells("stratified", 1.38, 4, seed=4),
        *cells("lead-no-loss-change", 1.5, 3, seed=5),
        *cells("iterative", 1.53, 1, seed=6),
    ]


def found(some: list[dict], *, wanted: int | None = None) -> ComparisonTable:
    base = {"comparison": "c", "measured": {}, "heldout": {"macro": 1.555, "records": 192}}
    return tabulate_cells(
        some, base, baseline="random", pool_records=POOL, wanted=wanted or len(some)
    )

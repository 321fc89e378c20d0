"""A cell of a comparison: one training by one selector with one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lead_core.errors import LeadError

BASE = "base"  # the untuned model: no selector and no seed
COMPARISON_TAG = "lead.comparison"  # of MLflow runs


@dataclass(frozen=True)
class Cell:
    """One training of a comparison."""

    selector: str
    seed: int

    @property
    def name(self) -> str:
        """Return the name of its folder and file."""
        return f"{self.selector}-seed{self.seed}"


def planned_cells(
    selectors: Sequence[str], seeds: Sequence[int], fewer_seeds: Mapping[str, int]
) -> list[Cell]:
    """Return every selector with every seed, or with the first `fewer_seeds` of them.

    The first seeds of all selectors come first, so that a comparison cut short is still a fair one.
    """
    return [
        Cell(name, seed)
        for place, seed in enumerate(seeds)
        for name in selectors
        if place < fewer_seeds.get(name, len(seeds))
    ]


def check_no_start(start_from: str | None) -> None:
    """Raise LeadError where a run would start from an earlier one: cells start from the base model."""
    if start_from is not None:
        raise LeadError(
            f"params.yaml: grow.start_from must be null for a comparison, got {start_from!r}: its "
            "trainings all start from the base model"
        )

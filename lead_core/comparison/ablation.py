"""What each part of LEAD is worth: the rule without it, held against the whole rule seed by seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lead_core.comparison.table import Record
from lead_core.statistics import PairedDifference, paired_difference

WHOLE = "lead"
WITHOUT = "lead-no-"


@dataclass(frozen=True)
class Ablation:
    """LEAD without one part; changes: its held-out loss minus LEAD's, per shared seed (nats/token).

    Above zero, the part helps.
    """

    part: str
    changes: tuple[float, ...]
    versus: PairedDifference


def ablations(cells: Sequence[Record]) -> list[Ablation]:
    """Return what leaving out each part does, the most useful part first; none without `lead`."""
    losses = macro_losses(cells)
    whole = losses.get(WHOLE, {})
    found = []
    for name, without in losses.items():
        shared = sorted(set(whole) & set(without))
        if not name.startswith(WITHOUT) or not shared:
            continue
        before, after = [whole[seed] for seed in shared], [without[seed] for seed in shared]
        changes = tuple(b - a for a, b in zip(before, after, strict=True))
        part = name.removeprefix(WITHOUT).replace("-", " ")
        found.append(Ablation(part, changes, paired_difference(before, after)))
    return sorted(found, key=lambda item: -item.versus.difference)


def macro_losses(cells: Iterable[Record]) -> dict[str, dict[int, float]]:
    """Return the macro held-out losses of `cells`: selector -> seed -> loss."""
    losses: dict[str, dict[int, float]] = {}
    for cell in cells:
        losses.setdefault(cell["selector"], {})[cell["seed"]] = cell["heldout"]["macro"]
    return losses

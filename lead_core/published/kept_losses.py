"""What the kept cells of a comparison say, beside its table."""

from __future__ import annotations

from pathlib import Path

from lead_core.storage import read_json


def losses_by_seed(comparison: Path) -> dict[str, dict[int, float]]:
    """Return the macro held-out losses of the comparison in a folder: selector -> seed -> loss."""
    losses: dict[str, dict[int, float]] = {}
    for path in sorted((comparison / "cells").glob("*.json")):
        cell = read_json(path, made_by="lead compare")
        losses.setdefault(cell["selector"], {})[cell["seed"]] = cell["heldout"]["macro"]
    return losses

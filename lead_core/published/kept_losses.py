"""What the kept cells of a comparison say, beside its table."""

from __future__ import annotations

from pathlib import Path

from lead_core.comparison.ablation import macro_losses
from lead_core.storage import read_json


def losses_by_seed(comparison: Path) -> dict[str, dict[int, float]]:
    """Return the macro held-out losses of the comparison in a folder: selector -> seed -> loss."""
    paths = sorted((comparison / "cells").glob("*.json"))
    return macro_losses(read_json(path, made_by="lead compare") for path in paths)

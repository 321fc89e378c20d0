"""The table of how close utilities are to true losses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lead_core.fidelity_report import FIGURES, figures_frame, last_rounds
from lead_core.published.markdown import markdown_table
from lead_core.storage import read_json

FIDELITY = "fidelity"
_ESTIMATES = {  # of the fidelity benchmark's eleven, those that the pages tell apart
    "stale": "offline loss, never updated",
    "last_seen": "loss last seen in training",
    "paper/remaining, b=0.1": "IDU, published formula (`paper`)",
    "displacement/remaining, b=0.1": "IDU, real displacement (`displacement`, shipped)",
    "displacement/remaining, b=0": "the same without smoothing (b = 0)",
    "displacement/remaining, b=0.1 + drift": "the same with cluster drift",
}


def fidelity(results: Path) -> str:
    """Return how close estimates of the current loss are to it, means over seeds."""
    found = [
        read_json(path, made_by="lead fidelity")
        for path in sorted((results / FIDELITY).glob("fidelity-seed*.json"))
    ]
    last = last_rounds(figures_frame(found))
    means = last.groupby(["group", "estimator"])[list(FIGURES)].mean()
    heads = {f"estimate of the current loss, after {found[0]['rounds'][-1]['round']} rounds": "---"}
    groups = ("trained", "unvisited")
    for group in groups:
        heads |= {f"{group}: Spearman": "---:", f"{group}: MAE": "---:"}
    rows = [
        [text, *(_figure(means, group, name, f) for group in groups for f in ("spearman", "mae"))]
        for name, text in _ESTIMATES.items()
    ]
    seeds = ", ".join(str(result["seed"]) for result in found)
    return markdown_table(heads, rows) + (
        f"\n\nMean over seed{'s' if len(found) > 1 else ''} {seeds}; MAE in nats per response token."
    )


def _figure(means: pd.DataFrame, group: str, name: str, figure: str) -> str:
    return f"{means[figure][(group, name)]:.3f}"

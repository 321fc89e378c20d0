"""Held-out loss of every selector at several learning rates, so that none loses by a bad step size."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lead_core.published.markdown import markdown_table
from lead_core.storage import read_json

FOLDER = "learning-rates"


def learning_rates(results: Path) -> str:
    """Return the held-out loss that each selector reaches at each rate, means over the same seeds."""
    cells = [
        read_json(path, made_by="lead compare")
        for path in sorted(results.glob(f"{FOLDER}/*/cells/*.json"))
    ]
    if not cells:
        return "No comparison of learning rates is kept yet."
    frame = pd.DataFrame(
        [
            (
                cell["selector"],
                cell["settings"]["train"]["learning_rate"],
                cell["seed"],
                cell["heldout"]["macro"],
            )
            for cell in cells
        ],
        columns=["selector", "rate", "seed", "loss"],
    )
    means = frame.pivot_table(index="selector", columns="rate", values="loss", aggfunc="mean")
    means = means.loc[means.min(axis=1).sort_values(kind="stable").index]
    heads = {"selector": "---", **{f"{rate:.0e}".replace("e-0", "e-"): "---:" for rate in means}}
    lines = [
        [f"`{name}`", *(_loss(loss, row.min()) for loss in row)] for name, row in means.iterrows()
    ]
    seeds = ", ".join(str(seed) for seed in sorted(frame["seed"].unique()))
    return markdown_table(heads, lines) + (
        f"\n\nReference pool, seed{'s' if ',' in seeds else ''} {seeds}; nats per response token. "
        "Bold: the selector's best rate."
    )


def _loss(loss: float, best: float) -> str:
    if pd.isna(loss):
        return ""
    return f"**{loss:.3f}**" if loss == best else f"{loss:.3f}"

"""The table of what the iterative reference forwarded beside LEAD, in the reference benchmark."""

from __future__ import annotations

from pathlib import Path

from lead_core.published.comparison import COMPARISON
from lead_core.published.markdown import markdown_table
from lead_core.storage import read_json

LEAD, REFERENCE = "lead", "iterative"
_COLUMNS = {"offline": "offline", "selection": "to select", "training": "trained on"}


def reference_cost(results: Path) -> str:
    """Return tokens and seconds of `iterative` and `lead`, and their ratio.

    Says so where one of the two, or the throughput, is not there.
    """
    path = results / COMPARISON
    found = read_json(path, made_by="lead compare")
    rows = {row["selector"]: row for row in found["rows"]}
    speed = found["throughput"]
    if REFERENCE not in rows or LEAD not in rows or speed is None:
        return f"No training of `{REFERENCE}` is kept yet beside one of `{LEAD}`."
    cells = [
        read_json(cell, made_by="lead compare")
        for cell in sorted((path.parent / "cells").glob(f"{REFERENCE}-seed*.json"))
    ]
    rounds = " or ".join(str(n) for n in sorted({cell["rounds"] for cell in cells}))
    heads = {
        "selector": "---",
        "seeds": "---:",
        **{f"tokens {text}": "---:" for text in _COLUMNS.values()},
        "seconds": "---:",
    }
    lines = [
        [
            f"`{name}`",
            str(len(rows[name]["seeds"])),
            *(f"{rows[name]['tokens'][column]:,.0f}" for column in _COLUMNS),
            f"{rows[name]['seconds']:,.0f}",
        ]
        for name in (LEAD, REFERENCE)
    ]
    ratio = rows[REFERENCE]["seconds"] / rows[LEAD]["seconds"]
    return markdown_table(heads, lines) + (
        f"\n\n`{REFERENCE}` takes {ratio:.1f} times as long as `{LEAD}`, over {rounds} rounds. "
        f"Counted: the tokens. Measured: {speed['forward']:.0f} tokens/s forward and "
        f"{speed['training']:.0f} in training, medians of these trainings. Seconds are tokens by "
        "tokens/s, not a stopwatch's."
    )

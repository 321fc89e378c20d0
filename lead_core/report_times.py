"""How long each evaluation task took: a page beside the report, since equal work takes unequal time.

It lies outside of the report's folder, so DVC versions nothing of it, and the report links to it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lead_core.page import Table, render
from lead_core.storage import read_jsonl_log

FILE = "evaluation-times.html"
ROWS = ("base", "tuned")


def render_times(timings: Path, tasks: Collection[str]) -> str:
    """Return the page's HTML for those of `tasks` that `timings` (timings.jsonl) has a line of.

    A task that was evaluated more than once is shown as it went the last time.
    """
    last = {
        row["task"]: row
        for row in read_jsonl_log(timings)
        if row.get("stage") == "evaluate" and row.get("task") in tasks
    }
    return render("times.html.j2", times=_times(last) if last else None)


def _times(last: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return seconds per model and whose answers were kept, longest first, behind their sum."""
    seconds = {task: [row[f"{side}_seconds"] for side in ROWS] for task, row in last.items()}
    order = sorted(last, key=lambda task: (-sum(seconds[task]), task))
    total = [sum(column) for column in zip(*seconds.values(), strict=True)]
    rows = [("all tasks", *map(_seconds, total), "")]
    rows += [
        (task, *map(_seconds, seconds[task]), " and ".join(last[task]["cached"])) for task in order
    ]
    return Table(("task", *(f"{side}, seconds" for side in ROWS), "answers kept from before"), rows)


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f}"

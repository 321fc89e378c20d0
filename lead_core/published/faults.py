"""The table of what the fault suite injected, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lead_core.published.markdown import markdown_table
from lead_core.storage import read_json

FAULTS = "faults/faults.json"


def faults(results: Path) -> str:
    """Return what the fault suite injected and survived, by the name of its tests.

    A file without any fault, or none at all, says how to make one.
    """
    path = results / FAULTS
    found = read_json(path, made_by="make faults") if path.exists() else {"faults": []}
    if not found["faults"]:
        return "No run is kept yet: `make faults`."
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for fault in found["faults"]:
        rows.setdefault(fault["name"], []).append(fault)
    heads = {
        "fault, and what has to hold": "---",
        "injected": "---:",
        "survived": "---:",
        "seconds lost": "---:",
    }
    lines = [[name, *_survived(group)] for name, group in rows.items()]
    lines.append(["**in all**", *_survived(found["faults"])])
    missing = found["faults_planned"] - found["faults_injected"]
    state = f" {missing} more of the suite did not come to be injected." if missing else ""
    return markdown_table(heads, lines) + (
        f"\n\nCommit `{found['commit'][:12]}`. Seconds lost: what was interrupted and its rerun took "
        f"longer than an undisturbed run, where that was timed.{state}"
    )


def _survived(group: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how many faults were injected and survived, and the seconds lost if any were timed."""
    lost = [fault["seconds_lost"] for fault in group if fault["seconds_lost"] is not None]
    survived = sum(fault["survived"] for fault in group)
    return [str(len(group)), str(survived), f"{sum(lost):,.0f}" if lost else ""]

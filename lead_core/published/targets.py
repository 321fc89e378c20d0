"""The table of what `lead bench` holds against a target, met or missed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lead_core.bench.result import figure_texts, read_figure
from lead_core.origin import read_origin
from lead_core.published.markdown import markdown_table
from lead_core.storage import read_json

RUNS = "bench/*/bench.json"
MADE_BY = "lead bench --full --out results/bench/all"


def targets(results: Path) -> str:
    """Return the figures that have a target, and below them where and how they were measured.

    Every run of `lead bench` that is kept has a folder of its own; no measurement is in two of them.
    """
    paths = sorted(results.glob(RUNS))
    if not paths:
        return f"No run is kept yet: `{MADE_BY}`."
    heads = {
        "what is measured": "---",
        "reached, median (least to greatest)": "---:",
        "target": "---:",
        "": "---",
    }
    rows, notes = [], []
    for path in paths:
        found = read_json(path, made_by=MADE_BY)
        for name, result in found["results"].items():
            rows += _rows(name, result)
        notes.append(f"{', '.join(found['results'])}: {_where(path, found['model'])}")
    return "\n\n".join([markdown_table(heads, rows), *notes])


def _rows(name: str, result: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for figure in map(read_figure, result["figures"]):
        value, spread, target, verdict = figure_texts(figure)
        if target:
            reached = f"{value} ({spread})" if spread else value
            said = f"**{verdict}**" if verdict == "missed" else verdict
            rows.append([f"{name}: {figure.name}", reached, target, said])
    return rows


def _where(path: Path, model: str) -> str:
    """Return commit, machine, model and command in one line; an edited file is of unknown origin."""
    origin = read_origin(path)
    if "commit" not in origin:
        return f"`{model}`; commit, machine and command are not known."
    edited = len(origin["edited"])
    state = f" with {edited} edited file{'s' if edited > 1 else ''}" if edited else ""
    commit = f"commit `{origin['commit'][:12]}`{state}"
    return f"{commit}; {origin['machine']}; `{model}`; `{origin['command']}`."

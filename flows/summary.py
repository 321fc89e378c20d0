"""What a run came to, in a few rows: headline figures and where to look next."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from flows.reproduce import StageRun
from lead_core.storage import read_json

METRICS = Path("artifacts/report/metrics.json")
REPORT = Path("artifacts/report/page/index.html")
SELECTION = Path("artifacts/train/selection.parquet")


HEADLINE = (
    ("held-out loss, base", "{heldout_loss_base:.4f} nats/token"),
    ("held-out loss, tuned", "{heldout_loss_tuned:.4f} nats/token"),
    (
        "tuned - base, paired 95 %",
        "{heldout_loss_difference:+.4f} [{heldout_loss_low:+.4f}, {heldout_loss_high:+.4f}] "
        "over {heldout_records} records",
    ),
    (
        "samples used",
        "{samples_distinct} of {pool_records} ({visits} visits, {rounds} rounds, "
        "{optimizer_steps} steps)",
    ),
    (
        "forwards spent",
        "offline {forwards_offline}, selection {forwards_selection}, "
        "training {forwards_training}, evaluation {forwards_evaluation}",
    ),
)


def figures(workspace: Path) -> dict[str, float]:
    """Return the report's metrics; empty before the first report."""
    path = workspace / METRICS
    found: dict[str, float] = read_json(path, made_by="lead run") if path.exists() else {}
    return found


def headline(workspace: Path) -> list[tuple[str, str]]:
    """Return (name, figures) rows read from the report's metrics; empty before the first report.

    A row whose figures the report does not have (no held-out records, say) is left out.
    """
    metrics = figures(workspace)
    rows = []
    for name, text in HEADLINE:
        with contextlib.suppress(KeyError, TypeError):  # not there, or null
            rows.append((name, text.format_map(metrics)))
    return rows


def next_steps(workspace: Path) -> list[tuple[str, str]]:
    """Return (name, where) rows: the report, the tracking UI, the selected samples."""
    places = [
        ("report", REPORT.as_posix(), workspace / REPORT),
        ("runs side by side", "lead ui", None),
        ("every selected sample", SELECTION.as_posix(), workspace / SELECTION),
    ]
    return [(name, text) for name, text, path in places if path is None or path.exists()]


def run_summary(
    workspace: Path, stages: Sequence[str], runs: Sequence[StageRun], failure: str | None = None
) -> str:
    """Return a finished or failed flow run as Markdown: its stages, the figures, the links.

    `stages` is the whole order; the first one without a run is the one that `failure` speaks of.
    """
    lines = ["# LEAD run", "", "| stage | outcome | seconds |", "|---|---|---:|"]
    lines += [f"| {run.stage} | {run.outcome} | {run.seconds:.1f} |" for run in runs]
    for place, stage in enumerate(stages[len(runs) :]):
        lines.append(f"| {stage} | {'failed' if place == 0 else 'not run'} | |")
    if failure:
        return "\n".join([*lines, "", f"**{failure}**", ""])
    if "report" in stages and (figures := headline(workspace)):
        lines += ["", "| result | |", "|---|---|", *(f"| {a} | {b} |" for a, b in figures)]
    lines += ["", "| where to look next | |", "|---|---|"]
    lines += [f"| {name} | `{place}` |" for name, place in next_steps(workspace)]
    return "\n".join([*lines, ""])

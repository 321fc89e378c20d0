"""The report stage: metrics for DVC and one page for people."""

from __future__ import annotations

from pathlib import Path

from lead_core.artifacts import Layout
from lead_core.params import Params, flatten
from lead_core.report import write_report


def report(params: Params, layout: Layout, workspace: Path) -> str:
    """Write metrics.json and the page; return a summary."""
    shown = {
        k: v for k, v in flatten(params).items() if not k.startswith(("tracking.", "compare."))
    }
    return write_report(layout, top_records=params.report.top_records, settings=shown)

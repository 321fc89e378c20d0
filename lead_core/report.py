"""The last stage: one file of metrics for `dvc metrics`, and one page for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lead_core.artifacts import Layout
from lead_core.report_data import FinishedRun, read_run
from lead_core.report_page import render_page, verdict
from lead_core.report_plots import draw_plots
from lead_core.report_times import FILE as TIMES_FILE
from lead_core.report_times import render_times
from lead_core.storage import replaced_directory, write_bytes, write_json, write_text


def write_report(
    layout: Layout, *, top_records: int, settings: Mapping[str, Any] | None = None
) -> str:
    """Write metrics.json, the folder page (index.html, plots/*.png, *.csv) and the page of seconds
    beside it (`report_times`); return a summary.

    top_records: most and least useful records shown with text. settings: the run's parameters by
    dotted name, to be shown; leave out what is no part of the result, such as the tracking server.
    Raises LeadError when an output of an earlier stage is absent or belongs to another run.
    """
    run = read_run(layout)
    plots = draw_plots(run)
    page = render_page(run, plots, top_records=top_records, settings=settings or {})
    with replaced_directory(layout.report / "page") as folder:
        write_text(folder / "index.html", page)
        for plot in plots:
            write_bytes(folder / "plots" / f"{plot.name}.png", plot.png)
            if plot.data is not None:
                write_text(folder / f"{plot.name}.csv", plot.data.to_csv(index=False))
    write_json(layout.report / "metrics.json", collect_metrics(run))
    timings = layout.evaluation.parent / "timings.jsonl"
    write_text(layout.report / TIMES_FILE, render_times(timings, run.results["tasks"]))
    return f"{verdict(run)}\nreport: {layout.report / 'page' / 'index.html'}"


def collect_metrics(run: FinishedRun) -> dict[str, float]:
    """Return the run's figures as one flat mapping; what was not measured is left out.

    Held-out losses are means over records in nats per response token, ``..._macro_...`` means over
    sources. Figures of other evaluation tasks come as ``task/metric/base`` and ``task/metric/tuned``.
    """
    train = run.train_manifest
    metrics: dict[str, Any] = {
        "pool_records": train["pool_size"],
        "samples_distinct": train["distinct"],
        "visits": train["visits"],
        "rounds": train["rounds"],
        "optimizer_steps": train["steps"],
        "training_tokens": run.forwards["training"]["tokens"],
    }
    for column, cost in run.forwards.items():
        metrics[f"forwards_{column}"] = cost["sequences"]
    if run.headline is not None:
        for name in ("base", "tuned", "difference", "low", "high"):
            metrics[f"heldout_loss_{name}"] = run.headline[name]
        metrics["heldout_records"] = run.headline["n"]
    for source, pair in run.by_source.items():
        metrics[f"heldout_loss_tuned/{source}"] = pair["tuned"]
    for task, figures in run.results["tasks"].items():
        for row in ("base", "tuned"):
            if task == "lead_heldout":
                metrics[f"heldout_loss_macro_{row}"] = figures[row]["loss_macro"]
                metrics[f"heldout_bits_per_byte_{row}"] = figures[row]["bits_per_byte"]
            else:
                for metric, value in figures[row].items():
                    metrics[f"{task}/{metric}/{row}"] = value
    return {name: value for name, value in metrics.items() if value is not None}

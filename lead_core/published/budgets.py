"""Held-out loss against budget on the reference pool: the table, and its picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from lead_core.comparison.plots import LINES
from lead_core.plots import render_png
from lead_core.published.kept_losses import losses_by_seed
from lead_core.published.markdown import interval, markdown_table
from lead_core.statistics import PairedDifference, paired_difference
from lead_core.storage import read_json

FOLDERS = ("confirm-reference", "budgets")  # comparisons that differ in budget alone
CHOSEN = ("informative", "random", "stratified")
WHOLE = "full"


@dataclass(frozen=True)
class BudgetPoint:
    """One budget of one pool: what each selector reached with it.

    samples: training samples. rows: of `comparison.json`, by selector. losses: selector -> held-out
    loss of each seed, in nats per response token.
    """

    samples: int
    base_loss: float
    rows: Mapping[str, Mapping[str, Any]]
    losses: Mapping[str, Sequence[float]]


def budget_points(results: Path) -> list[BudgetPoint]:
    """Return the kept comparisons of different budgets, the smallest budget first."""
    found = [
        _point(path)
        for folder in FOLDERS
        for path in sorted(results.glob(f"{folder}/*/comparison.json"))
    ]
    return sorted(found, key=lambda point: point.samples)


def _point(path: Path) -> BudgetPoint:
    table = read_json(path, made_by="lead compare")
    kept = losses_by_seed(path.parent)
    losses = {selector: list(by_seed.values()) for selector, by_seed in kept.items()}
    rows = {row["selector"]: row for row in table["rows"]}
    return BudgetPoint(rows["random"]["visits"][1], table["base_loss"], rows, losses)


def budgets(results: Path) -> str:
    """Return what each selector reaches with each budget of the reference pool."""
    points = [point for point in budget_points(results) if CHOSEN[0] in point.rows]
    if not points:
        return "No comparison of budgets is kept yet."
    heads = {
        "training samples": "---:",
        "seeds": "---:",
        **{f"`{name}`": "---:" for name in CHOSEN},
        "`informative` minus `random`, paired 95 %": "---",
        "gain, times `random`'s": "---:",
        "tokens, `informative` / `random`": "---:",
    }
    lines = [_line(point) for point in points]
    whole = [loss for point in points for loss in point.losses.get(WHOLE, ())]
    reached = f", `full` (one epoch over the pool) {np.mean(whole):.3f}" if whole else ""
    return markdown_table(heads, lines) + (
        "\n\nHeld-out loss in nats per response token (macro average over sources), means over seeds. "
        f"Base model {points[0].base_loss:.3f}{reached}."
    )


def _line(point: BudgetPoint) -> list[str]:
    rows = point.rows
    pair = PairedDifference(**rows["informative"]["versus"])
    means = [f"{rows[name]['loss']:.3f}" if name in rows else "" for name in CHOSEN]
    gain = point.base_loss - pair.base
    both = rows["informative"], rows["random"]
    return [
        f"{point.samples:,}",
        str(pair.n),
        *means,
        interval(pair),
        f"{(point.base_loss - pair.tuned) / gain:.2f}" if gain > 0 else "",
        " / ".join(f"{row['tokens']['training']:,.0f}" for row in both),
    ]


def budgets_picture(results: Path) -> bytes | None:
    """Return loss against samples and tokens trained on, as PNG; None without two budgets."""
    points = budget_points(results)
    if len(points) < 2:
        return None

    def draw(figure: Figure) -> None:
        samples, tokens = figure.subplots(1, 2, sharey=True)
        _draw(samples, points, lambda point, _: float(point.samples))
        _draw(tokens, points, lambda point, name: float(point.rows[name]["tokens"]["training"]))
        samples.set(xlabel="training samples", ylabel="held-out loss (nats per response token)")
        tokens.set(xlabel="tokens trained on")
        figure.legend(*samples.get_legend_handles_labels(), loc="outside upper left", ncols=4)

    return render_png(draw, height=3.8)


def _draw(
    axes: Axes, points: Sequence[BudgetPoint], place: Callable[[BudgetPoint, str], float]
) -> None:
    """Draw each selector's mean loss with its 95 % interval over seeds, at `place`, on a log axis."""
    for name, style in zip(CHOSEN, LINES, strict=False):
        known = [point for point in points if name in point.rows]
        means = [_against_zero(point.losses[name]) for point in known]
        reach = [0.0 if mean.high is None else mean.high - mean.difference for mean in means]
        axes.errorbar(
            [place(point, name) for point in known],
            [mean.difference for mean in means],
            yerr=reach,
            label=name,
            ms=4,
            capsize=3,
            **style,
        )
    axes.set_xscale("log")
    axes.set_xticks([round(place(point, "random"), -1) for point in points])
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _against_zero(losses: Sequence[float]) -> PairedDifference:
    return paired_difference(np.zeros(len(losses)), losses)

"""A comparison as pictures: differences with intervals, quality against cost, the bandits."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from lead_core.comparison.table import ComparisonTable, Record, Row
from lead_core.plots import DARK, INK, LIGHT, RULE, SHADES, mark_whole_rounds, render_png
from lead_core.selectors import get_selector

Cells = Sequence[Record]

# Told apart without colour: the dash and the marker differ.
LINES: tuple[dict[str, Any], ...] = (
    {"color": DARK, "linestyle": "-", "marker": "o"},
    {"color": INK, "linestyle": "--", "marker": "s", "mfc": "white"},
    {"color": RULE, "linestyle": "-", "marker": "^"},
    {"color": DARK, "linestyle": ":", "marker": "D", "mfc": "white"},
    {"color": INK, "linestyle": "-.", "marker": "v"},
    {"color": RULE, "linestyle": "--", "marker": "x"},
)


def differences_plot(found: ComparisonTable, cells: Cells) -> bytes:
    """Draw each selector's paired difference to the baseline, its seeds, and the faults it picked."""
    rows = [row for row in found.rows if row.versus is not None]
    against = {c["seed"]: c["heldout"]["macro"] for c in cells if c["selector"] == found.baseline}
    kind = next(iter(sorted(found.pool_faults)), None)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2 if kind else 1, sharey=True, squeeze=False)[0]
        places = np.arange(len(rows))[::-1]
        axes = panels[0]
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, row in zip(places, rows, strict=True):
            mine = [c for c in cells if c["selector"] == row.selector and c["seed"] in against]
            seeds = [c["heldout"]["macro"] - against[c["seed"]] for c in mine]
            axes.plot(seeds, np.full(len(seeds), place), "|", color=RULE, ms=9)
            _draw_interval(axes, place, row)
        axes.set_yticks(places, [f"{row.selector} ({len(row.seeds)})" for row in rows])
        axes.set(
            xlabel=f"loss minus {found.baseline}'s (nats/token)",
            title="Held-out loss, paired (ticks: seeds)",
        )
        if kind:
            _draw_faults(panels[1], found, rows, places, kind)

    return render_png(draw, height=1.3 + 0.34 * len(rows))


def _draw_interval(axes: Axes, place: float, row: Row) -> None:
    pair = row.versus
    if pair is None:
        return
    if pair.low is not None and pair.high is not None:
        axes.hlines(place, pair.low, pair.high, color=DARK, linewidth=2)
    axes.plot(pair.difference, place, "o", color=DARK, ms=5)


def _draw_faults(
    axes: Axes, found: ComparisonTable, rows: Sequence[Row], places: np.ndarray, kind: str
) -> None:
    axes.barh(places, [100 * row.picked[kind] for row in rows], height=0.55, color=LIGHT)
    axes.axvline(100 * found.pool_faults[kind], color=INK, linewidth=1, linestyle="--")
    axes.tick_params(left=False)
    axes.set(
        xlabel="% of training samples",
        title=f"{kind.replace('_', ' ').capitalize()} picked (line: pool's share)",
    )


def cost_plot(found: ComparisonTable, cells: Cells) -> bytes:
    """Draw held-out loss against training tokens, and the result against seconds where known."""
    shown = _few([row for row in found.rows if _curve(cells, row.selector)], found.baseline)
    timed = [(row, row.seconds) for row in found.rows if row.seconds is not None]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2 if timed else 1, squeeze=False)[0]
        tokens = panels[0]
        for row, style in zip(shown, LINES, strict=False):
            points = _curve(cells, row.selector)
            tokens.plot(*zip(*points, strict=True), label=row.selector, ms=4, **style)
        if shown:
            _log_axis(tokens)
            figure.legend(loc="outside lower left", ncols=3)
        tokens.set(
            xlabel="training tokens",
            ylabel="loss (nats per response token)",
            title="During training (some held-out records)",
        )
        if not timed:
            return
        seconds = panels[1]
        seconds.axhline(found.base_loss, color=INK, linewidth=0.8, linestyle="--")
        for row, spent in timed:
            seconds.errorbar(spent, row.loss, yerr=row.spread or 0, fmt="o", color=DARK, ms=4, lw=1)
        _log_axis(seconds)
        _label_beside(seconds, [(spent, row.loss, row.selector) for row, spent in timed])
        seconds.set(
            xlabel="seconds in all, offline pass included",
            title="At the end (all of them; dashed: base)",
        )

    return render_png(draw, height=4.8)


def _label_beside(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Name `points` (x, y, name) in a column right of the axes, never one name over another."""
    ordered = sorted(points, key=lambda point: point[1])
    low, high = axes.get_ylim()
    wanted = [(y - low) / (high - low) for _, y, _ in ordered]
    gap = min(0.055, 1 / max(1, len(wanted)))
    heights: list[float] = []
    for place, height in enumerate(wanted):
        highest = 1 - gap * (len(wanted) - 1 - place)  # leave room for those above
        heights.append(min(max(height, heights[-1] + gap if heights else 0.0), highest))
    for (x, y, name), height in zip(ordered, heights, strict=True):
        axes.annotate(
            name,
            (x, y),
            xytext=(1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": LIGHT, "lw": 0.6, "shrinkB": 3},
        )


def _log_axis(axes: Axes) -> None:
    """Make x logarithmic with plain numbers at 1, 2 and 5 times powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=30)


def _curve(cells: Cells, selector: str) -> list[tuple[float, float]]:
    """Return (tokens, loss) averaged over the seeds that took the same number of points."""
    curves = [c["curve"] for c in cells if c["selector"] == selector and c["curve"]]
    if not curves:
        return []
    length = statistics.mode([len(curve) for curve in curves])
    same = [curve for curve in curves if len(curve) == length]
    return [
        (
            statistics.fmean(curve[i]["tokens"] for curve in same),
            statistics.fmean(curve[i]["loss"] for curve in same),
        )
        for i in range(length)
    ]


def _few(rows: Sequence[Row], baseline: str) -> list[Row]:
    """Return the rows with most seeds, the baseline among them, as many as there are line styles."""
    ranked = sorted(rows, key=lambda row: (row.selector != baseline, -len(row.seeds), row.loss))
    return ranked[: len(LINES)]


def arms_plot(cells: Cells) -> bytes | None:
    """Draw how far the bandits of the compared rules come to prefer an arm; None without any."""
    learners: dict[str, list[np.ndarray]] = {}
    for cell in cells:
        record = [row["probabilities"] for row in cell["record"] if row["probabilities"]]
        if record and getattr(get_selector(cell["selector"]), "learns", False):
            learners.setdefault(cell["selector"], []).append(np.array(record))
    names = [name for name in ("lead", "lead-paper") if name in learners]
    if not names:
        return None

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, len(names), squeeze=False, sharex="col", sharey="row")
        for column, name in enumerate(names):
            records = learners[name]
            rounds = min(len(record) for record in records)
            mean = np.mean([record[:rounds] for record in records], axis=0).T
            heat, line = panels[0][column], panels[1][column]
            extent = (0.5, rounds + 0.5, -0.5, len(mean) - 0.5)
            image = heat.imshow(
                mean, aspect="auto", origin="lower", cmap=SHADES, vmin=0, vmax=0.5, extent=extent
            )
            heat.grid(False)
            heat.set_title(f"{name}: mean over {len(records)} seeds")
            for record in records:
                line.plot(range(1, len(record) + 1), record.max(axis=1), color=DARK, lw=0.9)
            line.axhline(1 / len(mean), color=INK, lw=0.8, linestyle="--")
            line.set(xlabel="round", ylim=(0, 1))
            mark_whole_rounds(line)
            if column == 0:
                heat.set_ylabel("difficulty cluster")
                line.set_ylabel("largest probability")
        figure.colorbar(image, ax=list(panels[0]), pad=0.01, label="probability")

    return render_png(draw, height=4.6)

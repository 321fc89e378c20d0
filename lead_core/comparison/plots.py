"""A comparison as pictures: quality and its cost, with intervals and seeds, and what was picked."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from scipy.optimize import isotonic_regression

from lead_core.comparison.ablation import Ablation, ablations
from lead_core.comparison.overlap import overlap_of_picks
from lead_core.comparison.table import ComparisonTable, Record, Row
from lead_core.plots import DARK, INK, LIGHT, RULE, SHADES, Plot, mark_whole_rounds, render_png
from lead_core.selectors import get_selector
from lead_core.statistics import PairedDifference

Cells = Sequence[Record]

NEAREST_MARKS = 0.015  # as share of the axis

# Told apart without colour: the dash and the marker differ.
LINES: tuple[dict[str, Any], ...] = (
    {"color": DARK, "linestyle": "-", "marker": "o"},
    {"color": INK, "linestyle": "--", "marker": "s", "mfc": "white"},
    {"color": RULE, "linestyle": "-", "marker": "^"},
    {"color": DARK, "linestyle": ":", "marker": "D", "mfc": "white"},
    {"color": INK, "linestyle": "-.", "marker": "v"},
    {"color": RULE, "linestyle": "--", "marker": "x"},
)


def draw_comparison(found: ComparisonTable, cells: Cells) -> list[Plot]:
    """Return all plots that these cells have the data for, in the order of the page."""
    plots = [
        differences_plot(found, cells),
        cost_plot(found, cells),
        curves_plot(found, cells),
        ablation_plot(ablations(cells)),
        overlap_plot(overlap_of_picks(cells), [row.selector for row in found.rows]),
        faults_plot(found),
        arms_plot(cells),
    ]
    return [plot for plot in plots if plot is not None]


def differences_plot(found: ComparisonTable, cells: Cells) -> Plot | None:
    """Draw each selector's paired difference to the baseline and its seeds; None without others."""
    rows = [row for row in found.rows if row.versus is not None]
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, row in zip(np.arange(len(rows))[::-1], rows, strict=True):
            _draw_interval(axes, place, row.versus, _changes(cells, row.selector, found.baseline))
        axes.set_yticks(
            np.arange(len(rows))[::-1], [f"{row.selector} ({len(row.seeds)})" for row in rows]
        )
        axes.grid(False, axis="y")
        axes.set_xlabel(f"held-out loss minus {found.baseline}'s (nats per response token)")

    return Plot(
        "differences",
        f"Held-out loss against {found.baseline}",
        f"Paired by seed: mean and 95 % interval of the difference; ticks are single seeds, and their "
        f"number stands in brackets. Left of zero is better than {found.baseline}.",
        None,
        render_png(draw, height=1.1 + 0.36 * len(rows)),
    )


def _changes(cells: Cells, selector: str, baseline: str) -> list[float]:
    """Return held-out losses of `selector` minus the baseline's, for the seeds that both have."""
    losses: dict[str, dict[int, float]] = {selector: {}, baseline: {}}
    for cell in cells:
        if cell["selector"] in losses:
            losses[cell["selector"]][cell["seed"]] = cell["heldout"]["macro"]
    against = losses[baseline]
    return [loss - against[seed] for seed, loss in losses[selector].items() if seed in against]


def _draw_interval(
    axes: Axes, place: float, pair: PairedDifference | None, seeds: Sequence[float]
) -> None:
    """Draw a row: single seeds as ticks, their mean as a dot with its interval."""
    if pair is None:
        return
    axes.plot(seeds, np.full(len(seeds), place), "|", color=RULE, ms=11)
    if pair.low is not None and pair.high is not None:
        axes.hlines(place, pair.low, pair.high, color=DARK, linewidth=2)
    axes.plot(pair.difference, place, "o", color=DARK, ms=5)


def ablation_plot(found: Sequence[Ablation]) -> Plot | None:
    """Draw what LEAD loses without each of its parts; None where nothing was left out."""
    if not found:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        places = np.arange(len(found))[::-1]
        changes = [item.versus.difference for item in found]
        axes.barh(places, changes, height=0.5, color=LIGHT)
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, item in zip(places, found, strict=True):
            _draw_interval(axes, place, item.versus, item.changes)
        axes.set_yticks(places, [f"without {item.part} ({item.versus.n})" for item in found])
        axes.grid(False, axis="y")
        axes.set_xlabel("held-out loss minus lead's (nats per response token)")

    return Plot(
        "ablation",
        "LEAD without one part",
        "Each part left out, the rest unchanged, paired by seed with the whole rule; 95 % intervals, "
        "ticks are single seeds. Right of zero the part helps; where the interval holds zero, these "
        "seeds do not tell.",
        None,
        render_png(draw, height=1.1 + 0.42 * len(found)),
    )


def overlap_plot(shares: pd.DataFrame, order: Sequence[str]) -> Plot | None:
    """Draw which share of one selector's samples another picked too; None for a single selector."""
    names = [name for name in order if name in shares.index]
    if len(names) < 2:
        return None
    values = 100 * shares.loc[names, names].to_numpy()

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        image = axes.imshow(values, cmap=SHADES, vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            text = "" if np.isnan(value) else f"{value:.0f}"
            colour = "white" if value > 60 else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="were also picked by", ylabel="of the samples of")
        axes.grid(False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, pad=0.01, label="% of distinct samples")

    return Plot(
        "overlap",
        "What the selectors agree on",
        "Share of the row's distinct samples that the column picked too, mean over the seeds that both "
        "have. On the diagonal a rule is held against itself with another seed: 100 where it leaves "
        "nothing to chance.",
        shares.loc[names, names].rename_axis("selector").reset_index(),
        render_png(draw, height=1.6 + 0.34 * len(names)),
    )


def faults_plot(found: ComparisonTable) -> Plot | None:
    """Draw which share of the training samples were planted faults; None if none were planted."""
    kinds = sorted(found.pool_faults)
    if not kinds:
        return None

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        places = np.arange(len(found.rows))[::-1]
        for axes, kind in zip(panels, kinds, strict=True):
            axes.barh(places, [100 * row.picked[kind] for row in found.rows], 0.55, color=LIGHT)
            axes.axvline(100 * found.pool_faults[kind], color=INK, linewidth=1, linestyle="--")
            axes.set(xlabel="% of training samples", title=kind.replace("_", " ").capitalize())
            axes.grid(False, axis="y")
        panels[0].set_yticks(places, [row.selector for row in found.rows])

    return Plot(
        "faults",
        "Planted faults picked",
        "Faults planted on purpose when the pool was made, as share of what each selector trained on, "
        "repeats counted. The dashed line is their share of the pool: what chance picks.",
        None,
        render_png(draw, height=1.2 + 0.3 * len(found.rows)),
    )


def curves_plot(found: ComparisonTable, cells: Cells) -> Plot | None:
    """Draw held-out loss during training against tokens; None where it was not taken."""
    shown = _few([row for row in found.rows if _curve(cells, row.selector)], found.baseline)
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, style in zip(shown, LINES, strict=False):
            points = _curve(cells, row.selector)
            axes.plot(*zip(*points, strict=True), label=row.selector, ms=4, **style)
        _log_axis(axes)
        axes.set(xlabel="training tokens", ylabel="loss (nats per response token)")
        figure.legend(loc="outside upper left", ncols=4)

    return Plot(
        "curves",
        "Held-out loss during training",
        "Means over the seeds for which held-out loss was taken while training, on part of the "
        "held-out records: for the shape, not for the last digit.",
        None,
        render_png(draw, height=4.0),
    )


def cost_plot(found: ComparisonTable, cells: Cells) -> Plot | None:
    """Draw the difference to the baseline against seconds; None where nothing was timed."""
    timed = [row for row in found.rows if row.seconds is not None]
    if not timed:
        return None
    zero = next(row.loss for row in found.rows if row.selector == found.baseline)
    places = set_apart([row.seconds or 0.0 for row in timed])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.axhline(found.base_loss - zero, color=INK, linewidth=0.8, linestyle="--")
        for row, place in zip(timed, places, strict=True):
            seeds = _changes(cells, row.selector, found.baseline)
            axes.plot(np.full(len(seeds), place), seeds, ".", color=RULE, ms=5)
            pair = row.versus
            if pair is not None and pair.low is not None and pair.high is not None:
                axes.vlines(place, pair.low, pair.high, color=DARK, linewidth=1.2)
            axes.plot(place, _difference(row), "o", color=DARK, ms=5)
        _log_axis(axes)
        _label_beside(
            axes,
            [(place, _difference(r), r.selector) for r, place in zip(timed, places, strict=True)],
        )
        axes.set(
            xlabel="seconds, offline pass included",
            ylabel=f"held-out loss minus {found.baseline}'s (nats per token)",
        )

    return Plot(
        "cost",
        "Quality and cost",
        f"Lower is better, further left is cheaper: difference to {found.baseline} with its paired "
        "95 % interval, single seeds as small dots, the untuned model dashed. Marks of nearly equal "
        "cost are set side by side; exact costs stand in the table below.",
        None,
        render_png(draw, height=4.4),
    )


def _difference(row: Row) -> float:
    return 0.0 if row.versus is None else row.versus.difference


def set_apart(costs: Sequence[float]) -> np.ndarray:
    """Return `costs` (positive) moved as little as it takes for marks on a log axis to stand apart.

    The nearest values in least squares with a smallest distance: an isotonic regression.
    """
    logs = np.log(costs)
    order = np.argsort(logs, kind="stable")
    steps = NEAREST_MARKS * max(np.ptp(logs), 1.0) * np.arange(len(logs))
    apart = np.empty_like(logs)
    apart[order] = isotonic_regression(logs[order] - steps).x + steps
    return np.exp(apart)


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
            arrowprops={
                "arrowstyle": "-",
                "color": LIGHT,
                "lw": 0.6,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
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


def arms_plot(cells: Cells) -> Plot | None:
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

    return Plot(
        "arms",
        "What the bandits come to prefer",
        "Above, the probability of each difficulty cluster (0: the easiest), mean over seeds. Below, "
        "the largest of them, one line per seed; dashed: no preference at all.",
        None,
        render_png(draw, height=4.6),
    )

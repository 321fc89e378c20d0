"""The map of the pool: what its embeddings hold in each difficulty cluster, and what was chosen."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lead_core.clustering import reduce_embeddings
from lead_core.plots import DARK, INK, LIGHT, MOST_POINTS, Plot, render_png

COLUMNS = 4
PALE = "#e6e9ec"
MARKERS = "o^sDv"  # of the largest task clusters of a panel
OTHER = "x"  # of all the rest
POOL: dict[str, Any] = {"mfc": LIGHT, "mec": LIGHT, "ms": 3.5}
SELECTED: dict[str, Any] = {"mfc": DARK, "mec": INK, "mew": 0.5, "ms": 5.5}


def map_plot(records: pd.DataFrame, embeddings: np.ndarray) -> Plot | None:
    """Draw each difficulty cluster on the pool's first two principal components, selected ones dark.

    embeddings [n, d]: row i is that of ``records.iloc[i]``. A record without a finite one is left
    out; None when fewer than two are left, as there is no direction then in which they vary.
    """
    rows = _drawn(records["uses"].to_numpy() > 0)
    vectors = np.asarray(embeddings[rows])
    finite = np.isfinite(vectors).all(axis=1)
    rows, vectors = rows[finite], vectors[finite]
    if len(rows) < 2:
        return None
    places = np.zeros((len(rows), 2))
    reduced = reduce_embeddings(vectors, 2, seed=0)
    places[:, : reduced.shape[1]] = reduced
    data = records.iloc[rows][["id", "source", "difficulty", "task", "uses"]].assign(
        component_1=places[:, 0].round(4), component_2=places[:, 1].round(4)
    )
    groups = list(data.groupby("difficulty"))

    def draw(figure: Figure) -> None:
        columns = min(COLUMNS, len(groups))
        panels = figure.subplots(
            math.ceil(len(groups) / columns), columns, sharex=True, sharey=True, squeeze=False
        )
        for axes, group in itertools.zip_longest(panels.flat, groups):
            if group is None:
                axes.set_visible(False)
                continue
            difficulty, inside = group
            axes.plot(*_xy(data), ".", color=PALE, ms=3, linestyle="none")
            tasks = inside["task"].value_counts().sort_index()
            in_all = records.loc[records["difficulty"] == difficulty, "task"].nunique()
            ranked = list(tasks.sort_values(ascending=False, kind="stable").index)
            for task in reversed(ranked):  # the largest on top
                _draw_task(axes, inside[inside["task"] == task], _marker(ranked.index(task)))
            name = "set aside" if difficulty < 0 else f"difficulty {difficulty}"
            axes.set_title(f"{name}: {in_all} task{'s' if in_all > 1 else ''}")
            axes.tick_params(labelsize=8)
            axes.grid(False)
        figure.supxlabel("1st principal component of the prompt embeddings (no unit)", fontsize=10)
        figure.supylabel("2nd component", fontsize=10)
        figure.legend(handles=_legend(), loc="outside upper left", ncols=3)

    notes = (
        "Each panel holds one difficulty cluster (0: the easiest) over the whole pool in pale grey; "
        "the shape of a mark is its task cluster there, the largest being round. Two components show "
        "only part of what the task clusters were found in."
    )
    if len(data) < len(records):
        notes += f" {len(data):,} of {len(records):,} records are drawn."
    return Plot(
        "map",
        "Map of the pool: difficulty x task",
        notes,
        data.reset_index(drop=True),
        render_png(draw, height=1.1 + 2.0 * math.ceil(len(groups) / COLUMNS)),
    )


def _drawn(chosen: np.ndarray) -> np.ndarray:
    """Return the rows to draw: all chosen ones, and the first of the others (ids are hashes)."""
    others = np.flatnonzero(~chosen)[:MOST_POINTS]
    return np.sort(np.concatenate([others, np.flatnonzero(chosen)]))


def _marker(rank: int) -> str:
    return MARKERS[rank] if rank < len(MARKERS) else OTHER


def _xy(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return rows["component_1"].to_numpy(), rows["component_2"].to_numpy()


def _draw_task(axes: Axes, rows: pd.DataFrame, marker: str) -> None:
    for kind, style in ((rows[rows["uses"] == 0], POOL), (rows[rows["uses"] > 0], SELECTED)):
        if len(kind):
            axes.plot(*_xy(kind), marker, linestyle="none", **style)


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], marker=".", color=PALE, linestyle="none", label="pool"),
        Line2D([], [], marker="o", linestyle="none", label="in this cluster", **POOL),
        Line2D([], [], marker="o", linestyle="none", label="selected", **SELECTED),
    ]

"""The fidelity benchmark as a picture: how well each estimate ranks and how far it errs, by round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lead_core.fidelity import LAST_SEEN, STALE, Estimator
from lead_core.fidelity_report import TARGETS, figures_frame
from lead_core.plots import DARK, INK, LIGHT, RULE, mark_whole_rounds, render_png

PANELS = (("spearman", "Spearman"), ("mae", "mean absolute error (nats/token)"))


def fidelity_plot(results: Sequence[dict[str, Any]]) -> bytes:
    """Return the picture as PNG: means over seeds of the naive estimates and the main variants."""
    frame = figures_frame(results)
    smoothing = results[0]["params"]["utility"]["smoothing"]
    means = frame.groupby(["group", "estimator", "round"])[["spearman", "mae"]].mean()

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 2, sharex=True, sharey="row")
        for column, (group, target) in enumerate(TARGETS.items()):
            for row, (name, label) in enumerate(PANELS):
                axes: Axes = panels[row][column]
                _draw_panel(axes, means[name], group, smoothing)
                if name == "spearman":
                    axes.axhline(target, color=INK, linewidth=0.8)
                    axes.set_title(f"{group} samples (line: target {target:.2f})")
                if column == 0:
                    axes.set_ylabel(label)
                if row == 1:
                    axes.set_ylim(bottom=0)
                    axes.set_xlabel("round")
                    mark_whole_rounds(axes)
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)

    return render_png(draw, height=6.2)


def _draw_panel(axes: Axes, values: pd.Series[float], group: str, smoothing: float) -> None:
    """Draw one line per pictured estimate; where rules agree, the later covers the earlier."""
    lines: dict[str, dict[str, Any]] = {
        STALE: {"color": RULE, "linestyle": ":", "marker": "x", "ms": 5},
        LAST_SEEN: {"color": RULE, "linestyle": "-", "marker": "s", "mfc": "white", "ms": 6},
        Estimator("none", False, smoothing, False).name: {
            "color": LIGHT,
            "linestyle": "-",
            "marker": "o",
            "ms": 5,
        },
        Estimator("paper", False, smoothing, False).name: {
            "color": INK,
            "linestyle": "--",
            "marker": "^",
            "mfc": "white",
            "ms": 4,
        },
        Estimator("displacement", False, smoothing, False).name: {
            "color": DARK,
            "linestyle": "-",
            "marker": "o",
            "ms": 3.5,
        },
        Estimator("displacement", False, smoothing, True).name: {
            "color": DARK,
            "linestyle": "-.",
            "marker": "D",
            "mfc": "white",
            "ms": 3.5,
        },
    }
    for name, style in lines.items():
        if (group, name) in values.index.droplevel("round"):
            points = values.loc[group, name]
            axes.plot(points.index, points.to_numpy(), label=name, linewidth=1.3, **style)

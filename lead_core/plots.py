"""What all pictures share: equal data gives equal PNG bytes, and all of them read in greyscale."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, DARK, LIGHT, RULE = "#22262a", "#1f4e79", "#b4bcc4", "#8a929a"
SHADES = LinearSegmentedColormap.from_list("shades", ["#eef2f6", "#2f6496"])
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 10,
    "text.parse_math": False,  # a source's name may hold a dollar sign
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e9ec",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
WIDTH_INCHES = 7.6
DOTS_PER_INCH = 140
MOST_POINTS = 20_000  # of the pool in one scatter; ids are hashes, so the first ones are a sample


@dataclass(frozen=True)
class Plot:
    """A picture as PNG bytes, the words around it, and the data behind it, to be written as CSV.

    data: None where another file holds it.
    """

    name: str
    title: str
    caption: str
    data: pd.DataFrame | None
    png: bytes


def render_png(draw: Callable[[Figure], None], *, height: float) -> bytes:
    """Return the picture that `draw` makes, `height` inches high, without date or version."""
    buffer = io.BytesIO()
    with matplotlib.style.context(STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing"
        )  # a name in a script we have no font for
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def mark_whole_rounds(axes: Axes) -> None:
    """Put the ticks of the x axis at whole rounds, twelve at most."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))

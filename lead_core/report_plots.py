"""The report's pictures: each with the words around it and the data behind it."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lead_core.plots import (
    DARK,
    INK,
    LIGHT,
    MOST_POINTS,
    RULE,
    SHADES,
    Plot,
    mark_whole_rounds,
    render_png,
)
from lead_core.pool_map import map_plot
from lead_core.report_data import FinishedRun

NAME_LENGTH = 26  # characters of a source's name beside an axis
MOST_SOURCES = 16


def draw_plots(run: FinishedRun) -> list[Plot]:
    """Return all plots that this run has the data for, in the order of the page."""
    plots = [
        heldout_plot(run),
        training_plot(run.rounds),
        bandit_plot(run.rounds),
        utility_plot(run.samples),
        pool_plot(run.records),
        map_plot(run.records, run.embeddings),
        composition_plot(run.records),
    ]
    return [plot for plot in plots if plot is not None]


def heldout_plot(run: FinishedRun) -> Plot | None:
    """Held-out loss of base and tuned model per source, and the difference with its interval."""
    if run.headline is None:
        return None
    rows = sorted(run.by_source.items(), key=lambda item: (-item[1]["n"], item[0]))
    data = pd.DataFrame(
        [{"source": "all records", **run.headline}]
        + [{"source": source, **pair} for source, pair in rows]
    )
    shown = data.iloc[: MOST_SOURCES + 1]

    def draw(figure: Figure) -> None:
        losses, change = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
        places = np.arange(len(shown))[::-1]
        losses.hlines(places, shown["tuned"], shown["base"], color=RULE, linewidth=1.2)
        losses.plot(
            shown["base"], places, "o", mfc="white", mec=INK, label="base", linestyle="none"
        )
        losses.plot(shown["tuned"], places, "o", color=DARK, label="tuned", linestyle="none")
        losses.set_yticks(
            places, [f"{_short(s)} ({n})" for s, n in zip(shown["source"], shown["n"], strict=True)]
        )
        losses.set_ylim(-0.6, len(shown) - 0.4)
        losses.set(xlabel="loss (nats per response token)", title="Loss")
        losses.legend(loc="lower left", bbox_to_anchor=(0.25, 1), ncols=2, borderaxespad=0.2)
        change.tick_params(left=False)
        change.axvline(0, color=INK, linewidth=0.8)
        spread = shown[["low", "high"]].astype(float)
        change.hlines(places, spread["low"], spread["high"], color=DARK, linewidth=1.6)
        change.plot(shown["difference"], places, "o", color=DARK, linestyle="none")
        change.set(xlabel="tuned - base (nats per token)", title="Difference, 95 % interval")

    return Plot(
        "heldout",
        "Held-out loss by source",
        "Mean response loss of records that were never trained on, before and after tuning, with the "
        "number of records. In the right panel, left of zero is better than the base model.",
        data,
        render_png(draw, height=1.2 + 0.36 * len(shown)),
    )


def training_plot(rounds: Sequence[dict[str, Any]]) -> Plot:
    """Mean loss of each round's samples, read before their update; held-out loss if monitored."""
    data = pd.DataFrame(rounds, columns=["round", "mean_loss", "n_selected"]).astype(float)
    data["heldout_loss"] = [row.get("heldout_loss") for row in rounds]
    data["heldout_loss"] = data["heldout_loss"].astype(float)
    monitored = data.dropna(subset="heldout_loss")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(data["round"], data["mean_loss"], "o-", color=DARK, ms=4, label="round's samples")
        if len(monitored):
            axes.plot(
                monitored["round"],
                monitored["heldout_loss"],
                "s--",
                color=INK,
                mfc="white",
                ms=5,
                label="held-out records",
            )
            axes.legend(loc="best")
        axes.set(xlabel="round", ylabel="loss (nats per response token)")
        mark_whole_rounds(axes)

    return Plot(
        "training",
        "Training loss per round",
        "Mean over each round's samples of the loss that training saw just before it learnt from them. "
        "A rule that prefers difficult samples keeps this curve high: it is no measure of quality.",
        data,
        render_png(draw, height=2.8),
    )


def bandit_plot(rounds: Sequence[dict[str, Any]]) -> Plot | None:
    """Probabilities of the arms, the arm drawn, and its reward; None for a rule without arms."""
    drawn = [row for row in rounds if row["arm"] is not None and row["probabilities"]]
    if not drawn:
        return None
    probabilities = np.array([row["probabilities"] for row in drawn]).T
    columns = ["round", "arm", "reward_raw", "reward"]
    data = pd.DataFrame(drawn, columns=columns)
    for arm, values in enumerate(probabilities):
        data[f"probability_{arm}"] = values

    def draw(figure: Figure) -> None:
        arms, raw, scaled = figure.subplots(
            3, 1, sharex=True, height_ratios=[0.32 * len(probabilities) + 0.6, 1.3, 1.3]
        )
        first, last = data["round"].iloc[0] - 0.5, data["round"].iloc[-1] + 0.5
        open_arms = np.ma.masked_equal(probabilities, 0)
        image = arms.imshow(
            open_arms,
            aspect="auto",
            origin="lower",
            cmap=SHADES,
            vmin=open_arms.min() if np.ptp(open_arms.compressed()) > 0 else 0,
            extent=(first, last, -0.5, len(probabilities) - 0.5),
        )
        arms.patch.set(hatch="///", edgecolor=LIGHT, facecolor="white")
        size = float(np.clip(300 / len(data), 2, 6))
        arms.plot(data["round"], data["arm"], "o", mfc="white", mec=INK, ms=size, linestyle="none")
        arms.grid(False)
        arms.set_yticks(range(len(probabilities)))
        arms.set(ylabel="difficulty cluster", title="Probability of each arm (ring: the one drawn)")
        figure.colorbar(image, ax=arms, pad=0.01, label="probability")
        for axes, column, label, title in (
            (raw, "reward_raw", "nats per token", "Reward: mean drop of utility"),
            (scaled, "reward", "scaled", "Reward as the bandit gets it"),
        ):
            axes.axhline(0, color=INK, linewidth=0.8)
            axes.bar(data["round"], data[column].astype(float), width=0.7, color=DARK)
            axes.set(ylabel=label, title=title)
        scaled.set_ylim(-1.1, 1.1)
        scaled.set_xlabel("round")
        mark_whole_rounds(scaled)

    return Plot(
        "bandit",
        "The bandit: arms and rewards",
        f"EXP3 draws one difficulty cluster per round (0: the easiest). Uniform would be "
        f"{1 / len(probabilities):.3f} each; a hatched arm had no eligible sample. The reward is "
        "scaled by the range of earlier rounds, and 0 until there is one.",
        data,
        render_png(draw, height=4 + 0.32 * len(probabilities)),
    )


def utility_plot(samples: pd.DataFrame) -> Plot:
    """Utility of every trained sample before and after its round."""
    columns = ["round", "id", "difficulty", "uses", "utility_before", "loss_seen", "utility_after"]
    data = samples[columns]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        both = data[["utility_before", "utility_after"]].to_numpy()
        low, high = float(both.min()), float(both.max())
        axes.plot([low, high], [low, high], color=RULE, linewidth=1)
        axes.annotate(
            "no change", (high, high), (-4, 2), textcoords="offset points", ha="right", color=INK
        )
        again = data["uses"] > 1
        for rows, marker, face, label in (
            (data[~again], "o", DARK, "first use"),
            (data[again], "^", "white", "used again"),
        ):
            if len(rows):
                axes.plot(
                    rows["utility_before"],
                    rows["utility_after"],
                    marker,
                    mfc=face,
                    mec=DARK,
                    ms=4,
                    label=label,
                    linestyle="none",
                )
        axes.set(
            xlabel="utility before its round (nats per token)",
            ylabel="utility after (nats per token)",
        )
        axes.legend(loc="upper left")

    return Plot(
        "utility",
        "Utility before and after",
        "One mark per trained sample: its IDU when it was chosen, and after the round. Below the line, "
        "the model found it easier after training on it.",
        data,
        render_png(draw, height=3.6),
    )


def pool_plot(records: pd.DataFrame) -> Plot:
    """The pool by IFD and loss before training, the selected ones marked."""
    finite = records[np.isfinite(records["ifd"]) & np.isfinite(records["loss"])]
    chosen = finite[finite["uses"] > 0]
    others = finite[finite["uses"] == 0].iloc[:MOST_POINTS]
    columns = ["id", "source", "ifd", "loss", "difficulty", "uses"]
    data = pd.concat([others, chosen])[columns].sort_values("id")
    limits = {name: _sensible_limit(data[name]) for name in ("ifd", "loss")}
    outside = int(((data["ifd"] > limits["ifd"]) | (data["loss"] > limits["loss"])).sum())

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(
            others["ifd"], others["loss"], ".", color=LIGHT, ms=4, label="pool", linestyle="none"
        )
        axes.plot(
            chosen["ifd"],
            chosen["loss"],
            "D",
            mfc=DARK,
            mec="white",
            mew=0.5,
            ms=5 if len(chosen) < 500 else 3,
            label="selected",
            linestyle="none",
        )
        axes.set_xlim(0, limits["ifd"])
        axes.set_ylim(0, limits["loss"])
        if limits["ifd"] > 1:
            axes.axvline(1, color=INK, linewidth=0.8, linestyle="--")
            axes.annotate(
                "set aside",
                (1, 1),
                (4, -4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
            )
        axes.set(
            xlabel="IFD (loss given the prompt / loss without)",
            ylabel="loss before training (nats per token)",
        )
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)

    notes = "Right of IFD = 1 the prompt does not help, and the record is set aside."
    if len(finite) > len(data):
        notes += f" {len(data):,} of {len(finite):,} records are drawn."
    if outside:
        notes += f" {outside:,} lie outside the frame (see the CSV)."
    return Plot(
        "pool", "The pool and what was chosen of it", notes, data, render_png(draw, height=4)
    )


def composition_plot(records: pd.DataFrame) -> Plot:
    """Shares of pool and selection by source, difficulty cluster and length."""
    chosen = records[records["uses"] > 0]
    source_names = _largest(records["source"])
    arms = sorted(records["difficulty"].unique())
    edges = np.histogram_bin_edges(records["tokens"], bins=14)
    edges = np.unique(np.round(edges).astype(int))
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0] + 1])
    parts = [
        _shares("source", source_names, *(_by_source(f, source_names) for f in (records, chosen))),
        _shares(
            "difficulty",
            ["set aside" if arm < 0 else str(arm) for arm in arms],
            *([int((f["difficulty"] == arm).sum()) for arm in arms] for f in (records, chosen)),
        ),
        _shares(
            "tokens",
            [f"{a}-{b}" for a, b in itertools.pairwise(edges)],
            *(np.histogram(f["tokens"], edges)[0].tolist() for f in (records, chosen)),
        ),
    ]
    data = pd.concat(parts, ignore_index=True)

    def draw(figure: Figure) -> None:
        heights = [0.9 + 0.3 * len(source_names), 2.4]
        halves: Any = figure.subfigures(2, 1, height_ratios=heights)  # names need room above only
        by_source = halves[0].subplots()
        by_difficulty, by_length = halves[1].subplots(1, 2)
        _paired_bars(by_source, parts[0], horizontal=True)
        by_source.set(title="By source", xlabel="share of records")
        by_source.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
        _paired_bars(by_difficulty, parts[1], horizontal=False)
        by_difficulty.set(
            title="By difficulty", xlabel="difficulty cluster", ylabel="share of records"
        )
        by_length.stairs(parts[2]["pool_share"], edges, fill=True, color=LIGHT)
        by_length.stairs(parts[2]["selected_share"], edges, color=DARK, linewidth=1.8)
        by_length.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        by_length.set(title="By length", xlabel="tokens", ylabel="share of records")

    return Plot(
        "composition",
        "Selected against pool",
        f"Shares of the {len(records):,} records of the pool (light) and of the {len(chosen):,} "
        "selected ones (dark), each adding up to 100 %.",
        data,
        render_png(draw, height=4.0 + 0.3 * len(source_names)),
    )


def _shares(
    kind: str, groups: Sequence[str], pool: Sequence[int], selected: Sequence[int]
) -> pd.DataFrame:
    frame = pd.DataFrame({"by": kind, "group": groups, "pool": pool, "selected": selected})
    for column in ("pool", "selected"):
        frame[f"{column}_share"] = frame[column] / max(frame[column].sum(), 1)
    return frame


def _largest(sources: pd.Series[str]) -> list[str]:
    """Return the names of the largest sources; the rest is one group, `other`, at the end."""
    counts = sources.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if len(counts) <= MOST_SOURCES:
        return list(counts.index)
    return [*counts.index[: MOST_SOURCES - 1], f"other ({len(counts) - MOST_SOURCES + 1})"]


def _by_source(records: pd.DataFrame, names: Sequence[str]) -> list[int]:
    counts = records["source"].value_counts()
    named = [int(counts.get(name, 0)) for name in names]
    named[-1] += len(records) - sum(named)
    return named


def _paired_bars(axes: Axes, shares: pd.DataFrame, *, horizontal: bool) -> None:
    """Draw pool and selection side by side for each group."""
    places = np.arange(len(shares))
    groups = [_short(group) for group in shares["group"]]
    if horizontal:
        places = places[::-1]
        axes.barh(places + 0.2, shares["pool_share"], 0.38, color=LIGHT, label="pool")
        axes.barh(places - 0.2, shares["selected_share"], 0.38, color=DARK, label="selected")
        axes.set_yticks(places, groups)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.margins(y=0.02)
        axes.grid(False, axis="y")
    else:
        axes.bar(places - 0.2, shares["pool_share"], 0.38, color=LIGHT, label="pool")
        axes.bar(places + 0.2, shares["selected_share"], 0.38, color=DARK, label="selected")
        axes.set_xticks(places, [textwrap.fill(group, 5) for group in groups])
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.grid(False, axis="x")


def _sensible_limit(values: pd.Series[float]) -> float:
    """Return an upper limit that shows all values, unless a few lie far out."""
    largest = float(values.max())
    return 1.05 * min(largest, 1.5 * float(values.quantile(0.99))) or 1.0


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"

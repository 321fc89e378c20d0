"""The tables of the confirming runs: the proposed rule against random choice, pool by pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lead_core.comparison.plots import LINES
from lead_core.errors import LeadError
from lead_core.plots import INK, render_png
from lead_core.published.comparison import wrong_responses
from lead_core.published.kept_losses import losses_by_seed
from lead_core.published.markdown import interval, markdown_table
from lead_core.statistics import PairedDifference, holm, paired_difference, paired_t_p
from lead_core.storage import read_json

PROPOSED = "informative"
GOAL = 1.25  # times the baseline's gain, see docs/informative.md
_BESIDE = ("stratified", "longest", "lead-paper", "full")
_POOLS = {  # of the confirmation, with the folder of its comparison
    "reference": "reference/7c56d46663ea26d8",
    "reference, learning rate 1e-3": "confirm-reference/*",
    "clean, balanced": "confirm-clean/*",
    "docstrings": "confirm-docstrings/*",
    "mixed, other dirt": "confirm-mixed/*",
    "ShareGPT": "confirm-sharegpt/*",
    "ShareGPT, 2 % blank responses": "sharegpt-blank/*",
}


def confirmation(results: Path) -> str:
    """Return the proposed rule against the baseline on each pool, as one family of tests.

    Pools that were not run with it are left out. Raises LeadError for a pool with two comparisons.
    """
    return _confirmation(results, beside=_BESIDE)


def confirmation_short(results: Path) -> str:
    """Return `confirmation` without the other selectors."""
    return _confirmation(results, beside=())


def _confirmation(results: Path, *, beside: Sequence[str]) -> str:
    found = _found(results)
    if not found:
        return "No confirming comparison is kept yet."
    pairs = {
        pool: PairedDifference(**table["rows"][PROPOSED]["versus"]) for pool, table in found.items()
    }
    known = {pool: p for pool, pair in pairs.items() if (p := paired_t_p(pair)) is not None}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    heads = {
        "pool": "---",
        "seeds": "---:",
        "base": "---:",
        "`random`": "---:",
        f"`{PROPOSED}`": "---:",
        "minus `random`, paired 95 %": "---",
        "p (Holm)": "---:",
        "gain, times `random`'s": "---:",
        **{f"`{name}`": "---:" for name in beside},
        f"wrong responses picked, `{PROPOSED}` / `random`": "---:",
        f"tokens, `{PROPOSED}` / `random`": "---:",
    }
    lines = [
        _confirming_row(pool, table, pairs[pool], corrected.get(pool), beside)
        for pool, table in found.items()
    ]
    return markdown_table(heads, lines) + (
        "\n\nHeld-out loss in nats per response token, macro average over sources; means over seeds"
        + (", in brackets their number where it is another." if beside else ".")
    )


def confirmation_picture(results: Path) -> bytes | None:
    """Return each selector's difference to random choice on each pool, as PNG; None without pools."""
    found = _found(results)
    if not found:
        return None
    shown = (PROPOSED, *(name for name in _BESIDE if name != "full"))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.8)
        for number, (name, style) in enumerate(zip(shown, LINES, strict=False)):
            pairs = {
                -place - 0.18 * (number - 1.5): PairedDifference(**table["rows"][name]["versus"])
                for place, table in enumerate(found.values())
                if name in table["rows"]
            }
            reach = [0.0 if p.high is None else p.high - p.difference for p in pairs.values()]
            axes.errorbar(
                [pair.difference for pair in pairs.values()],
                list(pairs),
                xerr=reach,
                label=name,
                ms=5,
                capsize=2,
                **{**style, "linestyle": "none"},
            )
        axes.set_yticks([-place for place in range(len(found))], list(found))
        axes.grid(False, axis="y")
        axes.set_xlabel("held-out loss minus random's (nats per response token); left is better")
        figure.legend(loc="outside upper left", ncols=4)

    return render_png(draw, height=1.4 + 0.62 * len(found))


def confirmation_goals(results: Path) -> str:
    """Return by how much the proposed rule reaches what it had to, per pool, paired by seed."""
    heads = {
        "pool": "---",
        "seeds": "---:",
        f"gain beyond {GOAL} times `random`'s, 95 %": "---",
        "better than `stratified` by, 95 %": "---",
    }
    lines = []
    for pool, table in _found(results).items():
        (path,) = results.glob(f"{_POOLS[pool]}/comparison.json")  # one, as `_confirming` says
        losses = losses_by_seed(path.parent)
        proposed, base = losses[PROPOSED], table["base_loss"]
        shared = sorted(set(proposed) & set(losses["random"]))
        wanted = [base - GOAL * (base - losses["random"][seed]) for seed in shared]
        beyond = paired_difference([proposed[seed] for seed in shared], wanted)
        beside = losses.get("stratified", {})
        both = sorted(set(proposed) & set(beside))
        better = (
            paired_difference([proposed[seed] for seed in both], [beside[seed] for seed in both])
            if both
            else None
        )
        lines.append([pool, str(len(shared)), interval(beyond), interval(better)])
    return markdown_table(heads, lines) + "\n\nNats per response token; above 0 is what was wanted."


def _found(results: Path) -> dict[str, dict[str, Any]]:
    """Return the comparisons, by pool, that the proposed rule is in."""
    tables = {pool: _confirming(results, pattern) for pool, pattern in _POOLS.items()}
    return {pool: table for pool, table in tables.items() if table and PROPOSED in table["rows"]}


def _confirming(results: Path, pattern: str) -> dict[str, Any] | None:
    """Return the comparison kept in the folder `pattern` with its rows by selector, if there is one."""
    paths = sorted(results.glob(f"{pattern}/comparison.json"))
    if len(paths) > 1:
        raise LeadError(
            f"results: {pattern} holds {len(paths)} comparisons, expected one of a pool: "
            f"{', '.join(path.parent.name for path in paths)}"
        )
    if not paths:
        return None
    table = read_json(paths[0], made_by="lead compare")
    return {**table, "rows": {row["selector"]: row for row in table["rows"]}}


def _confirming_row(
    pool: str,
    table: Mapping[str, Any],
    pair: PairedDifference,
    p: float | None,
    beside: Sequence[str],
) -> list[str]:
    rows, base = table["rows"], table["base_loss"]
    others = []
    for name in beside:
        row = rows.get(name)
        seeds = "" if row is None or len(row["seeds"]) == pair.n else f" ({len(row['seeds'])})"
        others.append("" if row is None else f"{row['loss']:.3f}{seeds}")
    both = rows[PROPOSED], rows["random"]
    wrong = [wrong_responses(row["picked"]) for row in both]
    gain = base - pair.base
    return [
        pool,
        str(pair.n),
        f"{base:.3f}",
        f"{pair.base:.3f}",
        f"**{pair.tuned:.3f}**",
        interval(pair),
        "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
        f"{(base - pair.tuned) / gain:.2f}" if gain > 0 else "",
        *others,
        " / ".join(f"{sum(shares.values()):.0%}" for shares in wrong if shares),
        " / ".join(f"{row['tokens']['training']:,.0f}" for row in both),
    ]

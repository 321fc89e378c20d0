"""The fidelity benchmark's result over seeds: a table, the targets it reaches, where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lead_core.fidelity import GROUPS, LAST_SEEN, STALE

TARGETS = {"trained": 0.95, "unvisited": 0.90}  # Spearman after TARGET_ROUNDS rounds, LEAD.md
TARGET_ROUNDS = 12
NAIVE = (STALE, LAST_SEEN)
FIGURES = ("spearman", "mae", "bias")


def figures_frame(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row per seed, round, group and estimator: spearman, mae, bias, n.

    A figure that is not defined is NaN; a group without samples has no row.
    """
    rows = [
        {
            "seed": result["seed"],
            "round": row["round"],
            "group": group,
            "estimator": name,
            **figures,
        }
        for result in results
        for row in result["rounds"]
        for group in GROUPS
        for name, figures in row["groups"][group]["estimators"].items()
        if figures is not None
    ]
    columns = ["seed", "round", "group", "estimator", *FIGURES, "n"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(FIGURES, float))


def last_rounds(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `frame` that belong to the last round of their seed."""
    return frame[frame["round"] == frame.groupby("seed")["round"].transform("max")]


def rounds_reached(results: Sequence[dict[str, Any]]) -> int:
    """Return after how many rounds every seed was still measured."""
    return min(result["rounds"][-1]["round"] for result in results)


def judge(means: pd.DataFrame, name: str, rounds: int) -> dict[str, str]:
    """Return, per target, whether the estimator `name` reaches it after `rounds` rounds.

    means: figures by (group, estimator). The Spearman targets are defined from `TARGET_ROUNDS` on; to
    beat a naive estimate, which is to rank better and to err less, is asked after any round.
    """
    verdicts = {}
    for group, target in TARGETS.items():
        value = _figure(means, group, name, "spearman")
        verdict = "reached" if value is not None and value >= target else "missed"
        if rounds < TARGET_ROUNDS:
            verdict = f"not applicable before round {TARGET_ROUNDS}"
        shown = "not defined" if value is None else f"{value:.3f}"
        verdicts[f"Spearman of {group} samples at least {target:.2f}"] = f"{verdict} ({shown})"
    for group, naive in (("trained", STALE), ("trained", LAST_SEEN), ("unvisited", STALE)):
        verdicts[f"{group} samples: better than {naive}"] = _against(means, group, name, naive)
    return verdicts


def _against(means: pd.DataFrame, group: str, name: str, naive: str) -> str:
    """Return whether `name` beats `naive` in both rank correlation and error, and if not, in what."""
    gains: dict[str, float] = {}
    for figure, sign in (("spearman", 1), ("mae", -1)):
        ours, theirs = (_figure(means, group, rule, figure) for rule in (name, naive))
        if ours is None or theirs is None:
            return "not defined"
        gains[figure] = sign * (ours - theirs)
    if not any(gains.values()):
        return "missed (equal)"
    behind = [
        label for figure, label in (("spearman", "Spearman"), ("mae", "MAE")) if gains[figure] <= 0
    ]
    return f"missed ({' and '.join(behind)})" if behind else "reached"


def _figure(means: pd.DataFrame, group: str, name: str, figure: str) -> float | None:
    value = means[figure].get((group, name))
    return None if value is None or pd.isna(value) else float(value)


def markdown(results: Sequence[dict[str, Any]], command: str) -> str:
    """Return the table over seeds after the last round, the targets, and how to make them again."""
    first = results[0]
    frame = figures_frame(results)
    last = last_rounds(frame)
    means = last.groupby(["group", "estimator"])[list(FIGURES)].mean()
    configured = first["configured"]
    names = first["estimators"]
    numbers = ", ".join(str(result["seed"]) for result in results)
    seeds = f"seed{'s' if len(results) > 1 else ''} {numbers}"
    rounds = ", ".join(str(n) for n in sorted(set(last["round"])))
    lines = [
        "# Fidelity of IDU",
        "",
        f"Estimated against true losses after round {rounds}: selector `{first['selector']}`, "
        f"pool of {first['pool_size']:,} records, {seeds}; mean over seeds [lowest, highest]. "
        "MAE and bias (estimate minus truth) in nats per response token. "
        "The setting of `params.yaml`, with what the selector fixes, is in bold. "
        f"{_trained_on(results)}",
        "",
    ]
    for group in TARGETS:
        lines += _group_table(last[last["group"] == group], group, names, configured)
    verdicts = {
        name: judge(means, name, rounds_reached(results)) for name in names if name not in NAIVE
    }
    lines += _target_table(verdicts, configured)
    lines += ["", "## Train and eval mode", "", _mode_gap(results, frame), "", "## Made by", ""]
    lines += ["```", command, "```", ""]
    commits = sorted({result["commit"] or "no commit" for result in results})
    lines += [
        f"Commit {', '.join(commits)}; pool {first['hashes']['pool_sha256'][:12]}, "
        f"model {first['hashes']['model_sha256'][:12]}. "
        "All rounds, figures and parameters: `fidelity-seed*.json` beside this file.",
        "",
    ]
    return "\n".join(lines)


def _trained_on(results: Sequence[dict[str, Any]]) -> str:
    counts = sorted({result["trajectory"]["distinct"] for result in results})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{span} distinct samples were trained on."


def _group_table(
    rows: pd.DataFrame, group: str, names: Sequence[str], configured: str
) -> list[str]:
    counts = rows.groupby("seed")["n"].first()
    samples = f"{counts.mean():.0f} samples per seed" if len(counts) else "no samples"
    lines = [
        f"## {group.capitalize()} samples ({samples})",
        "",
        "| estimate | Spearman | MAE | bias |",
        "|---|---:|---:|---:|",
    ]
    by_name = dict(list(rows.groupby("estimator")))
    for name in names:
        own = by_name.get(name)
        cells = ["" if own is None else _spread(own[figure]) for figure in FIGURES]
        lines.append(f"| {_label(name, configured)} | {' | '.join(cells)} |")
    return [*lines, ""]


def _target_table(verdicts: Mapping[str, Mapping[str, str]], configured: str) -> list[str]:
    """Return the verdicts per estimate and target as a table."""
    heads = list(verdicts[configured])
    lines = ["## Targets", "", f"| estimate | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for name, of_target in verdicts.items():
        cells = " | ".join(of_target.values())
        lines.append(f"| {_label(name, configured)} | {cells} |")
    return lines


def _label(name: str, configured: str) -> str:
    return f"**{name}**" if name == configured else name


def _spread(values: pd.Series[float]) -> str:
    """Return ``mean [lowest, highest]`` over seeds; the mean alone for one."""
    known = values.dropna()
    if not len(known):
        return "not defined"
    if len(known) == 1:
        return f"{known.iloc[0]:.3f}"
    return f"{known.mean():.3f} [{known.min():.3f}, {known.max():.3f}]"


def _mode_gap(results: Sequence[dict[str, Any]], frame: pd.DataFrame) -> str:
    """Say how far losses seen in training lie from true ones, in two ways."""
    gaps = [row["seen_minus_true_before"] for result in results for row in result["rounds"]]
    n = sum(gap["n"] for gap in gaps)
    dropout = results[0]["params"]["train"]["lora"]["dropout"]
    fresh = frame[(frame["group"] == "fresh") & (frame["estimator"] == LAST_SEEN)]
    last_seen = (fresh["bias"] * fresh["n"]).sum() / fresh["n"].sum()
    before = "not known for any sample"
    if n:
        mean = sum(gap["mean"] * gap["n"] for gap in gaps if gap["n"]) / n
        before = f"{mean:+.4f} nats/token ({n} samples)"
    return (
        f"LoRA dropout {dropout:g}. Loss seen in a round's first step minus the true loss just before "
        f"it: {before}. Loss seen in a round minus the true loss after it: {last_seen:+.4f} nats/token "
        f"({fresh['n'].sum()} samples); that one holds what the round taught as well."
    )

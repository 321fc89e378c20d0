"""The tables of README.md and docs/, from the files under `results/`.

``python -m lead_core.published`` writes them anew between their marks, ``<!-- results: NAME -->`` and
``<!-- end of NAME -->``; a test keeps the pages current.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lead_core.errors import LeadError
from lead_core.evaluation_record import MADE_BY, read_evaluations
from lead_core.fidelity_report import FIGURES, figures_frame, last_rounds
from lead_core.records import Reason
from lead_core.statistics import PairedDifference, holm, paired_difference, paired_t_p
from lead_core.storage import read_json, write_text

PAGES = ("README.md", "docs/informative.md", "docs/operations.md", "docs/results.md")
COMPARISON = "reference/7c56d46663ea26d8/comparison.json"
FIDELITY = "fidelity"
BENCHMARKS = "benchmarks"
FAULTS = "faults/faults.json"
SIGNIFICANT = 0.05
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
}
_MARKED = re.compile(
    r"(?P<head><!-- results: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end of (?P=name) -->)",
    re.DOTALL,
)
_ESTIMATES = {  # of the fidelity benchmark's eleven, those that the pages tell apart
    "stale": "offline loss, never updated",
    "last_seen": "loss last seen in training",
    "paper/remaining, b=0.1": "IDU, published formula (`paper`)",
    "displacement/remaining, b=0.1": "IDU, real displacement (`displacement`, shipped)",
    "displacement/remaining, b=0": "the same without smoothing (b = 0)",
    "displacement/remaining, b=0.1 + drift": "the same with cluster drift",
}
_JUDGED = {  # column -> (task, metric) of an evaluation
    "MMLU, accuracy": ("mmlu", "acc"),
    "GSM8K, exact match": ("gsm8k_cot", "exact_match,strict-match"),
    "GSM8K, last number": ("gsm8k_cot", "exact_match,flexible-extract"),
    "HumanEval, pass@1": ("humaneval", "pass@1,create_test"),
    "held-out choice, accuracy": ("lead_heldout_choice", "acc"),
    "held-out loss": ("lead_heldout", "loss"),
}


def fill(page: str, results: Path) -> str:
    """Return `page` with every marked table written anew from the folder `results`.

    Raises LeadError for a mark whose name is none of a table's.
    """

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise LeadError(f"results: {name} is none of {', '.join(TABLES)}")
        return f"{match['head']}\n{TABLES[name](results)}\n\n{match['end']}"

    return _MARKED.sub(table, page)


def comparison_cost(results: Path) -> str:
    """Return selectors with held-out losses, intervals and what each forwarded."""
    found = read_json(results / COMPARISON, made_by="lead compare")
    heads = {
        **_result_heads(found),
        "of `full`'s gain": "---:",
        "forwards: offline / to select / in training": "---:",
        "tokens trained on": "---:",
        "seconds": "---:",
    }
    rows = [
        [
            *_result(row),
            "" if row["recovered"] is None else f"{row['recovered']:.0%}",
            " / ".join(
                f"{row['forwards'][column]:,.0f}" for column in ("offline", "selection", "training")
            ),
            f"{row['tokens']['training']:,.0f}",
            "" if row["seconds"] is None else f"{row['seconds']:,.0f}",
        ]
        for row in found["rows"]
    ]
    speed = found["throughput"]
    seconds = (
        ""
        if speed is None
        else (
            f" Seconds: offline pass included, at {speed['forward']:.0f} tokens/s forward and "
            f"{speed['training']:.0f} in training, the medians of these trainings."
        )
    )
    return _table(heads, rows) + f"\n\n{_base(found)}{seconds}"


def comparison_picks(results: Path) -> str:
    """Return selectors with held-out losses, intervals and what each picked."""
    found = read_json(results / COMPARISON, made_by="lead compare")
    faults = _faults(found["pool_faults"])
    heads = {
        **_result_heads(found),
        **{f"{fault} picked": "---:" for fault in faults},
        "distinct / visits": "---:",
        "tokens trained on": "---:",
    }
    rows = [
        [
            *_result(row),
            *(f"{share:.0%}" for share in _faults(row["picked"]).values()),
            f"{row['distinct']:,.0f} / {row['visits'][1]:,}",
            f"{row['tokens']['training']:,.0f}",
        ]
        for row in found["rows"]
    ]
    shares = ", ".join(f"{share:.0%} {fault}" for fault, share in faults.items())
    return (
        _table(heads, rows) + f"\n\n{_base(found)}" + (f" In the pool: {shares}." if shares else "")
    )


def _faults(shares: Mapping[str, float]) -> dict[str, float]:
    """Return planted faults by how they are told: wrong responses in one sum, near-duplicates apart.

    shares: by `dirt.Kind`. A kind that is the only one of wrong responses keeps its name.
    """
    wrong = _wrong(shares)
    told = {}
    if wrong:
        name = next(iter(wrong)).replace("_", " ") if len(wrong) == 1 else "wrong responses"
        told[name] = sum(wrong.values())
    if "near_duplicate" in shares:
        told["near-duplicates"] = shares["near_duplicate"]
    return told


def _wrong(shares: Mapping[str, float]) -> dict[str, float]:
    return {kind: share for kind, share in shares.items() if kind != "near_duplicate"}


def _result_heads(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of `_result`, with their alignment."""
    return {
        "selector": "---",
        "seeds": "---:",
        "held-out loss": "---:",
        f"minus `{found['baseline']}`, paired 95 %": "---",
        "finding": "---",
    }


def _result(row: Mapping[str, Any]) -> list[str]:
    spread = "" if row["spread"] is None else f" ± {row['spread']:.3f}"
    pair = row["versus"]
    interval = _interval(None if pair is None else PairedDifference(**pair))
    return [
        f"`{row['selector']}`",
        str(len(row["seeds"])),
        f"{row['loss']:.3f}{spread}",
        interval,
        row["verdict"] or "baseline",
    ]


def _base(found: Mapping[str, Any]) -> str:
    missing = found["wanted"] - found["found"]
    state = f" {found['found']} of {found['wanted']} trainings are in." if missing else ""
    return (
        f"Base model: {found['base_loss']:.3f} nats per response token (macro average over three "
        f"sources); mean ± standard deviation over seeds, intervals paired by seed. Share of `full`'s "
        f"gain: over the seeds that `full` has too.{state}"
    )


def fidelity(results: Path) -> str:
    """Return how close estimates of the current loss are to it, means over seeds."""
    found = [
        read_json(path, made_by="lead fidelity")
        for path in sorted((results / FIDELITY).glob("fidelity-seed*.json"))
    ]
    last = last_rounds(figures_frame(found))
    means = last.groupby(["group", "estimator"])[list(FIGURES)].mean()
    heads = {f"estimate of the current loss, after {found[0]['rounds'][-1]['round']} rounds": "---"}
    groups = ("trained", "unvisited")
    for group in groups:
        heads |= {f"{group}: Spearman": "---:", f"{group}: MAE": "---:"}
    rows = [
        [text, *(_figure(means, group, name, f) for group in groups for f in ("spearman", "mae"))]
        for name, text in _ESTIMATES.items()
    ]
    seeds = ", ".join(str(result["seed"]) for result in found)
    return _table(heads, rows) + (
        f"\n\nMean over seed{'s' if len(found) > 1 else ''} {seeds}; MAE in nats per response token."
    )


def confirmation(results: Path) -> str:
    """Return the proposed rule against the baseline on each pool, as one family of tests.

    Pools that were not run with it are left out. Raises LeadError for a pool with two comparisons.
    """
    return _confirmation(results, beside=_BESIDE)


def confirmation_short(results: Path) -> str:
    """Return `confirmation` without the other selectors."""
    return _confirmation(results, beside=())


def _confirmation(results: Path, *, beside: Sequence[str]) -> str:
    tables = {pool: _confirming(results, pattern) for pool, pattern in _POOLS.items()}
    found = {pool: table for pool, table in tables.items() if table and PROPOSED in table["rows"]}
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
    return _table(heads, lines) + (
        "\n\nHeld-out loss in nats per response token, macro average over sources; means over seeds"
        + (", in brackets their number where it is another." if beside else ".")
    )


def confirmation_goals(results: Path) -> str:
    """Return by how much the proposed rule reaches what it had to, per pool, paired by seed."""
    heads = {
        "pool": "---",
        "seeds": "---:",
        f"gain beyond {GOAL} times `random`'s, 95 %": "---",
        "better than `stratified` by, 95 %": "---",
    }
    lines = []
    for pool, pattern in _POOLS.items():
        table = _confirming(results, pattern)
        if table is None or PROPOSED not in table["rows"]:
            continue
        losses = _losses(results, pattern)
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
        lines.append([pool, str(len(shared)), _interval(beyond), _interval(better)])
    return _table(heads, lines) + "\n\nNats per response token; above 0 is what was wanted."


def _losses(results: Path, pattern: str) -> dict[str, dict[int, float]]:
    """Return the macro held-out losses of a kept comparison: selector -> seed -> loss."""
    losses: dict[str, dict[int, float]] = {}
    for path in sorted(results.glob(f"{pattern}/cells/*.json")):
        cell = read_json(path, made_by="lead compare")
        losses.setdefault(cell["selector"], {})[cell["seed"]] = cell["heldout"]["macro"]
    return losses


def _interval(pair: PairedDifference | None) -> str:
    if pair is None:
        return ""
    if pair.low is None or pair.high is None:
        return f"{pair.difference:+.3f}"
    return f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"


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
    wrong = [_wrong(row["picked"]) for row in both]
    gain = base - pair.base
    return [
        pool,
        str(pair.n),
        f"{base:.3f}",
        f"{pair.base:.3f}",
        f"**{pair.tuned:.3f}**",
        _result(rows[PROPOSED])[3],
        "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
        f"{(base - pair.tuned) / gain:.2f}" if gain > 0 else "",
        *others,
        " / ".join(f"{sum(shares.values()):.0%}" for shares in wrong if shares),
        " / ".join(f"{row['tokens']['training']:,.0f}" for row in both),
    ]


def benchmarks(results: Path) -> str:
    """Return the base model and those tuned on each selector's choice, judged by benchmarks."""
    found = read_evaluations(results / BENCHMARKS)
    if not found:
        return f"No run is kept yet: `{MADE_BY}`."
    tasks = found[0]["results"]["tasks"]
    heads = {"trained on the choice of": "---", "training samples": "---:"}
    heads |= {f"{name} ({tasks[task]['n']})": "---:" for name, (task, _) in _JUDGED.items()}
    rows = [["nobody: the base model", "", *_judged(found[0], "base")]]
    for record in found:
        selector, visits = record["training"]["selector"], record["training"]["visits"]
        rows.append([f"`{selector}`", f"{visits:,}", *_judged(record, "tuned")])
    pool = found[0]["pool"]
    return _table(heads, rows) + (
        "\n\nMean ± standard error over so many documents; loss in nats per response token. Bold: "
        "differs from the base model on the same documents, by the exact McNemar test (p < "
        f"{SIGNIFICANT}) where answers are right or wrong, by the paired 95 % interval for losses. "
        f"Seed {found[0]['training']['seed']}, {pool['kept']:,} records to choose from; "
        f"{pool['rejected_by_reason'].get(Reason.CONTAMINATED, 0)} others had been removed because "
        "they overlap with the benchmarks."
    )


def _judged(record: Mapping[str, Any], row: str) -> list[str]:
    """Return the figures of one row, base or tuned, with errors; bold where tuned differs from base."""
    texts = []
    for task, metric in _JUDGED.values():
        found = record["results"]["tasks"][task]
        text = f"{found[row][metric]:.3f} ± {found[f'{row}_stderr'][metric]:.3f}"
        pair = record["results"]["paired"][f"{task}/{metric}"]
        texts.append(f"**{text}**" if row == "tuned" and _differs(pair) else text)
    return texts


def _differs(pair: Mapping[str, Any]) -> bool:
    if pair["mcnemar_p"] is None:
        return not pair["low"] <= 0 <= pair["high"]
    return bool(pair["mcnemar_p"] < SIGNIFICANT)


def faults(results: Path) -> str:
    """Return what the fault suite injected and survived, by the name of its tests.

    A file without any fault, or none at all, says how to make one.
    """
    path = results / FAULTS
    found = read_json(path, made_by="make faults") if path.exists() else {"faults": []}
    if not found["faults"]:
        return "No run is kept yet: `make faults`."
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for fault in found["faults"]:
        rows.setdefault(fault["name"], []).append(fault)
    heads = {
        "fault, and what has to hold": "---",
        "injected": "---:",
        "survived": "---:",
        "seconds lost": "---:",
    }
    lines = [[name, *_survived(group)] for name, group in rows.items()]
    lines.append(["**in all**", *_survived(found["faults"])])
    missing = found["faults_planned"] - found["faults_injected"]
    state = f" {missing} more of the suite did not come to be injected." if missing else ""
    return _table(heads, lines) + (
        f"\n\nCommit `{found['commit'][:12]}`. Seconds lost: what was interrupted and its rerun took "
        f"longer than an undisturbed run, where that was timed.{state}"
    )


def _survived(group: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how many faults were injected and survived, and the seconds lost if any were timed."""
    lost = [fault["seconds_lost"] for fault in group if fault["seconds_lost"] is not None]
    survived = sum(fault["survived"] for fault in group)
    return [str(len(group)), str(survived), f"{sum(lost):,.0f}" if lost else ""]


def _figure(means: pd.DataFrame, group: str, name: str, figure: str) -> str:
    return f"{means[figure][(group, name)]:.3f}"


def _table(heads: Mapping[str, str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; heads: column -> its alignment."""
    lines = [list(heads), list(heads.values()), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES: dict[str, Callable[[Path], str]] = {
    "comparison-cost": comparison_cost,
    "comparison-picks": comparison_picks,
    "fidelity": fidelity,
    "benchmarks": benchmarks,
    "faults": faults,
    "confirmation": confirmation,
    "confirmation-short": confirmation_short,
    "confirmation-goals": confirmation_goals,
}


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    for page in PAGES:
        path = root / page
        write_text(path, fill(path.read_text(encoding="utf-8"), root / "results"))

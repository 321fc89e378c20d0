"""What a comparison found: one row per selector, held against the baseline seed by seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lead_core.selectors import get_selector
from lead_core.statistics import PairedDifference, paired_difference

FULL = "full"
NO_DIFFERENCE = "no significant difference"


@dataclass(frozen=True)
class Row:
    """One selector over its seeds; losses are macro held-out losses in nats per response token.

    spread: standard deviation over seeds (None: one seed). versus: paired by seed with the baseline,
    None for the baseline itself. recovered: share of `full`'s gain over the base model (None without
    `full`). picked: planted faults as share of the training samples, by kind. forwards and tokens: the
    cost ledger, means per training; the offline pass counts for selectors that need it.
    """

    selector: str
    seeds: tuple[int, ...]
    loss: float
    spread: float | None
    versus: PairedDifference | None
    verdict: str
    recovered: float | None
    picked: dict[str, float]
    distinct: float
    visits: float
    steps: float
    forwards: dict[str, float]
    tokens: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """All rows, best first, and what they are held against.

    pool_faults: planted faults as share of the pool, by kind.
    """

    baseline: str
    base_loss: float
    heldout_records: int
    pool_faults: dict[str, float]
    rows: tuple[Row, ...]


def compare(
    cells: Sequence[Mapping[str, Any]], base: Mapping[str, Any], *, baseline: str, pool_records: int
) -> Comparison:
    """Return the comparison of finished `cells` (as `comparison.describe_cell` made them).

    Raises ValueError without a cell of the baseline.
    """
    by_selector: dict[str, dict[int, Mapping[str, Any]]] = {}
    for cell in cells:
        by_selector.setdefault(cell["selector"], {})[cell["seed"]] = cell
    if baseline not in by_selector:
        raise ValueError(f"no cell of the baseline {baseline}")
    base_loss = base["heldout"]["macro"]
    full = by_selector.get(FULL)
    full_gain = base_loss - _mean_loss(full.values()) if full else None
    rows = [
        _row(name, found, by_selector[baseline], baseline, base_loss, full_gain)
        for name, found in by_selector.items()
    ]
    some = next(iter(by_selector[baseline].values()))
    return Comparison(
        baseline=baseline,
        base_loss=base_loss,
        heldout_records=base["heldout"]["records"],
        pool_faults={kind: n["pool"] / pool_records for kind, n in some["planted"].items()},
        rows=tuple(sorted(rows, key=lambda row: row.loss)),
    )


def _row(
    name: str,
    found: Mapping[int, Mapping[str, Any]],
    against: Mapping[int, Mapping[str, Any]],
    baseline: str,
    base_loss: float,
    full_gain: float | None,
) -> Row:
    cells = [found[seed] for seed in sorted(found)]
    losses = [cell["heldout"]["macro"] for cell in cells]
    loss = statistics.fmean(losses)
    versus = None
    shared = sorted(set(found) & set(against))
    if name != baseline and shared:
        versus = paired_difference(
            [against[seed]["heldout"]["macro"] for seed in shared],
            [found[seed]["heldout"]["macro"] for seed in shared],
        )
    ledger = _spent(name, cells)
    return Row(
        selector=name,
        seeds=tuple(sorted(found)),
        loss=loss,
        spread=statistics.stdev(losses) if len(losses) > 1 else None,
        versus=versus,
        verdict="" if name == baseline else verdict(versus, baseline),
        recovered=(base_loss - loss) / full_gain if full_gain else None,
        picked={
            kind: statistics.fmean(
                cell["planted"][kind]["visits"] / cell["visits"] for cell in cells
            )
            for kind in cells[0]["planted"]
        },
        distinct=statistics.fmean(cell["distinct"] for cell in cells),
        visits=statistics.fmean(cell["visits"] for cell in cells),
        steps=statistics.fmean(cell["steps"] for cell in cells),
        forwards={column: spent["sequences"] for column, spent in ledger.items()},
        tokens={column: spent["tokens"] for column, spent in ledger.items()},
    )


def verdict(versus: PairedDifference | None, baseline: str) -> str:
    """Say in words what a paired interval shows: lower loss is better."""
    if versus is None or versus.low is None or versus.high is None:
        return "too few seeds for an interval"
    if versus.high < 0:
        return f"better than {baseline}"
    return f"worse than {baseline}" if versus.low > 0 else NO_DIFFERENCE


def _spent(name: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean sequences and tokens per ledger column."""
    spent = {
        column: {
            unit: statistics.fmean(cell["ledger"][column][unit] for cell in cells)
            for unit in ("sequences", "tokens")
        }
        for column in ("offline", "selection", "training")
    }
    if not get_selector(name).reads_scores:
        spent["offline"] = {"sequences": 0.0, "tokens": 0.0}
    return spent


def _mean_loss(cells: Any) -> float:
    return statistics.fmean(cell["heldout"]["macro"] for cell in cells)


def as_markdown(found: Comparison) -> str:
    """Return the comparison as a Markdown table with a sentence on how to read it."""
    kinds = sorted(found.pool_faults)
    head = [
        "selector",
        "seeds",
        "held-out loss",
        f"minus {found.baseline}, paired 95 %",
        "finding",
        "of full's gain",
        *(f"{kind.replace('_', ' ')} picked" for kind in kinds),
        "distinct / visits / steps",
        "forwards: offline / select / train",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in found.rows:
        cells = [
            f"`{row.selector}`",
            str(len(row.seeds)),
            f"{row.loss:.4f}" + (f" ± {row.spread:.4f}" if row.spread is not None else ""),
            _interval(row.versus),
            row.verdict or "baseline",
            "" if row.recovered is None else f"{row.recovered:.0%}",
            *(f"{row.picked[kind]:.1%}" for kind in kinds),
            f"{row.distinct:.0f} / {row.visits:.0f} / {row.steps:.0f}",
            f"{row.forwards['offline']:,.0f} / {row.forwards['selection']:,.0f} / "
            f"{row.forwards['training']:,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    shares = ", ".join(f"{kind.replace('_', ' ')} {found.pool_faults[kind]:.1%}" for kind in kinds)
    shown = f" Faults in the pool: {shares}." if shares else ""
    lines += [
        "",
        f"Base model: {found.base_loss:.4f}. Loss: macro average over sources of "
        f"{found.heldout_records} held-out records, nats per response token, mean ± standard deviation "
        f"over seeds. Differences are paired by seed with `{found.baseline}` (t intervals over seeds, "
        f"each at 95 %, not corrected for their number).{shown}",
    ]
    return "\n".join(lines) + "\n"


def _interval(pair: PairedDifference | None) -> str:
    if pair is None:
        return ""
    if pair.low is None or pair.high is None:
        return f"{pair.difference:+.4f}"
    return f"{pair.difference:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}]"

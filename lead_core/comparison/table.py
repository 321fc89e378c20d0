"""What a comparison found: one row per selector, held against the baseline seed by seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lead_core.comparison.influence import SpreadOverRecords, spread_over_records
from lead_core.errors import LeadError
from lead_core.selectors import get_selector
from lead_core.statistics import PairedDifference, paired_difference

Record = Mapping[str, Any]  # as `record.describe_cell` makes them, with their origin

FULL = "full"
NO_DIFFERENCE = "no significant difference"
FEWEST_PAIRS = 3  # for a finding: with two, nearly every interval holds zero
BY_RECORD = ("without the record that moves it most", "lower on, of records")
COLUMNS = ("offline", "selection", "training", "evaluation")


@dataclass(frozen=True)
class Row:
    """One selector over its seeds; losses are macro held-out losses in nats per response token.

    spread: standard deviation over seeds (None: one seed). versus: paired with the baseline over the
    seeds that both have, None for the baseline itself. records: how that is spread over held-out
    records, None where cells have no losses by record. recovered: share of `full`'s gain over the
    base model, over the seeds that both have (None without). picked: planted faults as share of the
    training samples, by kind. visits, steps: (smallest, largest) over seeds. forwards and tokens: the
    cost ledger, means per training; the offline pass counts for the rules that read it. seconds: see
    `throughput` (None: not known).
    """

    selector: str
    seeds: tuple[int, ...]
    loss: float
    spread: float | None
    versus: PairedDifference | None
    records: SpreadOverRecords | None
    verdict: str
    recovered: float | None
    picked: dict[str, float]
    distinct: float
    visits: tuple[int, int]
    steps: tuple[int, int]
    forwards: dict[str, float]
    tokens: dict[str, float]
    seconds: float | None


@dataclass(frozen=True)
class ComparisonTable:
    """All rows, in order of their difference to the baseline, and what they are held against.

    wanted: trainings that the comparison asks for; there are `found`. pool_faults: planted faults as
    share of the pool, by kind. throughput: tokens per second, see `throughput`.
    """

    comparison: str
    baseline: str
    base_loss: float
    heldout_records: int
    pool_faults: dict[str, float]
    wanted: int
    found: int
    throughput: dict[str, float] | None
    origins: dict[str, list[str]]
    rows: tuple[Row, ...]


def tabulate_cells(
    cells: Sequence[Record], base: Record, *, baseline: str, pool_records: int, wanted: int
) -> ComparisonTable:
    """Return the table of finished `cells`, at least one of them the baseline's.

    Raises LeadError for cells that were measured in another way than the base model.
    """
    for cell in cells:
        if cell["measured"] != base["measured"]:
            raise LeadError(
                f"{cell['selector']}-seed{cell['seed']} was measured with {cell['measured']}, the base "
                f"model with {base['measured']}: their losses cannot be compared"
            )
    by_selector: dict[str, dict[int, Record]] = {}
    for cell in cells:
        by_selector.setdefault(cell["selector"], {})[cell["seed"]] = cell
    against = by_selector[baseline]
    base_loss = base["heldout"]["macro"]
    speed = throughput(cells)
    rows = [
        _row(name, found, against, baseline, base_loss, by_selector.get(FULL, {}), speed)
        for name, found in by_selector.items()
    ]
    some = next(iter(against.values()))
    return ComparisonTable(
        comparison=base["comparison"],
        baseline=baseline,
        base_loss=base_loss,
        heldout_records=base["heldout"]["records"],
        pool_faults={kind: n["pool"] / pool_records for kind, n in some["planted"].items()},
        wanted=wanted,
        found=len(cells),
        throughput=speed,
        origins=_origins(cells),
        rows=tuple(sorted(rows, key=_difference)),
    )


def _difference(row: Row) -> float:
    """Return by how much the loss exceeds the baseline's: means over other seeds do not compare."""
    return 0.0 if row.versus is None else row.versus.difference


def _row(
    name: str,
    found: Mapping[int, Record],
    against: Mapping[int, Record],
    baseline: str,
    base_loss: float,
    full: Mapping[int, Record],
    speed: Mapping[str, float] | None,
) -> Row:
    cells = [found[seed] for seed in sorted(found)]
    losses = [_loss(cell) for cell in cells]
    shared = sorted(set(found) & set(against))
    versus = records = None
    if name != baseline and shared:
        ours, theirs = [found[seed] for seed in shared], [against[seed] for seed in shared]
        versus = paired_difference(list(map(_loss, theirs)), list(map(_loss, ours)))
        records = spread_over_records(ours, theirs)
    ledger = _spent(name, cells)
    tokens = {column: spent["tokens"] for column, spent in ledger.items()}
    return Row(
        selector=name,
        seeds=tuple(sorted(found)),
        loss=statistics.fmean(losses),
        spread=statistics.stdev(losses) if len(losses) > 1 else None,
        versus=versus,
        records=records,
        verdict="" if name == baseline else _verdict(name, versus, baseline, found, against),
        recovered=_recovered(found, full, base_loss),
        picked={
            kind: statistics.fmean(
                cell["planted"][kind]["visits"] / cell["visits"] for cell in cells
            )
            for kind in cells[0]["planted"]
        },
        distinct=statistics.fmean(cell["distinct"] for cell in cells),
        visits=_range(cell["visits"] for cell in cells),
        steps=_range(cell["steps"] for cell in cells),
        forwards={column: spent["sequences"] for column, spent in ledger.items()},
        tokens=tokens,
        seconds=None
        if speed is None
        else (tokens["offline"] + tokens["selection"]) / speed["forward"]
        + tokens["training"] / speed["training"],
    )


def _loss(cell: Record) -> float:
    return float(cell["heldout"]["macro"])


def _range(values: Iterable[int]) -> tuple[int, int]:
    known = sorted(values)
    return known[0], known[-1]


def _recovered(
    found: Mapping[int, Record], full: Mapping[int, Record], base_loss: float
) -> float | None:
    """Return the share of `full`'s gain, over shared seeds; None without any, or without a gain."""
    shared = set(found) & set(full)
    if not shared:
        return None
    gain = base_loss - statistics.fmean(_loss(full[seed]) for seed in shared)
    if gain <= 0:
        return None
    return (base_loss - statistics.fmean(_loss(found[seed]) for seed in shared)) / gain


def _verdict(
    name: str,
    versus: PairedDifference | None,
    baseline: str,
    found: Mapping[int, Record],
    against: Mapping[int, Record],
) -> str:
    """Say what a paired interval shows (lower loss is better), and whether the budgets were equal."""
    unequal = [
        figure
        for figure in ("visits", "steps")
        if any(found[seed][figure] != against[seed][figure] for seed in set(found) & set(against))
    ]
    note = f"; other {' and '.join(unequal)}" if unequal and name != FULL else ""
    if versus is None or versus.low is None or versus.high is None or versus.n < FEWEST_PAIRS:
        return f"too few seeds for a finding{note}"
    if versus.high < 0:
        return f"better than {baseline}{note}"
    return f"{f'worse than {baseline}' if versus.low > 0 else NO_DIFFERENCE}{note}"


def _spent(name: str, cells: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return mean sequences and tokens per ledger column."""
    spent = {
        column: {
            unit: statistics.fmean(cell["ledger"][column][unit] for cell in cells)
            for unit in ("sequences", "tokens")
        }
        for column in COLUMNS
    }
    if not get_selector(name).reads_scores:
        spent["offline"] = {"sequences": 0.0, "tokens": 0.0}
    return spent


def throughput(cells: Sequence[Record]) -> dict[str, float] | None:
    """Return tokens per second, forwarded (`forward`) and trained on (`training`): medians over cells.

    None while a training or a scoring that was timed whole is missing.
    """
    speeds: dict[str, list[float]] = {"forward": [], "training": []}
    for cell in cells:
        seconds = cell["origin"].get("seconds", {})
        if seconds.get("offline"):
            speeds["forward"].append(cell["ledger"]["offline"]["tokens"] / seconds["offline"])
        if seconds.get("training"):
            speeds["training"].append(cell["tokens"] / seconds["training"])
    if not all(speeds.values()):
        return None
    return {name: statistics.median(values) for name, values in speeds.items()}


def _origins(cells: Sequence[Record]) -> dict[str, list[str]]:
    """Return the different commits and machines that the cells come from, and their libraries."""
    origins = [cell["origin"] for cell in cells]
    libraries = [
        f"{name} {version}"
        for origin in origins
        for name, version in origin.get("libraries", {}).items()
    ]
    return {
        "commits": sorted({str(origin.get("commit", "unknown"))[:12] for origin in origins}),
        "machines": sorted({str(origin.get("machine", "unknown")) for origin in origins}),
        "libraries": sorted(set(libraries)),
        "scores": sorted({cell["inputs"]["scores_sha256"][:12] for cell in cells}),
    }


def as_markdown(table: ComparisonTable, command: str) -> str:
    """Return the table as Markdown, with how to read it, where it comes from and how to make it."""
    kinds = sorted(table.pool_faults)
    by_record = any(row.records for row in table.rows)
    head = [
        "selector",
        "seeds",
        "held-out loss",
        f"minus {table.baseline}, paired 95 %",
        *(BY_RECORD if by_record else []),
        "finding",
        "of full's gain",
        *(f"{kind.replace('_', ' ')} picked" for kind in kinds),
        "distinct / visits / steps",
        "forwards: offline / select / train / evaluate",
        "training tokens",
        "seconds",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in table.rows:
        cells = [
            f"`{row.selector}`",
            str(len(row.seeds)),
            f"{row.loss:.4f}" + (f" ± {row.spread:.4f}" if row.spread is not None else ""),
            describe_interval(row.versus),
            *(describe_records(row.records) if by_record else []),
            row.verdict or "baseline",
            "" if row.recovered is None else f"{row.recovered:.0%}",
            *(f"{row.picked[kind]:.1%}" for kind in kinds),
            f"{row.distinct:.0f} / {describe_span(row.visits)} / {describe_span(row.steps)}",
            " / ".join(f"{row.forwards[column]:,.0f}" for column in COLUMNS),
            f"{row.tokens['training']:,.0f}",
            "" if row.seconds is None else f"{row.seconds:,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_notes(table, kinds, command)]) + "\n"


def _notes(table: ComparisonTable, kinds: Sequence[str], command: str) -> list[str]:
    origins = table.origins
    shares = ", ".join(f"{k.replace('_', ' ')} {table.pool_faults[k]:.1%}" for k in kinds)
    complete = "all" if table.found == table.wanted else f"**{table.found} of {table.wanted}**"
    notes = [
        f"Trainings here: {complete} that the comparison asks for.",
        f"Base model: {table.base_loss:.4f}. Loss: macro average over sources of "
        f"{table.heldout_records} held-out records, nats per response token, mean ± standard deviation "
        f"over seeds. Differences are paired by seed with `{table.baseline}` over the seeds that both "
        "have (t intervals over seeds, each at 95 %, not corrected for their number); rows are in "
        "their order.",
    ]
    if any(row.records for row in table.rows):
        notes.append(
            "Without the record that moves it most: the same difference without the one held-out "
            "record whose absence changes it most, found by looking. Lower on, of records: the share "
            "of held-out records whose loss, mean over seeds, is lower than the baseline's. Both only "
            "where all cells keep their losses by record."
        )
    if shares:
        notes.append(f"Planted faults in the pool: {shares}.")
    if table.throughput is not None:
        notes.append(
            "Seconds: tokens (offline pass included, for rules that read it) over the median "
            f"throughput of these cells, {table.throughput['forward']:.0f} tokens/s forward and "
            f"{table.throughput['training']:.0f} in training: a scale, not a benchmark."
        )
    if len(origins["scores"]) > 1:
        notes.append(
            f"The cells come from {len(origins['scores'])} scorings of the same pool and settings, "
            "whose last bits differ."
        )
    notes.append(
        f"Comparison `{table.comparison}`; commits {', '.join(origins['commits'])}; "
        f"{', '.join(origins['machines'])}; {', '.join(origins['libraries'])}. Command: `{command}`"
    )
    return ["\n\n".join(notes)]


def describe_span(values: tuple[int, int]) -> str:
    """Return the smallest and the largest value, once if they are equal."""
    return str(values[0]) if values[0] == values[1] else f"{values[0]}-{values[1]}"


def describe_interval(pair: PairedDifference | None) -> str:
    """Return a difference with its interval and number of pairs; empty for the baseline."""
    if pair is None:
        return ""
    if pair.low is None or pair.high is None:
        return f"{pair.difference:+.4f}"
    return f"{pair.difference:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}] (n = {pair.n})"


def describe_records(records: SpreadOverRecords | None) -> list[str]:
    """Return the cells of the columns `BY_RECORD`."""
    if records is None:
        return ["", ""]
    return [describe_interval(records.without_one), f"{records.lower:.0%}"]

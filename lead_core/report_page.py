"""The report as one HTML page that opens without a network: tables and words around the plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lead_core.benchmark_check import Check
from lead_core.page import Table, render
from lead_core.plots import Plot
from lead_core.report_data import FinishedRun
from lead_core.tracking_names import redact

MOST_CHARACTERS = 4_000  # of one message shown
TITLE_CHARACTERS = 160  # the page cuts it to one line

LEDGER_NOTES = {
    "offline": "scoring, once per pool and model",
    "selection": "forwards run only in order to choose",
    "training": "samples trained on",
    "evaluation": "base and tuned model, and held-out monitoring",
}


def render_page(
    run: FinishedRun, plots: Sequence[Plot], *, top_records: int, settings: Mapping[str, Any]
) -> str:
    """Return the page's HTML; all text that comes from data is escaped.

    settings: the run's parameters by dotted name, shown beside what the manifests say.
    """
    most, least = _extremes(run, top_records)
    return render(
        "report.html.j2",
        selector=run.train_manifest["selector"],
        seed=run.train_manifest["seed"],
        verdict=verdict(run),
        headline=_headline(run),
        ledger=_ledger(run),
        tasks=_tasks(run),
        plots=plots,
        arms=_arms(run),
        sources=_sources(run),
        rejected=_rejected(run),
        set_aside=_set_aside(run),
        overlaps=_overlaps(run.decontamination),
        decontamination=run.decontamination,
        most_useful=most,
        least_useful=least,
        settings=_settings(run, settings),
        hashes=_hashes(run),
    )


def verdict(run: FinishedRun) -> str:
    """Return in one sentence what the held-out records say about base and tuned model."""
    pair = run.headline
    if pair is None:
        return "Held-out loss was not evaluated (lead_heldout is not among evaluate.tasks)."
    change = f"{abs(pair['difference']):.4f} nats per response token"
    if pair["low"] is None:
        return (
            f"One held-out record, so no interval: its loss changed by {pair['difference']:+.4f}."
        )
    evidence = f"95 % interval {_interval(pair)}, {pair['n']:,} records, paired"
    if pair["low"] <= 0 <= pair["high"]:
        return f"No significant difference in held-out loss between tuned and base ({evidence})."
    word = "lower" if pair["difference"] < 0 else "higher"
    return f"The tuned model's held-out loss is {change} {word} than the base model's ({evidence})."


def _interval(pair: dict[str, Any]) -> str:
    return f"{pair['low']:+.4f} to {pair['high']:+.4f}" if pair["low"] is not None else "unknown"


def _headline(run: FinishedRun) -> Table:
    train = run.train_manifest
    rows = []
    if run.headline is not None:
        pair, metrics = run.headline, run.results["tasks"]["lead_heldout"]
        rows += [
            ("held-out loss, base (nats/token)", f"{pair['base']:.4f}"),
            ("held-out loss, tuned (nats/token)", f"{pair['tuned']:.4f}"),
            ("tuned - base (nats/token)", f"{pair['difference']:+.4f}"),
            ("paired 95 % interval of that", _interval(pair)),
            (
                "bits per byte, base / tuned",
                f"{metrics['base']['bits_per_byte']:.4f} / {metrics['tuned']['bits_per_byte']:.4f}",
            ),
        ]
    share = train["distinct"] / train["pool_size"]
    rows += [
        ("samples used", f"{train['distinct']:,} of {train['pool_size']:,} ({share:.1%})"),
        ("training samples, repeats counted", f"{train['visits']:,}"),
        ("rounds / optimizer steps", f"{train['rounds']:,} / {train['steps']:,}"),
        ("tokens trained on", f"{run.forwards['training']['tokens']:,}"),
    ]
    return Table((), rows)


def _ledger(run: FinishedRun) -> Table:
    rows = [
        (name, f"{cost['sequences']:,}", f"{cost['tokens']:,}", LEDGER_NOTES.get(name, ""))
        for name, cost in sorted(run.forwards.items(), key=_ledger_order)
    ]
    return Table(("forwards for", "sequences", "tokens", ""), rows)


def _ledger_order(item: tuple[str, Any]) -> int:
    names = list(LEDGER_NOTES)
    return names.index(item[0]) if item[0] in names else len(names)


def _tasks(run: FinishedRun) -> Table:
    rows = []
    ours_first = sorted(run.results["tasks"], key=lambda task: (task != "lead_heldout", task))
    for task in ours_first:
        figures = run.results["tasks"][task]
        for metric, base in figures["base"].items():
            pair = run.results["paired"].get(f"{task}/{metric}")
            rows.append(
                (
                    task,
                    metric,
                    _with_error(base, figures["base_stderr"].get(metric)),
                    _with_error(figures["tuned"].get(metric), figures["tuned_stderr"].get(metric)),
                    _interval(pair) if pair else "",
                    f"{figures['n']:,}",
                )
            )
    head = ("task", "metric", "base", "tuned", "tuned - base, 95 %", "documents")
    return Table(head, rows, numeric=2)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"


def _arms(run: FinishedRun) -> Table:
    drawn = pd.Series([row["arm"] for row in run.rounds], dtype=object).value_counts()
    rows = []
    for arm, records in run.records.groupby("difficulty"):
        chosen = records[records["uses"] > 0]
        rows.append(
            (
                "set aside" if arm < 0 else str(arm),
                f"{records['ifd'].min():.3f} to {records['ifd'].max():.3f}",
                f"{len(records):,}",
                f"{records['task'].nunique():,}",
                f"{drawn.get(arm, 0):,}" if len(drawn) and arm >= 0 else "",
                f"{len(chosen):,}",
                f"{chosen['uses'].sum():,}",
            )
        )
    head = ("difficulty", "IFD", "records", "tasks", "rounds drawn", "selected", "visits")
    return Table(head, rows)


def _sources(run: FinishedRun) -> Table:
    chosen = run.records[run.records["uses"] > 0]["source"].value_counts()
    columns = ("read", "kept", "heldout", "rejected", "not_sampled")
    rows = []
    for source, counts in run.pool_manifest["counts"]["by_source"].items():
        pair = run.by_source.get(source)
        rows.append(
            (
                source,
                *(f"{counts[column]:,}" for column in columns),
                f"{chosen.get(source, 0):,}",
                f"{pair['base']:.4f}" if pair else "",
                f"{pair['tuned']:.4f}" if pair else "",
            )
        )
    head = ("source", "read", "in the pool", "held out", "rejected", "beyond limit")
    return Table((*head, "selected", "loss, base", "loss, tuned"), rows)


def _rejected(run: FinishedRun) -> Table:
    counts = run.pool_manifest["counts"]
    ranked = sorted(counts["rejected_by_reason"].items(), key=lambda item: (-item[1], item[0]))
    rows = [
        (
            reason,
            f"{count:,}",
            f"{count / counts['read']:.1%}",
            _rejection(run.rejected[reason]) if reason in run.rejected else "",
        )
        for reason, count in ranked
    ]
    return Table(("reason", "records", "of all read", "the first of them"), rows)


def _rejection(row: Mapping[str, Any]) -> str:
    """Return where a rejected record is, what is wrong with it and how it begins.

    It may hold what is no valid Unicode: that may be why it was rejected.
    """
    record = json.dumps(row["record"], ensure_ascii=False)
    begins = f"{record[:TITLE_CHARACTERS]}..." if len(record) > TITLE_CHARACTERS else record
    place = f"{row['file']}, " + (
        f"line {row['line']}" if row["line"] is not None else f"record {row['index']}"
    )
    text = f"{place}: {row['detail']}. {begins}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _set_aside(run: FinishedRun) -> str:
    """Return how many records of the pool are set aside, by reason; empty for none."""
    reasons = run.records["set_aside"].value_counts().sort_index()
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())


def _overlaps(check: Check) -> Table:
    rows = [
        (
            benchmark.name,
            f"{benchmark.rows:,}",
            f"{benchmark.unchecked_rows:,}",
            f"{benchmark.verbatim:,}",
            f"{benchmark.edited:,}",
        )
        for benchmark in check.benchmarks
    ]
    return Table(("benchmark", "rows", "say too little", "verbatim", "edited"), rows)


def _extremes(run: FinishedRun, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the selected records of highest and of lowest utility when first chosen, with text.

    A record is in one of the lists only.
    """
    first = run.samples.drop_duplicates("id").sort_values(
        ["utility_before", "id"], ascending=[False, True], kind="stable"
    )
    most = first.head(count)
    least = first.iloc[len(most) :].tail(count)[::-1]
    row_of = {name: row for row, name in enumerate(run.pool.ids)}
    uses = run.records.set_index("id")["uses"]

    def describe(sample: Any) -> dict[str, Any]:
        facts = (
            ("utility", f"{sample.utility_before:.3f} to {sample.utility_after:.3f}"),
            ("source", sample.source),
            ("difficulty / task", f"{sample.difficulty} / {sample.task}"),
            ("round", sample.round),
            ("uses", uses[sample.id]),
            ("tokens", sample.tokens),
            ("id", sample.id),
        )
        messages = run.pool.messages(row_of[sample.id])
        title = " ".join(messages[-2]["content"].split())[:TITLE_CHARACTERS]
        return {"title": title, "facts": facts, "messages": _shown(messages)}

    return (
        [describe(sample) for sample in most.itertuples()],
        [describe(sample) for sample in least.itertuples()],
    )


def _shown(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    shown = []
    for message in messages:
        text = message["content"]
        if len(text) > MOST_CHARACTERS:
            left_out = len(text) - MOST_CHARACTERS
            text = f"{text[:MOST_CHARACTERS]}\n[{left_out:,} more characters]"
        shown.append({"role": message["role"], "content": text})
    return shown


def _settings(run: FinishedRun, settings: Mapping[str, Any]) -> Table:
    """Return how the run was made: its parameters, what its selector fixed, what manifests add."""
    manifest = {
        f"train.{name}": value
        for name, value in run.train_manifest.items()
        if isinstance(value, str | int | float) and not name.endswith("_sha256")
    }
    evaluation = {f"evaluate.{name}": run.results[name] for name in ("lm_eval", "precision")}
    merged = {**settings, **run.train_manifest["fixed"], **manifest, **evaluation}
    return Table((), [(name, _plain(merged[name])) for name in sorted(merged)], numeric=2)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items() if v is not None)
    return "none" if value is None else redact(str(value))


def _hashes(run: FinishedRun) -> Table:
    merged = {
        name: value
        for manifest in (run.pool_manifest, run.train_manifest, run.results["inputs"])
        for name, value in manifest.items()
        if name.endswith("_sha256")
    }
    rows = [(name.removesuffix("_sha256"), merged[name]) for name in sorted(merged)]
    return Table((), rows, numeric=2)

"""From sources to a pool: read, convert, reject with reasons, sample, tokenise, hold out, write.

Records that overlap with a benchmark are found while reading, before limits apply: so a limit is filled
with clean records, and nothing behind this stage ever sees the others.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lead_core.chat import EncodingError, encode
from lead_core.contamination import CONTAMINATION_FILE, Contaminated, contamination_rows
from lead_core.decontamination import BenchmarkIndex, find_overlaps
from lead_core.dirt import Clean, Fault, Kind, plan_faults
from lead_core.errors import LeadError
from lead_core.params import SourceParams
from lead_core.pool import HELDOUT_FILE, POOL_FILE
from lead_core.progress import progress
from lead_core.records import Message, Reason, Rejection, convert, record_id
from lead_core.sources import RawRecord, read_source, redact
from lead_core.storage import (
    json_text,
    replaced_directory,
    sha256_file,
    sha256_json,
    write_json,
    write_jsonl,
)

if TYPE_CHECKING:
    import pyarrow as pa

REJECTED_FILE = "rejected.jsonl"
PLANTED_FILE = "planted.jsonl"

_BATCH_ROWS = 1000


@dataclass(frozen=True)
class PoolCounts:
    """Where every record went: ``read = kept + heldout + rejected + not_sampled``.

    `not_sampled` are usable records beyond a limit. `by_source` holds the same five counts per source;
    `tokens` the tokens of pool and held-out set, in all and in responses; `contaminated` the records
    that overlap with a benchmark, rejected or not; `notes` what to know, one line each.
    """

    read: int
    kept: int
    heldout: int
    rejected: int
    not_sampled: int
    by_source: dict[str, dict[str, int]]
    rejected_by_reason: dict[str, int]
    tokens: dict[str, int]
    contaminated: tuple[Contaminated, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A record that converts and is no duplicate."""

    id: str
    order: int  # of reading
    entry: int  # which of data.sources
    raw: RawRecord
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class _Sample:
    """A candidate within the limits, as tokens."""

    candidate: _Candidate
    input_ids: np.ndarray  # int32
    prompt_start: int
    response_start: int


@dataclass(slots=True)
class _Reading:
    """What reading the sources gave so far; rejections are ``(order, record, why)``."""

    candidates: list[_Candidate] = field(default_factory=list)
    rejections: list[tuple[int, RawRecord, Rejection]] = field(default_factory=list)
    read_by_source: Counter[str] = field(default_factory=Counter)
    not_sampled_by_source: Counter[str] = field(default_factory=Counter)
    contaminated: list[Contaminated] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def prepare_pool(
    *,
    sources: Sequence[SourceParams],
    limit: int | None,
    max_tokens: int,
    heldout_per_source: int,
    benchmarks: BenchmarkIndex | None,
    remove_contaminated: bool,
    dirt: Mapping[Kind, float] | None,
    seed: int,
    tokenizer: Any,
    lock: Mapping[str, Any],
    workspace: Path,
    out: Path,
) -> PoolCounts:
    """Read, convert, sample, tokenise and split the records of `sources` into the folder `out`.

    Records that overlap with `benchmarks` are listed in contamination.jsonl, with both texts, and
    rejected if `remove_contaminated`. Limits take records in the order of ``sha256(seed:id)`` and skip
    those that are too long, so a bigger limit keeps what a smaller one kept. With `dirt` (shares by
    kind of fault) known faults are planted into the pool once the held-out records are taken, and
    listed in planted.jsonl. The lock (see `check_lock`) pins remote sources and is named in the
    manifest. `out` is replaced in one step, only if all goes well. Raises LeadError if a source has no
    usable record at all, or nothing is short enough.
    """
    reading = _read(sources, lock, workspace, benchmarks, remove_contaminated)
    samples = _sample(
        reading, [source.limit for source in sources], limit, max_tokens, seed, tokenizer
    )
    if not samples:
        raise LeadError(_nothing_left(reading, max_tokens))
    heldout_ids = _choose_heldout(samples, heldout_per_source, seed)
    pool = [sample for sample in samples if sample.candidate.id not in heldout_ids]
    heldout = [sample for sample in samples if sample.candidate.id in heldout_ids]
    faults: list[Fault] = []
    if dirt is not None:
        pool, faults = _plant(pool, dirt, max_tokens, seed, tokenizer)
    counts = _count(reading, pool, heldout, heldout_per_source, faults)
    with replaced_directory(out) as folder:
        _write_samples(folder / POOL_FILE, pool)
        _write_samples(folder / HELDOUT_FILE, heldout)
        _write_lines(folder / REJECTED_FILE, _rejected_rows(reading.rejections))
        if reading.contaminated:
            rows = contamination_rows(reading.contaminated, removed=remove_contaminated)
            _write_lines(folder / CONTAMINATION_FILE, rows)
        if dirt is not None:
            write_jsonl(folder / PLANTED_FILE, _planted_rows(faults))
        manifest = {
            "schema": 1,
            "model_sha256": lock["model"]["sha256"],
            "sources_lock_sha256": _lock_hash(lock),
            "pool_sha256": sha256_file(folder / POOL_FILE),
            "heldout_sha256": sha256_file(folder / HELDOUT_FILE),
            "counts": {
                item.name: getattr(counts, item.name)
                for item in fields(counts)
                if item.name not in ("tokens", "contaminated", "notes")
            },
            "tokens": counts.tokens,
        }
        write_json(folder / "manifest.json", manifest)
    return counts


def _lock_hash(lock: Mapping[str, Any]) -> str:
    """Return the hash of what the pool was made from; a benchmark's hits show in the pool itself."""
    others = ("scoring_model", "benchmarks", "evaluation")
    made_from = {part: lock[part] for part in lock if part not in others}
    return hashlib.sha256(json_text(made_from).encode()).hexdigest()


def summarise(counts: PoolCounts) -> str:
    """Return the counts as a few lines for people."""
    lines = [
        f"{counts.read:,} records read: {counts.kept:,} in the pool "
        f"({counts.tokens['pool']:,} tokens), {counts.heldout:,} held out, "
        f"{counts.rejected:,} rejected, {counts.not_sampled:,} beyond the limit"
    ]
    if counts.rejected:
        reasons = sorted(counts.rejected_by_reason.items(), key=lambda item: (-item[1], item[0]))
        lines.append("rejected: " + ", ".join(f"{reason} {n:,}" for reason, n in reasons))
    width = max(len(source) for source in ("source", *counts.by_source))
    lines.append(f"{'source':<{width}}  {'read':>8} {'pool':>8} {'held out':>8} {'rejected':>8}")
    for source, part in counts.by_source.items():
        lines.append(
            f"{source:<{width}}  {part['read']:>8,} {part['kept']:>8,} {part['heldout']:>8,} "
            f"{part['rejected']:>8,}"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in counts.notes)])


def _read(
    sources: Sequence[SourceParams],
    lock: Mapping[str, Any],
    workspace: Path,
    benchmarks: BenchmarkIndex | None,
    remove_contaminated: bool,
) -> _Reading:
    reading = _Reading()
    first_place: dict[str, str] = {}
    order = 0
    for entry, source in enumerate(sources):
        converted = False
        before = len(reading.rejections)
        for raw in _records_of(source, lock["sources"][entry], workspace):
            reading.read_by_source[raw.source] += 1
            messages = raw.problem or convert(raw.value)
            if isinstance(messages, Rejection):
                reading.rejections.append((order, raw, messages))
                if messages.reason == Reason.CUT_OFF:
                    reading.notes.append(f"{raw.place}: {messages.detail}")
            else:
                converted = True
                identity = record_id(messages)
                if identity in first_place:
                    same = Rejection(Reason.DUPLICATE, f"the same as {first_place[identity]}")
                    reading.rejections.append((order, raw, same))
                else:
                    first_place[identity] = raw.place
                    candidate = _Candidate(identity, order, entry, raw, messages)
                    overlaps = _find_overlaps(reading, candidate, benchmarks)
                    if overlaps and remove_contaminated:
                        reading.rejections.append((order, raw, overlaps))
                    else:
                        reading.candidates.append(candidate)
            order += 1
        if not converted:
            raise LeadError(_nothing_usable(redact(source.uri), reading.rejections[before:]))
    return reading


def _records_of(
    source: SourceParams, locked: Mapping[str, Any], workspace: Path
) -> Iterator[RawRecord]:
    """Yield a source's records, and show how far the reading is; of files, what is left too."""
    size = sum(file["bytes"] for file in locked.get("files", ()))
    label, unit = f"reading {redact(source.uri)}", "bytes" if size else "records"
    with progress(size or None, label, unit) as done:
        for raw in read_source(
            source.uri,
            name=source.name,
            workspace=workspace,
            locked=locked,
            on_read=done.advance if size else None,
        ):
            if not size:
                done.advance()
            yield raw


def _find_overlaps(
    reading: _Reading, candidate: _Candidate, benchmarks: BenchmarkIndex | None
) -> Rejection | None:
    """Note the benchmarks that a candidate overlaps with; return the reason for rejecting it."""
    if benchmarks is None:
        return None
    messages = candidate.messages
    overlaps = find_overlaps(benchmarks, [message["content"] for message in messages])
    if not overlaps:
        return None
    reading.contaminated += [
        Contaminated(candidate.id, candidate.raw, messages, overlap) for overlap in overlaps
    ]
    return Rejection(Reason.CONTAMINATED, "; ".join(str(overlap) for overlap in overlaps))


def _nothing_usable(uri: str, rejections: Sequence[tuple[int, RawRecord, Rejection]]) -> str:
    if not rejections:
        return f"{uri} holds no records; remove it from data.sources or fill it"
    _, raw, rejection = rejections[0]
    return (
        f"{uri}: none of its {len(rejections)} records can be used; the first, {raw.place}: "
        f"{rejection.reason}: {rejection.detail}"
    )


def _sample(
    reading: _Reading,
    entry_limits: Sequence[int | None],
    limit: int | None,
    max_tokens: int,
    seed: int,
    tokenizer: Any,
) -> list[_Sample]:
    """Tokenise candidates in the order of their hash until the limits are full.

    Those that are too long go to the rejections, those behind a full limit are only counted.
    """
    room = [math.inf if size is None else size for size in entry_limits]
    room_in_all = math.inf if limit is None else limit
    ranked = sorted(
        reading.candidates, key=lambda c: hashlib.sha256(f"{seed}:{c.id}".encode()).digest()
    )
    samples: list[_Sample] = []
    with progress(min(len(ranked), limit or len(ranked)), "tokenising", "records") as bar:
        for candidate in ranked:
            if len(samples) >= room_in_all or room[candidate.entry] == 0:
                reading.not_sampled_by_source[candidate.raw.source] += 1
                continue
            sample = _encode(candidate, max_tokens, tokenizer)
            if isinstance(sample, Rejection):
                reading.rejections.append((candidate.order, candidate.raw, sample))
                continue
            room[candidate.entry] -= 1
            samples.append(sample)
            bar.advance()
    return sorted(samples, key=lambda sample: sample.candidate.id)


def _encode(candidate: _Candidate, max_tokens: int, tokenizer: Any) -> _Sample | Rejection:
    try:
        encoded = encode(tokenizer, candidate.messages)
    except EncodingError as error:
        return Rejection(Reason.TEMPLATE, " ".join(str(error).split()))
    length = len(encoded.input_ids)
    if length > max_tokens:
        return Rejection(Reason.TOO_LONG, f"{length} tokens, data.max_tokens is {max_tokens}")
    input_ids = np.asarray(encoded.input_ids, dtype=np.int32)
    return _Sample(candidate, input_ids, encoded.prompt_start, encoded.response_start)


def _nothing_left(reading: _Reading, max_tokens: int) -> str:
    reasons = Counter(rejection.reason for _, _, rejection in reading.rejections)
    shown = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
    return (
        f"no record is left for the pool ({shown}); raise data.max_tokens (now {max_tokens}) or name "
        "other sources in data.sources"
    )


def _choose_heldout(samples: Sequence[_Sample], per_source: int, seed: int) -> set[str]:
    """Return the ids to hold out: `per_source` of each source, never more than half of it.

    Records with the same prompt stay on one side, whatever their sources, so that no held-out
    prompt was trained on.
    """
    groups: defaultdict[str, list[_Sample]] = defaultdict(list)
    for sample in samples:
        groups[sha256_json(sample.candidate.messages[:-1])].append(sample)
    sizes = Counter(sample.candidate.raw.source for sample in samples)
    room = {source: min(per_source, size // 2) for source, size in sizes.items()}
    chosen: set[str] = set()
    for key in sorted(
        groups, key=lambda key: hashlib.sha256(f"{seed}:heldout:{key}".encode()).digest()
    ):
        wanted = Counter(sample.candidate.raw.source for sample in groups[key])
        if all(room[source] >= n for source, n in wanted.items()):
            chosen |= {sample.candidate.id for sample in groups[key]}
            for source, n in wanted.items():
                room[source] -= n
    return chosen


def _plant(
    pool: Sequence[_Sample],
    dirt: Mapping[Kind, float],
    max_tokens: int,
    seed: int,
    tokenizer: Any,
) -> tuple[list[_Sample], list[Fault]]:
    """Return the pool with faulty records in the places of clean ones, sorted by id."""
    by_id = {sample.candidate.id: sample for sample in pool}
    taken = set(by_id)

    def fits(messages: Sequence[Message]) -> bool:
        new = record_id(messages) not in taken
        return new and len(encode(tokenizer, messages).input_ids) <= max_tokens

    clean = [Clean(i, s.candidate.raw.source, s.candidate.messages) for i, s in by_id.items()]
    faults = plan_faults(clean, dirt, seed=seed, fits=fits)
    for fault in faults:
        candidate = by_id.pop(fault.replaces).candidate
        faulty = replace(candidate, id=record_id(fault.messages), messages=fault.messages)
        sample = _encode(faulty, max_tokens, tokenizer)
        if isinstance(sample, Rejection) or faulty.id in by_id:
            raise LeadError(
                f"data.dirt: the {fault.kind} record in the place of {fault.replaces} cannot be used; "
                "try another seed"
            )
        by_id[faulty.id] = sample
    return [by_id[name] for name in sorted(by_id)], faults


def _planted_rows(faults: Sequence[Fault]) -> list[dict[str, str | None]]:
    rows = [
        {
            "id": record_id(fault.messages),
            "kind": fault.kind.value,
            "replaces": fault.replaces,
            "taken_from": fault.taken_from,
        }
        for fault in faults
    ]
    return sorted(rows, key=lambda row: str(row["id"]))


def _count(
    reading: _Reading,
    pool: Sequence[_Sample],
    heldout: Sequence[_Sample],
    heldout_per_source: int,
    faults: Sequence[Fault],
) -> PoolCounts:
    kept = Counter(sample.candidate.raw.source for sample in pool)
    held = Counter(sample.candidate.raw.source for sample in heldout)
    rejected = Counter(raw.source for _, raw, _ in reading.rejections)
    by_source = {}
    notes = list(reading.notes)
    for source, read in sorted(reading.read_by_source.items()):
        by_source[source] = {
            "read": read,
            "kept": kept[source],
            "heldout": held[source],
            "rejected": rejected[source],
            "not_sampled": reading.not_sampled_by_source[source],
        }
        if held[source] < heldout_per_source:
            notes.append(
                f"{source}: {held[source]} records held out, not {heldout_per_source}: at most half of "
                f"its {kept[source] + held[source]}, equal prompts on one side"
            )
    if faults:
        planted = Counter(fault.kind.value for fault in faults)
        shown = ", ".join(f"{n} {kind}" for kind, n in sorted(planted.items()))
        notes.append(f"faults planted on purpose (data.dirt): {shown}; see {PLANTED_FILE}")
    sums = Counter[str]()
    for part in by_source.values():
        sums.update(part)
    reasons = Counter(rejection.reason.value for _, _, rejection in reading.rejections)
    return PoolCounts(
        read=sums["read"],
        kept=sums["kept"],
        heldout=sums["heldout"],
        rejected=sums["rejected"],
        not_sampled=sums["not_sampled"],
        by_source=by_source,
        rejected_by_reason=dict(sorted(reasons.items())),
        tokens={
            "pool": sum(len(s.input_ids) for s in pool),
            "pool_response": sum(len(s.input_ids) - s.response_start for s in pool),
            "heldout": sum(len(s.input_ids) for s in heldout),
            "heldout_response": sum(len(s.input_ids) - s.response_start for s in heldout),
        },
        contaminated=tuple(reading.contaminated),
        notes=tuple(notes),
    )


def _schema() -> pa.Schema:
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.schema(
        [
            ("id", pa.string()),
            ("source", pa.string()),
            ("messages", pa.list_(message)),
            ("input_ids", pa.list_(pa.int32())),
            ("prompt_start", pa.int32()),
            ("response_start", pa.int32()),
        ]
    )


def _write_samples(path: Path, samples: Sequence[_Sample]) -> None:
    """Write an Arrow IPC stream in batches, in the order given (by id)."""
    import pyarrow as pa

    schema = _schema()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, len(samples), _BATCH_ROWS):
            batch = samples[start : start + _BATCH_ROWS]
            columns = [
                [sample.candidate.id for sample in batch],
                [sample.candidate.raw.source for sample in batch],
                [sample.candidate.messages for sample in batch],
                [sample.input_ids for sample in batch],
                [sample.prompt_start for sample in batch],
                [sample.response_start for sample in batch],
            ]
            arrays = [
                pa.array(column, type=field.type)
                for column, field in zip(columns, schema, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _rejected_rows(
    rejections: Iterable[tuple[int, RawRecord, Rejection]],
) -> Iterator[dict[str, Any]]:
    """Yield one row per rejection in the order of reading, each with the whole raw record."""
    for _, raw, rejection in sorted(rejections, key=lambda item: item[0]):
        yield {
            "file": raw.file,
            "line": raw.line,
            "index": raw.index,
            "source": raw.source,
            "reason": rejection.reason.value,
            "detail": rejection.detail,
            "record": raw.value,
        }


def _write_lines(path: Path, rows: Iterable[Any]) -> None:
    with path.open("w", encoding="ascii") as stream:
        stream.writelines(_any_json(row) + "\n" for row in rows)


def _any_json(row: Any) -> str:
    """Return `row` as ASCII JSON whatever it holds: half surrogates, NaN, dates, bytes."""
    try:
        return json.dumps(row, allow_nan=False, default=str)
    except (ValueError, TypeError):
        return json.dumps(_plain(row), allow_nan=False, default=str)


def _plain(value: Any) -> Any:
    """Return `value` with keys as text, and numbers that JSON does not have as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value

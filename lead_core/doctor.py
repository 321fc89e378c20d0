"""A check-up of a pool without a model: what `prepare` would refuse, and what deserves a look.

One pass, in memory that does not grow with the pool: counts, sketches of lengths, hashes up to a
bound, and a few examples of everything.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from lead_core.chat import EncodingError, count_tokens
from lead_core.checkup import MOST_TURNS, Checkup, Finding, Kind, Lengths, LimitCost, SourceCheckup
from lead_core.hash_index import HashIndex
from lead_core.length_sketch import LengthSketch
from lead_core.records import Message, Reason, Rejection, convert, form_of, record_id
from lead_core.sources import RawRecord
from lead_core.storage import sha256_json
from lead_core.text_signs import Sign, find_signs, plain_form
from lead_core.unicode_scripts import main_script

OUTLIER_MIN_RECORDS = 100  # usable ones of a source; fewer say nothing about what is usual
OUTLIER_FENCE = 3.0  # Tukey's "far out", on the logarithm of lengths
OUTLIER_MIN_SPREAD = 1.5  # ratio of the quartiles that is assumed at least

_INDEXED = ("record", "plain", "prompt", "response")
_BATCH_RECORDS = 256
_BATCH_CHARACTERS = 1_000_000
_LISTED_OUTLIERS = 100  # at each end of a source: the most extreme
_LONG_RESPONSE_WORDS = 8  # shorter ones ("Yes.", "42") repeat in every healthy pool
_LONG_PLAIN_FORM = 20  # characters; shorter texts may differ in punctuation alone, and mean it

LengthCounter = Callable[[Sequence[list[Message]]], list[tuple[int, int] | Rejection]]


def examine(
    records: Iterable[RawRecord],
    *,
    count_lengths: LengthCounter,
    max_length: int | None,
    index_bytes: int,
    max_examples: int,
    on_finding: Callable[[Finding], None] = lambda _: None,
) -> Checkup:
    """Read all `records` once and return what there is to say about them.

    Records longer than `max_length` in the unit of `count_lengths` count as rejected, as `prepare`
    does it. `index_bytes` bounds the memory for repeats, `max_examples` what is kept of each kind;
    `on_finding` gets every finding, in the order of reading, except for lengths that are unusual in
    their source: of those, at the end, the 100 most extreme at each side.
    """
    examination = _Examination(max_length, index_bytes, max_examples, on_finding)
    batch: list[_Opened] = []
    characters = 0
    for raw in records:
        opened = examination.open(raw)
        batch.append(opened)
        characters += opened.characters
        if len(batch) == _BATCH_RECORDS or characters >= _BATCH_CHARACTERS:
            examination.close(batch, count_lengths)
            batch, characters = [], 0
    examination.close(batch, count_lengths)
    return examination.result()


def token_counter(tokenizer: Any) -> LengthCounter:
    """Return a counter of the tokens that `encode` gives; what the template refuses is rejected."""

    def counted(conversations: Sequence[list[Message]]) -> list[tuple[int, int] | Rejection]:
        return [
            Rejection(Reason.TEMPLATE, " ".join(str(length).split()))
            if isinstance(length, EncodingError)
            else length
            for length in count_tokens(tokenizer, conversations)
        ]

    return counted


def count_words(conversations: Sequence[list[Message]]) -> list[tuple[int, int] | Rejection]:
    """Return the words, set apart by white space, of each prompt and response."""
    lengths: list[tuple[int, int] | Rejection] = []
    for messages in conversations:
        *prompt, response = (len(message["content"].split()) for message in messages)
        lengths.append((sum(prompt), response))
    return lengths


@dataclass(frozen=True, slots=True)
class _Opened:
    """A record before its lengths are known: refused already, or a conversation and its signs."""

    raw: RawRecord
    content: list[Message] | Rejection
    signs: Sequence[tuple[Sign, str]] = ()
    characters: int = 0


class _Places:
    """Places of records as whole numbers below 2**64, and back as text."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._labels: list[str] = []

    def pack(self, raw: RawRecord) -> int:
        """Return 24 bits for the file, one for having lines, 39 for the line or index."""
        if raw.file not in self._files:
            self._files[raw.file] = len(self._labels)
            self._labels.append(raw.file)
        number = raw.index if raw.line is None else raw.line
        return self._files[raw.file] << 40 | (raw.line is not None) << 39 | number

    def text(self, packed: int) -> str:
        """Return a packed place as `RawRecord.place` says it."""
        label, number = self._labels[packed >> 40], packed & ((1 << 39) - 1)
        return f"{label}:{number}" if packed >> 39 & 1 else f"{label}, record {number}"


@dataclass(slots=True)
class _Source:
    """What was seen of one source; `unsigned` and `responses` are lengths in characters."""

    read: int = 0
    usable: int = 0
    suspicious: int = 0
    lengths: LengthSketch = field(default_factory=LengthSketch)
    responses: LengthSketch = field(default_factory=LengthSketch)
    unsigned: LengthSketch = field(default_factory=LengthSketch)  # of records without any sign
    shortest: list[tuple[int, int, RawRecord]] = field(default_factory=list)
    longest: list[tuple[int, int, RawRecord]] = field(default_factory=list)


class _Examination:
    """The counts of one reading; changed in place, since a new state per record would cost more."""

    def __init__(
        self,
        max_length: int | None,
        index_bytes: int,
        max_examples: int,
        on_finding: Callable[[Finding], None],
    ):
        self._max_length = max_length
        self._max_examples = max_examples
        self._on_finding = on_finding
        self._places = _Places()
        self._index = {part: HashIndex(index_bytes // len(_INDEXED)) for part in _INDEXED}
        self._order = count()
        self._sources: defaultdict[str, _Source] = defaultdict(_Source)
        self._rejected: Counter[Reason] = Counter()
        self._signs: Counter[Sign] = Counter()
        self._forms: Counter[str] = Counter()
        self._roles: Counter[str] = Counter()
        self._turns: Counter[int] = Counter()
        self._scripts: Counter[str] = Counter()
        self._lengths = {part: LengthSketch() for part in ("prompt", "response", "record")}
        self._refused = self._cut_off = 0
        self._examples: defaultdict[Kind, list[Finding]] = defaultdict(list)
        self._breaks: list[Finding] = []

    def open(self, raw: RawRecord) -> _Opened:
        """Convert a record and look for its signs and for equal ones before it."""
        self._sources[raw.source].read += 1
        self._forms["unreadable" if raw.problem else form_of(raw.value) or "unknown"] += 1
        content = raw.problem or convert(raw.value)
        if isinstance(content, Rejection):
            return _Opened(_without_value(raw), content)
        place = self._places.pack(raw)
        identity = int(record_id(content), 16)
        first = self._index["record"].first_place(identity, place)
        if first is not None:
            same = f"the same as {self._places.text(first)}"
            return _Opened(_without_value(raw), Rejection(Reason.DUPLICATE, same))
        signs = list(find_signs(content))
        if self._index["record"].follows(identity):  # else it may be a duplicate itself
            signs += self._repeat_signs(content, place)
        characters = sum(len(message["content"]) for message in content)
        return _Opened(_without_value(raw), content, signs, characters)

    def _repeat_signs(self, messages: list[Message], place: int) -> Iterator[tuple[Sign, str]]:
        """Yield how a record that is no duplicate repeats parts of an earlier one."""
        plain, response = plain_form(messages), messages[-1]["content"]
        same_plain = self._first_equal("plain", plain, place)
        same_prompt = self._first_equal("prompt", messages[:-1], place)
        same_response = self._first_equal("response", response, place)
        if same_plain and len(plain) >= _LONG_PLAIN_FORM:
            yield Sign.NEAR_DUPLICATE, f"but for case and punctuation the same as {same_plain}"
            return
        if same_prompt:
            yield Sign.SAME_PROMPT, f"another response to the prompt of {same_prompt}"
        if same_response and len(response.split()) >= _LONG_RESPONSE_WORDS:
            yield Sign.SAME_RESPONSE, f"another prompt for the response of {same_response}"

    def _first_equal(self, part: str, value: Any, place: int) -> str | None:
        first = self._index[part].first_place(int(sha256_json(value)[:16], 16), place)
        return None if first is None else self._places.text(first)

    def close(self, batch: Sequence[_Opened], count_lengths: LengthCounter) -> None:
        """Measure the conversations of a batch and count all its records."""
        conversations = [one.content for one in batch if not isinstance(one.content, Rejection)]
        lengths = iter(count_lengths(conversations))
        for one in batch:
            if isinstance(one.content, Rejection):
                self._reject(one.raw, one.content)
                continue
            length = next(lengths)
            if isinstance(length, Rejection):
                self._reject(one.raw, length)
            else:
                self._measure(one, one.content, *length)

    def _measure(self, one: _Opened, messages: list[Message], prompt: int, response: int) -> None:
        length = prompt + response
        for part, n in (("prompt", prompt), ("response", response), ("record", length)):
            self._lengths[part].add(n)
        self._sources[one.raw.source].lengths.add(length)
        if self._max_length is not None and length > self._max_length:
            self._refused += length
            self._cut_off += length - self._max_length
            detail = f"{length} tokens, data.max_tokens is {self._max_length}"
            self._reject(one.raw, Rejection(Reason.TOO_LONG, detail))
        else:
            self._accept(one, messages)

    def _reject(self, raw: RawRecord, rejection: Rejection) -> None:
        self._rejected[rejection.reason] += 1
        finding = self._note(rejection.reason, raw, rejection.detail)
        if rejection.reason is Reason.CUT_OFF:
            self._breaks.append(finding)

    def _accept(self, one: _Opened, messages: list[Message]) -> None:
        source = self._sources[one.raw.source]
        source.usable += 1
        source.suspicious += bool(one.signs)
        for sign, detail in one.signs:
            self._signs[sign] += 1
            self._note(sign, one.raw, detail)
        self._roles.update(message["role"] for message in messages)
        turns = len(messages) - (messages[0]["role"] == "system")
        self._turns[min(turns, MOST_TURNS + 1)] += 1
        self._scripts[main_script("\n".join(message["content"] for message in messages))] += 1
        characters = len(messages[-1]["content"].strip())
        source.responses.add(characters)
        if not one.signs:
            source.unsigned.add(characters)
        order = next(self._order)
        _keep_extreme(source.longest, (characters, -order, one.raw))
        _keep_extreme(source.shortest, (-characters, -order, one.raw))

    def _note(self, kind: Kind, raw: RawRecord, detail: str) -> Finding:
        finding = Finding(kind, raw.source, raw.file, raw.line, raw.index, detail)
        if len(self._examples[kind]) < self._max_examples:
            self._examples[kind].append(finding)
        self._on_finding(finding)
        return finding

    def result(self) -> Checkup:
        """Judge lengths against those of their source, and return all counts."""
        for name, source in sorted(self._sources.items()):
            if source.usable >= OUTLIER_MIN_RECORDS:
                self._find_outliers(name, source)
        refused = self._rejected[Reason.TOO_LONG]
        return Checkup(
            read=sum(source.read for source in self._sources.values()),
            usable=sum(source.usable for source in self._sources.values()),
            suspicious=sum(source.suspicious for source in self._sources.values()),
            rejected=dict(sorted(self._rejected.items())),
            signs={sign: self._signs[sign] for sign in Sign if self._signs[sign]},
            by_source={
                name: SourceCheckup(
                    read=source.read,
                    usable=source.usable,
                    rejected=source.read - source.usable,
                    suspicious=source.suspicious,
                    lengths=_summarise(source.lengths),
                )
                for name, source in sorted(self._sources.items())
            },
            forms=_by_count(self._forms),
            roles=_by_count(self._roles),
            turns=dict(sorted(self._turns.items())),
            scripts=_by_count(self._scripts),
            lengths={part: _summarise(sketch) for part, sketch in self._lengths.items()},
            limit_cost=None
            if self._max_length is None
            else LimitCost(self._max_length, refused, self._refused, self._cut_off),
            duplicates=self._index["record"].repeats(),
            examples={kind: tuple(found) for kind, found in self._examples.items() if found},
            breaks=tuple(self._breaks),
        )

    def _find_outliers(self, name: str, source: _Source) -> None:
        first, third = source.responses.quantile(0.25), source.responses.quantile(0.75)
        spread = max(third / first, OUTLIER_MIN_SPREAD) ** OUTLIER_FENCE
        low, high = int(first / spread), int(third * spread)
        short, long = source.responses.count_beyond(low, high)
        source.suspicious += sum(source.unsigned.count_beyond(low, high))
        usual = f"half of the responses of {name} have {first:,} to {third:,} characters"
        for sign, n, extremes in (
            (Sign.VERY_SHORT, short, source.shortest),
            (Sign.VERY_LONG, long, source.longest),
        ):
            self._signs[sign] += n
            for signed, _, raw in sorted(extremes, reverse=True)[:n]:
                self._note(sign, raw, f"its length is {abs(signed):,}; {usual}")


def _keep_extreme(
    extremes: list[tuple[int, int, RawRecord]], entry: tuple[int, int, RawRecord]
) -> None:
    if len(extremes) < _LISTED_OUTLIERS:
        heapq.heappush(extremes, entry)
    else:
        heapq.heappushpop(extremes, entry)


def _without_value(raw: RawRecord) -> RawRecord:
    """Return the place of a record without its text, which would add up."""
    return RawRecord(raw.source, raw.file, raw.line, raw.index, None)


def _by_count(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _summarise(sketch: LengthSketch) -> Lengths:
    return Lengths(
        min=sketch.smallest,
        p5=sketch.quantile(0.05),
        median=sketch.quantile(0.5),
        p95=sketch.quantile(0.95),
        p99=sketch.quantile(0.99),
        max=sketch.largest,
        total=sketch.total,
    )

"""One data file to a stream of its elements; what cannot be read is reported where it stands."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from lead_core.errors import LeadError, first_reason
from lead_core.records import Reason, Rejection

OnRead = Callable[[int], object]

KNOWN_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv")
COMPRESSED_SUFFIXES = (".gz", ".zst")

_BLOCK_BYTES = 1 << 20
_SNIFFED_BYTES = 1 << 16
_SNIFFED_LINES = 10
_PARQUET_ROWS = 1000  # read at once
_PARQUET_BYTES = 1 << 26  # of them, unpacked; but one row at least
_KEPT_CHARACTERS = 100_000  # of a broken remainder, which may be most of a file
_LONGEST_CUT_TOKEN = 12  # characters of a JSON number or word that a block boundary can split
_LONGEST_RECORD = 1 << 24  # characters: a file without a line's end must not fill the memory
_DEEPEST = 100  # levels of nesting; far from where Python's own recursion ends
_PACKED_BLOCK_BYTES = 1 << 11  # of zst, of which 4 bytes can hold 128 kB: 64 MB at once, no more
_BOMB_RATIO = 500  # text packs to a tenth, the same line over and over to a two hundredth
_BOMB_BYTES = 1 << 30  # below that, any ratio is harmless
_OTHER_FORMATS = {
    b"\x1f\x8b": "gzip (.gz)",
    b"\x28\xb5\x2f\xfd": "Zstandard (.zst)",
    b"PAR1": "Parquet (.parquet)",
    b"PK\x03\x04": "a ZIP archive, which has to be unpacked",
    b"BZh": "bzip2, which has to be unpacked",
    b"\xfd7zXZ": "xz, which has to be unpacked",
}


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a file: its value, or the raw text and the problem.

    `line` is where it starts, counted from 1; None where a format has no lines.
    """

    value: Any
    line: int | None
    problem: Rejection | None = None


def read_file(path: Path, label: str, on_read: OnRead | None = None) -> Iterator[Element]:
    """Yield the elements of the file `path`, called `label` in errors; the label's suffix decides.

    JSONL, JSON (an array, or values one after the other), CSV and Parquet; the first three also
    with .gz or .zst. Memory does not grow with the file: a record longer than 16 million characters is
    reported, not read. on_read: is told, piece by piece, how many of the file's bytes (as they are on
    disk) have been read. Raises LeadError for a file that is missing, unreadable, empty or of no known
    format.
    """
    if path.is_dir():
        raise LeadError(f"{label} is a directory; name its files, as in {label}/*.jsonl")
    if path.exists() and not path.is_file():
        raise LeadError(f"{label} is a pipe or a device; expected a regular file")
    suffix = format_suffix(label)
    empty = True
    try:
        read = _parquet if suffix == ".parquet" else _text
        for element in read(path, label, on_read):
            empty = False
            yield element
    except FileNotFoundError:
        raise LeadError(f"{label}: no such file; check its entry in params.yaml") from None
    except OSError as error:
        raise LeadError(
            f"{label} cannot be read ({error.strerror or error}); check its permissions"
        ) from error
    if empty:
        raise LeadError(f"{label} holds no records; remove it from params.yaml or fill it")


def format_suffix(label: str) -> str:
    """Return the suffix that names the format, compression removed; LeadError if there is none."""
    name = Path(label.lower())
    inner = name.with_suffix("") if name.suffix in COMPRESSED_SUFFIXES else name
    if inner.suffix not in KNOWN_SUFFIXES or (inner != name and inner.suffix == ".parquet"):
        raise LeadError(
            f"{label}: the format is not known by this name; expected one of "
            f"{', '.join(KNOWN_SUFFIXES)} (text also with .gz or .zst)"
        )
    return inner.suffix


def text_encoding(path: Path, label: str) -> str | None:
    """Return Python's name of a text file's encoding, ``utf-8-sig`` with a byte order mark.

    Only the head is read. None for Parquet, which is no text.
    """
    return None if format_suffix(label) == ".parquet" else _Text(path, label).encoding


class _Text:
    """The decoded text of a file in blocks; ends early, with `damage` set, if decompression fails.

    Bytes that are not valid UTF-8 become lone surrogates, so that only the records that hold them
    are refused (`Reason.ENCODING`), and nothing is replaced silently.
    """

    def __init__(self, path: Path, label: str, on_read: OnRead | None = None):
        self.damage: str | None = None
        self._blocks = self._read(path, label, on_read)
        head = b""
        for block in self._blocks:
            head += block
            if len(head) >= _SNIFFED_BYTES:
                break
        _check_text(head, label)
        self.encoding = json.detect_encoding(head)
        errors = "surrogateescape" if self.encoding.startswith("utf-8") else "backslashreplace"
        self._decoder = codecs.getincrementaldecoder(self.encoding)(errors)
        self.head = self._decoder.decode(head)

    def __iter__(self) -> Iterator[str]:
        yield self.head
        for block in self._blocks:
            yield self._decoder.decode(block)
        yield self._decoder.decode(b"", final=True)

    def lines(self) -> Iterator[str]:
        """Yield lines, each with its newline. Only newlines end one: U+2028 may stand in text.

        Of a line that is too long, only as much comes as shows it (see `_is_too_long`).
        """
        rest = ""
        for text in self:
            *whole, rest = (rest + text).split("\n")
            for line in whole:
                yield line + "\n"
            rest = rest[: _LONGEST_RECORD + 2]
        if rest:
            yield rest

    def _read(self, path: Path, label: str, on_read: OnRead | None) -> Iterator[bytes]:
        import zstandard

        suffix = Path(label.lower()).suffix
        most = max(_BOMB_BYTES, _BOMB_RATIO * path.stat().st_size)
        try:
            with path.open("rb") as file:
                before = 0
                for block in _unpacked(file, suffix):
                    yield block[:most]
                    most -= len(block)
                    if most < 0:
                        self.damage = (
                            f"it unpacks to more than {_BOMB_RATIO} times its size, as no text "
                            "does: unpack it yourself if it is what you want"
                        )
                        return
                    if on_read is not None:
                        on_read(file.tell() - before)
                        before = file.tell()
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            self.damage = f"the compressed data is damaged or cut off here ({error})"


def _check_text(head: bytes, label: str) -> None:
    """Raise LeadError for a file that begins like another format than its name tells."""
    for magic, name in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise LeadError(f"{label} holds no text but {name}; give it the name of its format")


def _is_too_long(line: str) -> bool:
    return len(line) > _LONGEST_RECORD + 1  # with its newline


_TOO_LONG = Rejection(Reason.TOO_LONG, f"longer than {_LONGEST_RECORD:,} characters: not read")


def _unpacked(file: BufferedReader, suffix: str) -> Iterator[bytes]:
    """Yield the file's bytes in blocks, decompressed as its suffix says."""
    if suffix == ".zst":
        yield from _unpack_zst(file)
        return
    stream = gzip.GzipFile(fileobj=file) if suffix == ".gz" else file
    while block := stream.read1(_BLOCK_BYTES):
        yield block


def _unpack_zst(stream: BufferedReader) -> Iterator[bytes]:
    """Yield decompressed blocks of all frames; EOFError when the last one has no end.

    zstandard's own stream reader stops without a word at the end of the first frame and at a cut.
    """
    import zstandard

    decompressor = None
    while block := stream.read(_PACKED_BLOCK_BYTES):
        while block:
            if decompressor is None:
                decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            yield decompressor.decompress(block)
            block = decompressor.unused_data if decompressor.eof else b""
            decompressor = None if decompressor.eof else decompressor
    if decompressor is not None:
        raise EOFError("the last frame has no end")


def _text(path: Path, label: str, on_read: OnRead | None) -> Iterator[Element]:
    text, suffix = _Text(path, label, on_read), format_suffix(label)
    if suffix == ".csv":
        yield from _csv(text, label)
    elif _starts_an_array(text.head):
        yield from _json_values(text, in_array=True)
    elif suffix == ".json" and not _has_a_value_per_line(text.head):
        yield from _json_values(text, in_array=False)
    else:
        yield from _json_lines(text)


def _starts_an_array(head: str) -> bool:
    """Say whether the file is one array, rather than lines of which the first is a (bad) list."""
    first, _, rest = head.lstrip().partition("\n")
    if not first.startswith("["):
        return False
    return not (rest.strip() and _is_json(first, list))


def _has_a_value_per_line(head: str) -> bool:
    lines = [line for line in head.split("\n") if line.strip()][:_SNIFFED_LINES]
    return any(_is_json(line, dict) for line in lines)


def _is_json(text: str, kind: type) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False


def _json_lines(text: _Text) -> Iterator[Element]:
    for number, line in enumerate(text.lines(), start=1):
        content = line.strip().lstrip("\ufeff")  # a byte order mark inside: files put together
        if not content:
            continue
        if _is_too_long(line):
            yield Element(content[:_KEPT_CHARACTERS], number, _TOO_LONG)
            continue
        try:
            yield _element(json.loads(content), number, content)
        except (ValueError, RecursionError) as error:
            ended_early = text.damage is not None and not line.endswith("\n")
            reason = Reason.CUT_OFF if ended_early else Reason.BAD_JSON
            detail = text.damage if ended_early and text.damage else _explain(error)
            yield Element(content, number, Rejection(reason, detail))
            if ended_early:
                return
    if text.damage:
        yield Element("", None, Rejection(Reason.CUT_OFF, text.damage))


class _Window:
    """A piece of text that grows at its end as needed and knows its line number."""

    def __init__(self, text: _Text):
        self._blocks = iter(text)
        self.text = ""
        self.line = 1
        self.position = 0
        self.last = ""  # what was consumed last

    def grow(self) -> bool:
        """Drop what was consumed and append as much again, one block at least; False at the end."""
        self.text, self.position = self.text[self.position :], 0
        blocks, wanted = [], max(1, len(self.text))
        while wanted > 0:
            block = next(self._blocks, None)
            if block is None:
                break
            blocks.append(block)
            wanted -= len(block)
        self.text += "".join(blocks)
        return bool(blocks)

    def consume(self, end: int) -> None:
        self.line += self.text.count("\n", self.position, end)
        self.last = self.text[self.position : end]
        self.position = end

    def next_character(self) -> str:
        """Move to the next character that is not white space and return it; empty at the end."""
        while True:
            end = self.position
            while end < len(self.text) and self.text[end] in " \t\r\n\ufeff":
                end += 1
            self.consume(end)
            if end < len(self.text):
                return self.text[end]
            if not self.grow():
                return ""

    def rest(self) -> str:
        """Return what was not consumed, as far as it is worth keeping."""
        while len(self.text) - self.position < _KEPT_CHARACTERS and self.grow():
            pass
        return self.text[self.position :][:_KEPT_CHARACTERS]


def _json_values(text: _Text, *, in_array: bool) -> Iterator[Element]:
    """Yield the elements of a JSON array, or values one after the other, as they become whole.

    There is no way to find the next element behind a broken one, so the first problem ends the
    stream: what is left is one element, reported with its first 100,000 characters.
    """
    window = _Window(text)
    if in_array:
        window.next_character()
        window.consume(window.position + 1)
    first = True
    while True:
        character = window.next_character()
        if in_array and not first and character == ",":
            window.consume(window.position + 1)
            character = window.next_character()
        elif in_array and not first and character not in ("]", ""):
            yield _broken(window, "expected a comma or the end of the array")
            return
        if character == "" or (in_array and character == "]"):
            break
        line = window.line
        try:
            value = _decode_next(window)
        except EOFError:
            yield _broken(window, text.damage or "the file ends inside this element")
            return
        except (ValueError, RecursionError) as error:
            yield _broken(window, _explain(error))
            return
        yield _element(value, line, window.last)
        first = False
    if in_array and character == "":
        yield _broken(window, text.damage or "the file ends before the array does")
    elif in_array:
        window.consume(window.position + 1)
        if window.next_character():
            yield _broken(window, "there is text after the end of the array")
    elif text.damage:
        yield _broken(window, text.damage)


def _element(value: Any, line: int, text: str) -> Element:
    """Return what `text` stands for; nested too deeply, it is a problem to whoever looks."""
    if text.count("[") + text.count("{") > _DEEPEST and _is_deep(value):
        kept = text.strip()[:_KEPT_CHARACTERS]
        return Element(kept, line, Rejection(Reason.BAD_JSON, _explain(RecursionError())))
    return Element(value, line)


def _is_deep(value: Any) -> bool:
    """Whether `value` has more than `_DEEPEST` levels."""
    level = [value]
    for _ in range(_DEEPEST + 1):
        inner = [
            v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)
        ]
        level = [one for values in inner for one in values]
    return bool(level)


_DECODER = json.JSONDecoder()


def _decode_next(window: _Window) -> Any:
    """Decode the value at the window's position; EOFError if the text ends inside it."""
    while True:
        try:
            value, end = _DECODER.raw_decode(window.text, window.position)
        except json.JSONDecodeError as error:
            unfinished = error.msg.startswith("Unterminated string")
            if not unfinished and error.pos < len(window.text) - _LONGEST_CUT_TOKEN:
                raise
            if len(window.text) - window.position > _LONGEST_RECORD:
                raise ValueError(_TOO_LONG.detail) from None
            if not window.grow():
                if unfinished or error.pos >= len(window.text):
                    raise EOFError from None
                raise
            continue
        # A number at the very end may have more digits to come.
        if end == len(window.text) and not isinstance(value, dict | list | str):
            if not window.grow():
                raise EOFError
            continue
        window.consume(end)
        return value


def _broken(window: _Window, detail: str) -> Element:
    line = window.line
    return Element(
        window.rest(), line, Rejection(Reason.CUT_OFF, f"{detail}; nothing after this was read")
    )


def _explain(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} (column {error.colno})"
    if isinstance(error, RecursionError):
        return "not JSON that can be read: nested too deeply"
    return f"not JSON that can be read: {' '.join(str(error).split())}"


class _RowTooLongError(csv.Error):
    """A row of many lines that is longer than a record may be; the reader goes on behind it."""


class _RowLines:
    """The lines of a CSV file one by one, and those that the present row has taken."""

    def __init__(self, text: _Text):
        self.taken: list[str] = []
        self._lines = text.lines()
        self._read = 0
        self._characters = 0

    def begin_row(self) -> int:
        """Forget the last row; return the number of the line that comes next."""
        self.taken.clear()
        self._characters = 0
        return self._read + 1

    @property
    def kept(self) -> str:
        """The text of the row as far as it is worth keeping."""
        return "".join(self.taken)[:_KEPT_CHARACTERS]

    def __iter__(self) -> _RowLines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._read += 1
        self.taken.append(line)
        self._characters += len(line)
        if len(self.taken) > 1 and self._characters > _LONGEST_RECORD:
            raise _RowTooLongError(_TOO_LONG.detail)
        return line


def _csv(text: _Text, label: str) -> Iterator[Element]:
    """Yield rows as ``{column: text}``. Quoting is strict, else a lost quote merges rows silently."""
    csv.field_size_limit(_LONGEST_RECORD)
    lines = _RowLines(text)
    rows = csv.reader(lines, strict=True)
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise LeadError(f"{label}: the header is not valid CSV ({error})") from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise LeadError(f"{label}: two columns are called {twice[0]!r}; rename one")
    while True:
        line = lines.begin_row()
        try:
            row = next(rows, None)
        except csv.Error as error:
            too_long = isinstance(error, _RowTooLongError)
            bad = Rejection(Reason.BAD_CSV, f"not valid CSV: {error}")
            yield Element(lines.kept, line, _TOO_LONG if too_long else bad)
            continue
        if row is None:
            break
        if any(map(_is_too_long, lines.taken)):
            yield Element(lines.kept, line, _TOO_LONG)
        elif row and len(row) != len(header):
            detail = f"the row has {len(row)} cells, the header {len(header)}"
            yield Element("".join(lines.taken), line, Rejection(Reason.BAD_CSV, detail))
        elif row:
            yield Element(dict(zip(header, row, strict=True)), line)
    if text.damage:
        yield Element("", None, Rejection(Reason.CUT_OFF, text.damage))


def _parquet(path: Path, label: str, on_read: OnRead | None) -> Iterator[Element]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            rows = max(1, file.metadata.num_rows)
            bytes_per_row = path.stat().st_size / rows
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            unpacked = sum(group.total_byte_size for group in groups) / rows
            at_once = min(_PARQUET_ROWS, max(1, int(_PARQUET_BYTES / max(1, unpacked))))
            for batch in file.iter_batches(batch_size=at_once):
                yield from _batch_rows(batch)
                if on_read is not None:
                    on_read(round(batch.num_rows * bytes_per_row))
    except pa.ArrowInvalid as error:
        reason = first_reason(error)
        raise LeadError(
            f"{label} is not a whole Parquet file ({reason}); write or copy it again"
        ) from error


def _batch_rows(batch: Any) -> Iterator[Element]:
    if batch.nbytes > _LONGEST_RECORD and batch.num_rows > 1:  # one of the rows may be too long
        for start in range(batch.num_rows):
            yield from _batch_rows(batch.slice(start, 1))
        return
    if batch.nbytes > _LONGEST_RECORD:
        yield Element(str(_row_with_bad_text(batch).value)[:_KEPT_CHARACTERS], None, _TOO_LONG)
        return
    try:
        for row in batch.to_pylist():
            yield Element(row, None)
    except UnicodeDecodeError:
        for start in range(batch.num_rows):
            yield _row_with_bad_text(batch.slice(start, 1))


def _row_with_bad_text(row: Any) -> Element:
    """Return a one-row batch column by column, since one bad text must not cost its neighbours."""
    values: dict[str, Any] = {}
    bad = []
    for name in row.schema.names:
        try:
            values[name] = row.column(name)[0].as_py()
        except UnicodeDecodeError as error:
            values[name] = error.object.decode("utf-8", "backslashreplace")
            bad.append(name)
    if not bad:
        return Element(values, None)
    return Element(values, None, Rejection(Reason.ENCODING, f"{', '.join(bad)} is not valid UTF-8"))

"""Writing files so that a kill or a full disk never leaves half of one under its final name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from lead_core.errors import LeadError


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: temporary file beside it, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8, newlines as given) in one step."""
    write_bytes(path, text.encode("utf-8"))


def json_text(value: Any) -> str:
    """Return `value` as JSON with one fixed form: sorted keys, two spaces, no NaN, final newline."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON in the form of `json_text`."""
    write_text(path, json_text(value))


def read_json(path: Path, *, made_by: str) -> Any:
    """Return the JSON value in `path`; `made_by` names the command to run when it is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LeadError(f"{path} is not there; run `{made_by}` first") from None
    except ValueError as error:
        raise LeadError(f"{path} is not valid JSON ({error}); run `{made_by}` again") from error


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Replace `path` by one compact JSON value per line."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_text(path, "".join(lines))


def append_jsonl(path: Path, row: Any) -> None:
    """Append one JSON line to a log that is nobody's input (timings, progress).

    A line that a kill or a full disk cut short is ended first: it costs itself, not the next one too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = f"{json.dumps(row, ensure_ascii=False)}\n".encode()
    with path.open("a+b") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read(1) == b"\n" else b"\n" + line
        stream.write(line)


def read_jsonl_log(path: Path) -> list[Any]:
    """Return the rows of a log that was only ever appended to; none when it is not there.

    Lines that are no JSON (cut short, see `append_jsonl`) are left out: what they belonged to was
    never finished.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[TextIO]:
    """Yield a text stream (UTF-8) whose file takes the place of `path` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            yield stream
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `path` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256_file(path: Path, on_read: Callable[[int], object] | None = None) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes, read in pieces.

    on_read: is told the bytes of each piece.
    """
    with path.open("rb") as stream:
        if on_read is None:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
            on_read(len(block))
        return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Return the hexadecimal SHA-256 of a JSON value in its canonical (sorted, compact) form."""
    canonical = json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

"""What waits to be recorded, on disk: the truth about a run until MLflow has all of it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from lead_core.storage import append_jsonl, write_json

Event = dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """How far an outbox was sent: two byte offsets into its events, and the run they went to.

    Files have an offset of their own, so that a broken artifact store holds up no metric.
    """

    record: int = 0
    files: int = 0
    run_id: str | None = None


class Outbox:
    """The events of one process about one run, oldest first, and the files that they name.

    A directory: `events.jsonl` (only ever appended to), `sent.json` (how much of it has arrived),
    `files/` (copies, since the originals may be gone by then), `lock` (held by the writer as long
    as it lives, so that nobody mistakes a live run for one that was killed).
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._lock = FileLock(directory / "lock")
        self._stream: IO[bytes] | None = None

    @property
    def name(self) -> str:
        """The directory's name; names sort in the order of their creation."""
        return self.directory.name

    def lock(self) -> bool:
        """Return whether this process now holds the outbox; False if another one does or did."""
        events = self.directory / "events.jsonl"
        if not events.exists():
            return False
        try:
            self._lock.acquire(blocking=False)
        except (Timeout, OSError):
            return False
        if not events.exists():  # removed just now; locking has made the directory again
            shutil.rmtree(self.directory)
            self._lock.release()
            return False
        return True

    def append(self, event: Event) -> None:
        """Add one event; it survives a kill of this process as soon as this returns."""
        line = json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
        if self._stream is None:
            self._stream = (self.directory / "events.jsonl").open("ab")
            self._stream.write(b"\n" if self._stream.tell() else b"")  # ends a torn last line
        self._stream.write(line.encode("utf-8", "backslashreplace"))
        self._stream.flush()

    def read(self, offset: int) -> Iterator[tuple[Event, int]]:
        """Yield every whole event from byte `offset` on, with the offset that follows it."""
        with (self.directory / "events.jsonl").open("rb") as stream:
            stream.seek(offset)
            for line in stream:
                offset += len(line)
                try:
                    event = json.loads(line)
                except ValueError:  # blank, or torn by a kill
                    continue
                yield event, offset

    def stage(self) -> Path:
        """Return a new empty directory inside the outbox, for the files of one event."""
        folder = self.directory / "files"
        folder.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(dir=folder))

    @property
    def sent(self) -> Sent:
        """How much has arrived."""
        try:
            return Sent(**json.loads((self.directory / "sent.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Sent()

    def mark_sent(self, sent: Sent) -> None:
        """Remember how much has arrived."""
        write_json(self.directory / "sent.json", asdict(sent))

    def refuse(self, event: Event, reason: str) -> None:
        """Keep an event that the server will never take, beside the outboxes, with the reason."""
        row = {"outbox": self.name, "reason": reason, "event": event}
        append_jsonl(self.directory.parent / "refused.jsonl", row)

    def release(self) -> None:
        """Let go of the outbox: whoever sends next may take it."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._lock.release()

    def remove(self) -> None:
        """Delete the outbox; all of it has arrived."""
        # Under a hidden name first: a kill in the middle leaves nothing that looks like an outbox.
        doomed = self.directory.with_name(f".{self.name}")
        self.directory.replace(doomed)
        self.release()
        shutil.rmtree(doomed, ignore_errors=True)


def create_outbox(root: Path, first: Event) -> Outbox:
    """Make and lock an outbox under `root` whose first event is `first`."""
    stamp = time.time_ns()
    if earlier := list_outboxes(root):  # behind them, even if the clock was set back since
        stamp = max(stamp, int(earlier[-1].name.partition("-")[0]) + 1)
    name = f"{stamp:020d}-{os.getpid()}"
    outbox = Outbox(root / f".{name}")
    outbox.directory.mkdir(parents=True)
    outbox.append(first)
    outbox.lock()
    # The lock moves along with the directory: nobody ever sees this outbox without its owner.
    outbox.directory = outbox.directory.replace(root / name)
    return outbox


def list_outboxes(root: Path) -> list[Outbox]:
    """Return the outboxes under `root`, oldest first."""
    return [Outbox(path) for path in sorted(root.glob("[0-9]*")) if path.is_dir()]

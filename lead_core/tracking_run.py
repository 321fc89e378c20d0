"""A run as the stages see it: whatever they log goes to disk first and to the server later."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from lead_core.tracking_champion import PROMOTION_TAG
from lead_core.tracking_names import first_line, legal_name, legal_tags, redact
from lead_core.tracking_outbox import Event, Outbox, create_outbox

FLUSH_POINTS = 1000
FLUSH_SECONDS = 10.0
FIRST_RETRY_SECONDS = 30.0  # after an outage; doubled by every further failure
LAST_RETRY_SECONDS = 900.0

logger = logging.getLogger(__name__)


class Carrier(Protocol):
    """What brings outboxes to the server; any exception of `deliver` is an outage."""

    @property
    def destination(self) -> str:
        """The server's name, fit for logs."""

    @property
    def run_id(self) -> str | None:
        """The server's id of the run; None while it is not known."""

    @property
    def verdict(self) -> str | None:
        """What became of the run's candidate for champion; None while that is not decided."""

    def deliver(self, outbox: Outbox) -> None:
        """Send all that has not arrived yet."""

    def save_adapter(self, path: Path, model: Any, tokenizer: Any, base_model_dir: Path) -> None:
        """Write the adapter of a PEFT model into `path`, in the server's form of a model."""


class TrackedRun:
    """An open run. No method raises for a tracking failure, and none waits long for a server."""

    def __init__(self, root: Path, carrier: Carrier, opening: Event):
        self._root = root
        self._carrier = carrier
        self._outbox: Outbox | None = None
        self._waiting_points = 0
        self._next_flush = 0.0
        self._retry_seconds = 0.0  # above 0 during an outage
        self._warned = False
        self._refusal: str | None = None  # of a champion
        self._names: dict[str, str] = {}
        self._skipped: Counter[str] = Counter()
        try:
            self._outbox = create_outbox(root, {**opening, "time": _now()})
        except OSError as error:
            self._give_up(error)
        self._flush()

    @property
    def run_id(self) -> str | None:
        """The server's id of the run; None while the server cannot be reached."""
        return self._carrier.run_id

    @property
    def skipped(self) -> dict[str, int]:
        """How many values of each metric were left out for not being a finite number."""
        return dict(self._skipped)

    def log_metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers: with a step as points of series, without one as figures of the whole run.

        A point once recorded stays (a resumed training logs some again); of a figure the newest
        value counts. None is left out; what is no finite number is left out and counted.
        """
        kept: dict[str, float] = {}
        for name, value in values.items():
            if value is None:
                continue
            legal = self._names.get(name) or self._names.setdefault(name, legal_name(name))
            number = _number(value)
            if math.isfinite(number):
                kept[legal] = number
            else:
                self._skipped[legal] += 1
        if kept:
            self._waiting_points += len(kept)
            place = None if step is None else int(step)
            self._record({"do": "metrics", "step": place, "values": kept}, flush=False)
        due = self._waiting_points >= FLUSH_POINTS and not self._retry_seconds
        if due or time.monotonic() >= self._next_flush:
            self._flush()

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags of the run; those that are None are left out."""
        self._record({"do": "tags", "tags": legal_tags(tags)})

    def log_dataset(self, name: str, digest: str, source: str, rows: int, context: str) -> None:
        """Name a data set as an input of the run; `context` says what for, as ``training``."""
        event = {"name": name, "digest": digest, "source": redact(source), "rows": int(rows)}
        self._record({"do": "dataset", "context": context, **event})

    def log_artifact(self, path: Path, artifact_path: str | None = None) -> None:
        """Keep a copy of a file or a directory with the run, under `artifact_path`."""

        def copy(directory: Path) -> Path:
            method = shutil.copytree if path.is_dir() else shutil.copy2
            return Path(method(path, directory / path.name))

        self._record_file({"do": "artifact", "to": artifact_path}, copy)

    def log_table(self, frame: Any, name: str) -> None:
        """Keep a pandas DataFrame as the table `name` (``.json``), as `mlflow.load_table` reads it.

        Unlike MLflow's own `log_table`, logging it again replaces the table.
        """

        def write(directory: Path) -> Path:
            path = directory / Path(name).name
            frame.to_json(path, orient="split", index=False, date_format="iso")
            return path

        self._record_file({"do": "table", "to": name}, write)

    def log_adapter(self, model: Any, tokenizer: Any, base_model_dir: Path) -> None:
        """Keep a PEFT model's adapter as a loadable model named ``adapter``.

        The base model is referred to by its directory (which must hold `config.json`), not stored.
        """

        def save(directory: Path) -> Path:
            path = directory / "adapter"
            self._carrier.save_adapter(path, model, tokenizer, base_model_dir)
            return path

        self._record_file({"do": "adapter"}, save)

    def offer_champion(self, name: str, heldout: Path, model_sha256: str) -> None:
        """Let the run's adapter become champion of the registered model `name`, if it is better.

        heldout: Parquet with columns id and tuned_loss. Decided when the server can be reached.
        """

        def copy(directory: Path) -> Path:
            return Path(shutil.copy2(heldout, directory / heldout.name))

        self._record_file({"do": "promote", "name": name, "model_sha256": model_sha256}, copy)

    def refuse_champion(self, reason: str) -> None:
        """Say why the run's adapter does not even come into question as champion."""
        self._refusal = reason
        self.set_tags({PROMOTION_TAG: reason})

    @property
    def verdict(self) -> str:
        """What became of the run's adapter as a candidate for champion, in one line."""
        undecided = "undecided, for MLflow cannot be reached; the next run or `lead sync` decides"
        return self._refusal or self._carrier.verdict or undecided

    def close(self, status: str, failure: str | None = None) -> None:
        """End the run as FINISHED, or as FAILED or KILLED for the reason `failure`."""
        if self._skipped:
            counts = ", ".join(f"{name}: {count}" for name, count in self._skipped.items())
            self._record({"do": "tags", "tags": {"lead.skipped_values": counts}}, flush=False)
        self._record({"do": "close", "status": status, "failure": failure}, flush=False)
        self._flush()
        if self._outbox is None:
            return
        try:
            if self._retry_seconds:
                self._outbox.release()
            else:
                self._outbox.remove()
        except OSError as error:
            logger.warning("tracking: %s is left behind: %s", self._outbox.name, first_line(error))

    def _record(self, event: Event, *, flush: bool = True) -> None:
        if self._outbox is None:
            return
        try:
            self._outbox.append({**event, "time": _now()})
        except OSError as error:
            self._give_up(error)
        if flush and not self._retry_seconds:
            self._flush()

    def _record_file(self, event: Event, make: Callable[[Path], Path]) -> None:
        """Record an event with a file that `make` puts into the directory given to it."""
        if self._outbox is None:
            return
        try:
            path = make(self._outbox.stage())
        except Exception as error:  # of pandas, MLflow, the disk: no reason to lose the training
            logger.warning("tracking: no %s in the record: %s", event["do"], first_line(error))
        else:
            self._record({**event, "file": str(path.relative_to(self._outbox.directory))})

    def _give_up(self, error: OSError) -> None:
        """Go on without tracking: the disk does not let us keep what is logged."""
        logger.warning("tracking: off for the rest of this run: %s", first_line(error))
        self._outbox = None

    def _flush(self) -> None:
        """Send what waits; when that fails, warn once and leave it on disk for later."""
        if self._outbox is None:
            return
        try:
            self._carrier.deliver(self._outbox)
            self._retry_seconds = 0.0
        except Exception as error:  # of any library below the carrier; training goes on regardless
            self._retry_seconds = min(
                max(2 * self._retry_seconds, FIRST_RETRY_SECONDS), LAST_RETRY_SECONDS
            )
            if not self._warned:
                self._warned = True
                logger.warning(
                    "tracking: %s cannot be used (%s); the run goes on, its record waits in %s, "
                    "and the next run or `lead sync` sends it",
                    self._carrier.destination,
                    first_line(error),
                    self._root,
                )
        self._waiting_points = 0
        self._next_flush = time.monotonic() + (self._retry_seconds or FLUSH_SECONDS)


def _number(value: Any) -> float:
    """Return `value` as a float; not a number if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _now() -> int:
    """Return the time in milliseconds, MLflow's unit."""
    return time.time_ns() // 1_000_000

"""Resumable state of a training run: written whole or not at all, checked by hash when read.

A folder per training (`<state root>/train-<key>`, the key being the hash of its params and inputs)
holds the last two checkpoints and the append-only logs that they refer to. No pickle anywhere:
tensors as safetensors, arrays as npz, the rest as JSON.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from lead_core.storage import (
    append_jsonl,
    read_jsonl_log,
    replaced_directory,
    sha256_file,
    write_json,
)

SCHEMA = 3
LOGS = ("rounds.jsonl", "selection.jsonl")
WORK = "work.jsonl"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a training run continues from: tensors and arrays by name, and plain values.

    number: pieces of work that led to it, see `CheckpointStore.note_work`; a later one has more.
    """

    number: int
    values: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tensors: dict[str, torch.Tensor]


class CheckpointStore:
    """The checkpoints and logs of one training run."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._attempt = 0
        self._forget_logs()

    @property
    def attempt(self) -> int:
        """How often this training was started, this time included; 0 before `begin_attempt`."""
        return self._attempt

    def append(self, log: str, rows: Iterable[dict[str, Any]]) -> None:
        """Append `rows` to a log; they count once a later `save` refers to them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = "".join(json.dumps(row, allow_nan=True) + "\n" for row in rows).encode()
        with (self.folder / log).open("ab") as stream:
            stream.write(data)
        self._digests[log].update(data)
        self._sizes[log] += len(data)

    def read_log(self, log: str) -> list[dict[str, Any]]:
        """Return all rows that were appended to `log`."""
        return read_jsonl_log(self.folder / log)

    def note_work(self, number: int, column: str, sequences: int, tokens: int) -> None:
        """Note what the training's `number`-th piece of work is about to forward, lest a kill lose it.

        A piece is what a kill can undo as a whole: one optimizer step, or one full-pool pass.
        """
        row = {"work": number, "column": column, "sequences": sequences, "tokens": tokens}
        append_jsonl(self.folder / WORK, {"attempt": self._attempt, **row})

    def begin_attempt(self, work_done: int) -> tuple[int, int]:
        """Return the sequences and tokens that kills have cost so far: noted, and to be done again.

        Each start is an attempt, from a state that `work_done` pieces of work led to; of the earlier
        attempts every piece is lost that was not yet in the state which a later one began with.
        """
        rows = self.read_log(WORK)
        self._attempt = 1 + max((row["attempt"] for row in rows), default=0)
        append_jsonl(self.folder / WORK, {"attempt": self._attempt, "work_done": work_done})
        starts = {row["attempt"]: row["work_done"] for row in rows if "work_done" in row}
        starts[self._attempt] = work_done
        lost = [
            row
            for row in rows
            if "work" in row
            and any(n > row["attempt"] and done < row["work"] for n, done in starts.items())
        ]
        return sum(row["sequences"] for row in lost), sum(row["tokens"] for row in lost)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write `checkpoint` in one step and drop all but the last two."""
        target = self.folder / f"checkpoint-{checkpoint.number:06d}"
        with replaced_directory(target) as folder:
            save_file(checkpoint.tensors, folder / "tensors.safetensors")
            np.savez(folder / "arrays.npz", allow_pickle=False, **checkpoint.arrays)
            logs = {
                name: {"bytes": self._sizes[name], "sha256": self._digests[name].hexdigest()}
                for name in LOGS
            }
            write_json(folder / "values.json", {"logs": logs, "values": checkpoint.values})
            hashes = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
            write_json(folder / "checkpoint.json", {"schema": SCHEMA, "files": hashes})
        for old in self._numbered()[KEPT:]:
            shutil.rmtree(old)

    def load_latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, with the logs cut back to it; None for none.

        A damaged one is named on stderr, put aside, and the one before it taken.
        """
        self._remove_scraps()
        for folder in self._numbered():
            problem = self._problem_of(folder)
            if problem is None:
                return self._load(folder)
            print(
                f"checkpoint {folder} is damaged ({problem}); trying the one before",
                file=sys.stderr,
            )
            # Under its own name it would count as newer than all that are written from now on.
            aside = folder.with_name(f"damaged-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        for name in LOGS:
            (self.folder / name).unlink(missing_ok=True)
        self._forget_logs()
        return None

    def _remove_scraps(self) -> None:
        """Remove what a kill left of a write that was never finished."""
        for scrap in self.folder.glob(".*"):
            shutil.rmtree(scrap) if scrap.is_dir() else scrap.unlink()

    def _numbered(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-??????"), reverse=True)

    def _forget_logs(self) -> None:
        self._digests = {name: hashlib.sha256() for name in LOGS}
        self._sizes = dict.fromkeys(LOGS, 0)

    def _problem_of(self, folder: Path) -> str | None:
        """Return why `folder` cannot be used, or None."""
        try:
            manifest = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
            if manifest["schema"] != SCHEMA:
                return f"schema {manifest['schema']}, this version reads {SCHEMA}"
            for name, expected in manifest["files"].items():
                if sha256_file(folder / name) != expected:
                    return f"{name} does not have the recorded hash"
            logs = json.loads((folder / "values.json").read_text(encoding="utf-8"))["logs"]
            for name, expected in logs.items():
                if self._digest_of(name, expected["bytes"]) != expected["sha256"]:
                    return f"{name} does not hold what the checkpoint refers to"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _digest_of(self, log: str, size: int) -> str:
        path = self.folder / log
        data = path.read_bytes()[:size] if path.exists() else b""
        return hashlib.sha256(data).hexdigest()

    def _load(self, folder: Path) -> Checkpoint:
        saved = json.loads((folder / "values.json").read_text(encoding="utf-8"))
        for name, expected in saved["logs"].items():
            path = self.folder / name
            data = path.read_bytes()[: expected["bytes"]] if path.exists() else b""
            with path.open("ab") as stream:
                stream.truncate(expected["bytes"])
            self._digests[name], self._sizes[name] = hashlib.sha256(data), len(data)
        with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        number = int(folder.name.rpartition("-")[2])
        return Checkpoint(
            number, saved["values"], arrays, load_file(folder / "tensors.safetensors")
        )

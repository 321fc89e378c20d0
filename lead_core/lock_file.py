"""The file `sources.lock.json`: its name, form and reading; `lock.py` knows what to put into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lead_core.errors import LeadError
from lead_core.storage import json_text, read_json, write_text

if TYPE_CHECKING:
    from lead_core.assets import ResolvedModel

LOCK_FILE = "sources.lock.json"
# scoring_model: that of score.model, or null. benchmarks: what the pool is checked against.
# evaluation: the files in evaluate.data_dir. start: the earlier run that grow.start_from names.
PARTS = frozenset({"sources", "model", "scoring_model", "benchmarks", "evaluation", "start"})
NEXT = "run `lead lock`"


def write_lock(path: Path, lock: dict[str, Any]) -> bool:
    """Write `lock` to `path`; an equal file is left untouched. Returns whether it was written."""
    text = json_text(lock)
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    write_text(path, text)
    return True


def read_lock(path: Path) -> dict[str, Any]:
    """Return the lock in `path`; LeadError if it is missing or was not written by this program."""
    lock = read_json(path, made_by="lead lock")
    if not isinstance(lock, dict) or lock.get("schema") != 1 or not lock.keys() >= PARTS:
        raise LeadError(f"{path.name}: not a lock of this version; {NEXT} to write it again")
    return lock


def model_entry(model: ResolvedModel) -> dict[str, Any]:
    """Return what the lock holds of a model."""
    return {"name": model.name, "revision": model.revision, "sha256": model.sha256}


def check_model(
    key: str, locked: Mapping[str, Any] | None, current: Mapping[str, Any] | None
) -> None:
    """Raise LeadError unless the entry `current` of the model under `key` is as it was locked."""
    if locked == current:
        return
    was, name = ("null" if entry is None else entry["name"] for entry in (locked, current))
    changed = "its files changed" if was == name else f"it was {was}"
    raise LeadError(f"{key} {name} is not the locked one: {changed}; {NEXT}")


def check_files(locked: list[dict[str, Any]], current: list[dict[str, Any]]) -> None:
    """Raise LeadError for the first file (``path``, ``sha256``) that is not as it was locked."""
    before = {file["path"]: file["sha256"] for file in locked}
    now = {file["path"]: file["sha256"] for file in current}
    for path in sorted(before | now):
        if before.get(path) != now.get(path):
            how = "is new" if path not in before else "is gone" if path not in now else "changed"
            raise LeadError(f"{path} {how} since it was locked; {NEXT}")

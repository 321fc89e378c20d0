"""What lies below a workspace and is of no more use; whatever somebody may still need is not found."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from lead_core.errors import LeadError, first_reason

QUIET_SECONDS = 3600.0  # what was written more recently may be somebody's work at this moment
_SCRAP = re.compile(r"\..+\.[a-z0-9_]{8}")  # the temporary names of `storage`


@dataclass(frozen=True)
class Waste:
    """A file or folder that may go: its size, and why."""

    path: Path
    size_bytes: int
    why: str


def stale_states(folder: Path, wanted: Set[str]) -> Iterator[Waste]:
    """Yield the states of trainings in `folder` whose names are not `wanted` and that rest."""
    yield from _stale(folder.glob("train-*"), wanted, "training")


def stale_scores(folder: Path, wanted: Set[str]) -> Iterator[Waste]:
    """Yield the finished batches of scorings in `folder` whose names are not `wanted` and that rest."""
    yield from _stale(folder.glob("*"), wanted, "scoring")


def _stale(states: Iterable[Path], wanted: Set[str], work: str) -> Iterator[Waste]:
    for state in sorted(states):
        if state.name not in wanted and _rests(state):
            yield _waste(state, f"state of a {work} that params.yaml no longer asks for")


def former_champions(folder: Path, wanted: Set[str]) -> Iterator[Waste]:
    """Yield the kept runs in `folder` whose names are not `wanted` and that rest."""
    for run in sorted(folder.glob("[!.]*")):
        if run.name not in wanted and _rests(run):
            yield _waste(run, "a run that could have become champion, and is not")


def surplus_answers(folder: Path, limit_bytes: int) -> Iterator[Waste]:
    """Yield the least recently used answers of the evaluation cache beyond `limit_bytes` in all."""
    entries = sorted(folder.rglob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    kept = 0
    for path in entries:
        kept += path.stat().st_size
        if kept > limit_bytes and _rests(path):
            yield _waste(path, "answers of an evaluation, beyond --eval-cache-mb")


def scraps(folder: Path) -> Iterator[Waste]:
    """Yield what a kill left of writes that were never finished, below `folder`."""
    for path in sorted(folder.rglob(".*")):
        if _SCRAP.fullmatch(path.name) and _rests(path):
            yield _waste(path, "left of a write that was never finished")


def remove(waste: Waste) -> None:
    """Delete it; what has gone meanwhile is no error. Raises LeadError where that is not permitted."""
    try:
        if waste.path.is_dir():
            shutil.rmtree(waste.path)
        else:
            waste.path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise LeadError(f"{waste.path} cannot be removed: {first_reason(error)}") from error


def _waste(path: Path, why: str) -> Waste:
    return Waste(path, sum(file.stat().st_size for file in _files(path)), why)


def _rests(path: Path) -> bool:
    """Whether nothing in `path` was written lately."""
    newest = max((each.stat().st_mtime for each in [path, *_files(path)]), default=0.0)
    return newest < time.time() - QUIET_SECONDS


def _files(path: Path) -> list[Path]:
    return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]

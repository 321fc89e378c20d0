"""Where training and scoring keep their resumable states, and when those may go."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from lead_core.storage import sha256_file, sha256_json, write_text

_FINISHED = "finished"


def state_folder(workspace: Path, key: str) -> Path:
    """Return the folder for the training that `key` (a hash of parameters and inputs) stands for."""
    return workspace / ".lead_state" / f"train-{key[:16]}"


def scores_folder(workspace: Path, key: str) -> Path:
    """Return the folder for the finished batches of a scoring with the model and arithmetic `key`."""
    return workspace / ".lead_state" / "scores" / key[:16]


def code_hash() -> str:
    """Return a hash of this package's code: a state must not be continued by another algorithm."""
    package = Path(__file__).parent
    files = sorted(package.rglob("*.py"))
    return sha256_json({path.relative_to(package).as_posix(): sha256_file(path) for path in files})


def mark_finished(folder: Path) -> None:
    """Note that everything is written that is made of this state.

    It stays until `drop_finished_states` or `drop_finished_scores`: DVC may yet be killed before it
    has taken note of the outputs, and would then run the stage again.
    """
    write_text(folder / _FINISHED, "")


def claim_state(folder: Path) -> None:
    """Take back `mark_finished`: what goes on from a finished state must keep it."""
    (folder / _FINISHED).unlink(missing_ok=True)


def drop_finished_states(workspace: Path) -> None:
    """Delete the states of finished trainings; those at work and those to be resumed stay.

    For where no other training starts meanwhile: it might lose the state that it is about to claim.
    """
    _drop_finished((workspace / ".lead_state").glob("train-*"))


def drop_finished_scores(workspace: Path) -> None:
    """Delete the states of finished scorings; those to be resumed stay.

    For the stages behind score: by then DVC has taken note of its outputs.
    """
    _drop_finished((workspace / ".lead_state" / "scores").glob("*"))


def _drop_finished(folders: Iterable[Path]) -> None:
    for folder in folders:
        if (folder / _FINISHED).exists():
            shutil.rmtree(folder, ignore_errors=True)  # another process may be at it too

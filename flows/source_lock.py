"""Keeping sources.lock.json current: through it DVC sees the sources and the model."""

from __future__ import annotations

from pathlib import Path

from lead_core.errors import LeadError
from lead_core.params import load_params

SOURCE_LOCK = "sources.lock.json"


def update_source_lock(workspace: Path) -> bool:
    """Write the lock anew if what it describes has changed; return whether it had.

    Raises LeadError for a source or model that is not there, TransientError when a server did not
    answer.
    """
    from lead_core.lock import build_lock
    from lead_core.lock_file import write_lock

    params = load_params(workspace / "params.yaml")
    return write_lock(workspace / SOURCE_LOCK, build_lock(params, workspace))


def source_lock_problem(workspace: Path) -> str | None:
    """Return why the lock would be written anew, in one line; None if it is current."""
    from lead_core.lock import check_lock
    from lead_core.lock_file import read_lock

    params = load_params(workspace / "params.yaml")
    try:
        check_lock(read_lock(workspace / SOURCE_LOCK), params, workspace)
    except LeadError as error:
        return str(error)
    return None

"""A folder that `lead export` writes: whole or not at all, and never over anybody else's files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lead_core.errors import LeadError
from lead_core.storage import read_json, replaced_directory, sha256_file, write_json

MANIFEST = "lead_export.json"
SCHEMA = 1


@contextlib.contextmanager
def export_folder(path: Path, kind: str, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` if the block succeeds, with `facts` in its manifest.

    Raises LeadError, before anything is made, when `path` is there and is not an earlier export of
    this `kind` as it was written; and when it cannot be written, with what was there unchanged.
    """
    check_replaceable(path, kind)
    try:
        with replaced_directory(path) as folder:
            yield folder
            files = {name: sha256_file(file) for name, file in _files(folder).items()}
            for file in _files(folder).values():
                file.chmod(0o644)  # safetensors writes for its owner alone
            manifest = {"schema": SCHEMA, "kind": kind, **facts, "files": files}
            write_json(folder / MANIFEST, manifest)
    except OSError as error:
        raise LeadError(f"{path} cannot be written ({error}); choose another folder") from error


def check_replaceable(path: Path, kind: str) -> None:
    """Raise LeadError when there is something at `path` that an export must not take the place of."""
    advice = "choose another folder, or move it away"
    if not path.exists():
        return
    if not path.is_dir():
        raise LeadError(f"{path} is a file; an export is a folder: {advice}")
    if not any(path.iterdir()):
        return
    if not (path / MANIFEST).is_file():
        raise LeadError(f"{path} was not written by `lead export` (no {MANIFEST} in it): {advice}")
    manifest = read_json(path / MANIFEST, made_by="lead export")
    if manifest.get("kind") != kind:
        raise LeadError(
            f"{path} holds an export of another kind ({manifest.get('kind')}): {advice}"
        )
    if changed := _changed(path, manifest["files"]):
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise LeadError(
            f"{path} was changed since it was exported ({changed[0]}{more}); it would be lost: {advice}"
        )


def _changed(path: Path, recorded: Mapping[str, str]) -> list[str]:
    """Return the names of files that an export did not write, or wrote otherwise."""
    return [
        name
        for name, file in _files(path).items()
        if name != MANIFEST and recorded.get(name) != sha256_file(file)
    ]


def _files(folder: Path) -> dict[str, Path]:
    return {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }

"""`sources.lock.json`: what sources, model and benchmarks are, by hash, so that DVC sees them change.

A glob, URL or hub id in `params.yaml` is only a name; editing what is behind it would leave the
pipeline "up to date". The stages depend on the lock instead, and refuse to run when it is stale.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from lead_core.assets import resolve_model
from lead_core.benchmark_files import hash_files
from lead_core.errors import LeadError, TransientError
from lead_core.lock_file import NEXT, PARTS, check_files
from lead_core.mining import package_version
from lead_core.params import Params, SourceParams
from lead_core.sources import (
    DOCSTRINGS,
    HUB,
    HubDataset,
    SourceFile,
    docstring_packages,
    is_remote,
    locked_files,
    parse_hub_uri,
    path_label,
    redact,
    resolve_files,
)
from lead_core.storage import sha256_file


def build_lock(params: Params, workspace: Path) -> dict[str, Any]:
    """Return the lock of what `params` names: hashes of files, hub commits, package versions.

    Remote files are fetched. Raises LeadError for anything that is not there.
    """
    return {
        "schema": 1,
        "model": _lock_model(params),
        "sources": [_lock_source(source, workspace) for source in params.data.read_from],
        "benchmarks": _lock_benchmarks(params, workspace),
    }


def check_lock(
    lock: dict[str, Any], params: Params, workspace: Path, parts: Collection[str] = PARTS
) -> None:
    """Raise LeadError, naming what differs, unless `lock` still describes what is there.

    `parts`: those of ``sources``, ``model`` and ``benchmarks`` that count. Asks no server: remote
    sources are compared with the cached copies that the lock names, hub data sets are pinned by their
    commit.
    """
    if "sources" in parts:
        _check_sources(lock["sources"], params.data.read_from, workspace)
    if "model" in parts and lock["model"] != (current := _lock_model(params)):
        was = lock["model"]["name"]
        changed = "its files changed" if was == current["name"] else f"it was {was}"
        raise LeadError(f"model {current['name']} is not the locked one: {changed}; {NEXT}")
    if "benchmarks" in parts:
        check_files(lock["benchmarks"], _lock_benchmarks(params, workspace))


def _lock_model(params: Params) -> dict[str, Any]:
    model = resolve_model(params.model.name, params.model.revision)
    return {"name": model.name, "revision": model.revision, "sha256": model.sha256}


def _lock_benchmarks(params: Params, workspace: Path) -> list[dict[str, Any]]:
    folder = params.evaluate.data_dir
    return [] if folder is None else hash_files(workspace / folder, called=folder)


def _lock_source(source: SourceParams, workspace: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"uri": redact(source.uri), "name": source.name}
    if source.uri.startswith(DOCSTRINGS):
        packages = docstring_packages(source.uri)
        return {**entry, "packages": {package: package_version(package) for package in packages}}
    if source.uri.startswith(HUB):
        hub = parse_hub_uri(source.uri)
        if not hub.is_local:
            return {**entry, "hub": {"commit": _hub_commit(source.uri, hub)}}
        return {
            **entry,
            "files": [_lock_file(file) for file in _folder_files(source.uri, hub, workspace)],
        }
    files = resolve_files(source.uri, workspace)
    return {**entry, "files": [_lock_file(file) for file in files]}


def _lock_file(file: SourceFile) -> dict[str, Any]:
    try:
        sha256, size = sha256_file(file.path), file.path.stat().st_size
    except OSError as error:
        raise LeadError(
            f"{file.label} cannot be read ({error.strerror or error}); check its permissions"
        ) from error
    return {"path": file.label, "sha256": sha256, "bytes": size}


def _folder_files(uri: str, hub: HubDataset, workspace: Path) -> list[SourceFile]:
    folder = Path(hub.path)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    visible = [
        path
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not visible:
        raise LeadError(f"{uri}: no such folder, or it is empty; check data.sources in params.yaml")
    return [SourceFile(path_label(str(path), workspace), path) for path in visible]


def _hub_commit(uri: str, hub: HubDataset) -> str:
    """Return the commit that the hub's branch or tag stands for now; a commit stands for itself."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    revision = hub.revision or "main"
    if len(revision) == 40 and set(revision) <= set("0123456789abcdef"):
        return revision
    try:
        commit = HfApi().dataset_info(hub.path, revision=revision).sha
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise LeadError(
            f"{uri}: the hub has no such data set or revision that you may read; check the name, or "
            "log in with `hf auth login` if it is gated"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise TransientError(
            f"{uri}: the hub did not answer; try again with a network, or name a full commit in "
            "&revision= to work from the local cache"
        ) from error
    if commit is None:
        raise LeadError(f"{uri}: the hub names no commit for revision {revision}")
    return commit


def _check_sources(
    locked: list[dict[str, Any]], sources: Sequence[SourceParams], workspace: Path
) -> None:
    named = [(entry["uri"], entry["name"]) for entry in locked]
    wanted = [(redact(source.uri), source.name) for source in sources]
    if named != wanted:
        new = next(
            (uri for uri, name in wanted if (uri, name) not in named), "their number or order"
        )
        raise LeadError(f"data.sources is not what was locked (first difference: {new}); {NEXT}")
    for entry, source in zip(locked, sources, strict=True):
        if "hub" in entry:
            continue
        if is_remote(source.uri):
            locked_files(source.uri, entry)
            continue
        current = _lock_source(source, workspace)
        if "packages" in entry:
            _check_packages(entry["packages"], current["packages"])
        else:
            check_files(entry["files"], current["files"])


def _check_packages(locked: dict[str, str], current: dict[str, str]) -> None:
    for package, version in current.items():
        if locked.get(package) != version:
            raise LeadError(
                f"docstrings://{package}: version {version} is installed, {locked.get(package)} was "
                f"locked; {NEXT}"
            )

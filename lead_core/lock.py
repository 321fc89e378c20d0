"""`sources.lock.json`: what sources, benchmarks, models and start are, by hash: DVC sees them change.

A glob, URL or hub id in `params.yaml` is only a name; editing what is behind it would leave the
pipeline "up to date". The stages depend on the lock instead, and refuse to run when it is stale.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from lead_core.assets import resolve_model
from lead_core.benchmark_files import hash_files
from lead_core.benchmarks import Benchmark, benchmarks_to_check, way_out
from lead_core.earlier_run import check_start, lock_start
from lead_core.errors import LeadError, TransientError
from lead_core.lock_file import NEXT, PARTS, check_files, check_model, model_entry
from lead_core.mining import package_version
from lead_core.params import Params
from lead_core.progress import progress
from lead_core.scoring_model import resolve_scoring_model
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
    model = _lock_model(params)
    return {
        "schema": 1,
        "model": model,
        "scoring_model": _lock_scoring_model(params),
        "sources": [
            _lock_source(source.uri, source.name, workspace) for source in params.data.read_from
        ],
        "benchmarks": [_lock_benchmark(each, workspace) for each in locked_benchmarks(params)],
        "evaluation": _lock_evaluation(params, workspace),
        "start": lock_start(params, workspace, model["sha256"]),
    }


def check_lock(
    lock: dict[str, Any], params: Params, workspace: Path, parts: Collection[str] = PARTS
) -> None:
    """Raise LeadError, naming what differs, unless `lock` still describes what is there.

    `parts`: some of `PARTS`. Asks no server: remote files are compared with the cached copies that the
    lock names, hub data sets are pinned by their commit.
    """
    if "sources" in parts:
        named = [(source.uri, source.name) for source in params.data.read_from]
        _check_entries("data.sources", lock["sources"], named, workspace)
    if "benchmarks" in parts:
        named = [(benchmark.uri, benchmark.name) for benchmark in locked_benchmarks(params)]
        _check_entries(
            "what data.decontaminate.against comes to", lock["benchmarks"], named, workspace
        )
    if "model" in parts:
        check_model("model", lock["model"], _lock_model(params))
    if "scoring_model" in parts:
        check_model("score.model", lock["scoring_model"], _lock_scoring_model(params))
    if "evaluation" in parts:
        check_files(lock["evaluation"], _lock_evaluation(params, workspace))
    if "start" in parts:
        check_start(lock, params, workspace)


def locked_benchmarks(params: Params) -> tuple[Benchmark, ...]:
    """Return what the pool is checked against, in the order of the lock."""
    if params.data.decontaminate is None:
        return ()
    return benchmarks_to_check(
        params.data.decontaminate.against,
        params.evaluate.task_names,
        data_dir=params.evaluate.data_dir,
    )


def _lock_model(params: Params) -> dict[str, Any]:
    return model_entry(resolve_model(params.model.name, params.model.revision))


def _lock_scoring_model(params: Params) -> dict[str, Any] | None:
    return None if params.score.model is None else model_entry(resolve_scoring_model(params))


def _lock_evaluation(params: Params, workspace: Path) -> list[dict[str, Any]]:
    folder = params.evaluate.data_dir
    return [] if folder is None else hash_files(workspace / folder, called=folder)


def _lock_benchmark(benchmark: Benchmark, workspace: Path) -> dict[str, Any]:
    try:
        return _lock_source(benchmark.uri, benchmark.name, workspace)
    except LeadError as error:
        if not (benchmark.automatic and benchmark.name):
            raise
        raise type(error)(
            f"data.decontaminate: the pool cannot be checked against {benchmark.name}: {error}; or "
            f"{way_out(benchmark.name)}"
        ) from error


def _lock_source(uri: str, name: str | None, workspace: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"uri": redact(uri), "name": name}
    if uri.startswith(DOCSTRINGS):
        packages = docstring_packages(uri)
        return {**entry, "packages": {package: package_version(package) for package in packages}}
    if uri.startswith(HUB):
        hub = parse_hub_uri(uri)
        if not hub.is_local:
            return {**entry, "hub": {"commit": _hub_commit(uri, hub)}}
        return {
            **entry,
            "files": [_lock_file(file) for file in _folder_files(uri, hub, workspace)],
        }
    files = resolve_files(uri, workspace)
    return {**entry, "files": [_lock_file(file) for file in files]}


def _lock_file(file: SourceFile) -> dict[str, Any]:
    try:
        size = file.path.stat().st_size
        with progress(size, f"hashing {file.label}", "bytes") as done:
            sha256 = sha256_file(file.path, done.advance)
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
        raise LeadError(f"{uri}: no such folder, or it is empty; check its entry in params.yaml")
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


def _check_entries(
    key: str,
    locked: list[dict[str, Any]],
    wanted: Sequence[tuple[str, str | None]],
    workspace: Path,
) -> None:
    """Check what stands under `key` in params.yaml, URIs with names, against its part of the lock."""
    before = [(entry["uri"], entry["name"]) for entry in locked]
    now = [(redact(uri), name) for uri, name in wanted]
    if before != now:
        new = next((uri for uri, name in now if (uri, name) not in before), "their number or order")
        raise LeadError(f"{key} is not what was locked (first difference: {new}); {NEXT}")
    for entry, (uri, name) in zip(locked, wanted, strict=True):
        if "hub" in entry:
            continue
        if is_remote(uri):
            locked_files(uri, entry)
            continue
        current = _lock_source(uri, name, workspace)
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

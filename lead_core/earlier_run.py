"""The earlier run that this one goes on from: where its files are, and that they are the locked ones.

`grow.start_from` is only a name. `lead lock` notes the hash of what is behind it, and the stages that
read it depend on that entry: so a run stays a function of its parameters, its data and its seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lead_core.artifacts import Layout, read_manifest
from lead_core.champion_runs import CHAMPIONS, run_name
from lead_core.errors import LeadError
from lead_core.lock_file import LOCK_FILE, NEXT, read_lock
from lead_core.params import Params
from lead_core.storage import sha256_file, sha256_json

# The manifests name, by hash, what else is read: scores, labels, fit and adapter.
CONTENT = (
    "scores/manifest.json",
    "clusters/manifest.json",
    "cluster_fit/manifest.json",
    "train/manifest.json",
    "train/utilities.parquet",
)
CHAMPION = "champion"
_KEY = "params.yaml: grow.start_from"


@dataclass(frozen=True)
class Start:
    """An earlier run whose files are those of the lock: where they are, and their hash."""

    layout: Layout
    sha256: str


def lock_start(params: Params, workspace: Path, model_sha256: str) -> dict[str, str] | None:
    """Return the lock's entry for what `grow.start_from` names: folder and hash; None for null.

    model_sha256: of this run's model, which the earlier run must have had too.
    """
    folder = params.grow.start_from
    if folder is None:
        return None
    if folder == CHAMPION:
        folder = _champions_folder(params, workspace)
    return {"folder": folder, "sha256": _content_hash(folder, workspace, model_sha256)}


def check_start(lock: Mapping[str, Any], params: Params, workspace: Path) -> Start | None:
    """Return the run to start from, None for none; LeadError unless it is what `lock` says.

    Asks no server: the champion is the one of the time of the lock.
    """
    wanted, entry = params.grow.start_from, lock["start"]
    if wanted is None and entry is None:
        return None
    if entry is None or not _may_be(wanted, entry["folder"]):
        locked = None if entry is None else entry["folder"]
        raise LeadError(f"{_KEY} is {wanted or 'null'}, locked was {locked or 'null'}; {NEXT}")
    sha256 = _content_hash(entry["folder"], workspace, lock["model"]["sha256"])
    if sha256 != entry["sha256"]:
        raise LeadError(f"{_KEY}: {entry['folder']} changed since it was locked; {NEXT}")
    return Start(Layout.below(workspace / entry["folder"]), sha256)


def _may_be(wanted: str | None, folder: str) -> bool:
    """Whether the locked `folder` is what grow.start_from names."""
    if wanted == CHAMPION:
        return Path(folder).parent == CHAMPIONS
    return wanted == folder


def champion_name(params: Params, workspace: Path) -> str:
    """Return the name of the folder that the present champion's run has; MLflow is asked.

    Raises LeadError without a champion, and where MLflow cannot be used.
    """
    from lead_core.tracking import champion_train_hash, resolve_settings  # slow to import

    tracking = params.tracking
    if tracking.champion is None:
        raise LeadError(
            "params.yaml: tracking.champion must name the registered model whose champion is meant, "
            "got null"
        )
    settings = resolve_settings(workspace, tracking.uri, tracking.experiment)
    return run_name(champion_train_hash(settings, tracking.champion))


def _champions_folder(params: Params, workspace: Path) -> str:
    folder = CHAMPIONS / champion_name(params, workspace)
    if not (workspace / folder).is_dir():
        raise LeadError(
            f"{_KEY}: the champion's run is not on this machine ({folder.as_posix()}); copy that "
            "folder from where it was evaluated, or name a copy of its artifacts"
        )
    return folder.as_posix()


def read_start(params: Params, workspace: Path) -> Start | None:
    """Return what `check_start` does, by the workspace's own lock."""
    if params.grow.start_from is None:
        return None
    return check_start(read_lock(workspace / LOCK_FILE), params, workspace)


def _content_hash(folder: str, workspace: Path, model_sha256: str) -> str:
    """Return one hash over what a later run reads in `folder`; LeadError if that is no whole run."""
    root = workspace / folder
    if root.resolve() == (workspace / "artifacts").resolve():
        raise LeadError(
            f"{_KEY}: {folder} is what this run writes; copy it (`cp -r {folder} FOLDER`) and name "
            "the copy"
        )
    for name in CONTENT:
        if not (root / name).is_file():
            raise LeadError(
                f"{_KEY}: {folder} holds no {name}; name a copy of the artifacts folder of a finished "
                "run of this version"
            )
    _check_whole(Layout.below(root), folder, model_sha256)
    return sha256_json({name: sha256_file(root / name) for name in CONTENT})


def _check_whole(layout: Layout, folder: str, model_sha256: str) -> None:
    """Raise LeadError when the files in `folder` are of different runs, or of another model."""
    scores = read_manifest(layout.scores, "score")["scores_sha256"]
    clusters = read_manifest(layout.clusters, "cluster")
    fit = read_manifest(layout.cluster_fit, "cluster")
    trained = read_manifest(layout.train, "train")
    for got, expected in (
        (clusters["scores_sha256"], scores),
        (fit["clusters_sha256"], clusters["clusters_sha256"]),
        (trained["clusters_sha256"], clusters["clusters_sha256"]),
    ):
        if got != expected:
            raise LeadError(
                f"{_KEY}: scores, clusters and training in {folder} are of different runs; copy the "
                "artifacts folder anew, after a run has finished"
            )
    if trained["model_sha256"] != model_sha256:
        raise LeadError(
            f"{_KEY}: the run in {folder} had another model (hash {trained['model_sha256'][:12]}..., "
            f"model.name has {model_sha256[:12]}...); set model.* as it was, or start from null"
        )

"""The champion as files: what its training left behind, fetched from MLflow and checked by hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lead_core.artifacts import adapter_hash, strip_adapter
from lead_core.errors import LeadError
from lead_core.storage import read_json, sha256_file
from lead_core.tracking_champion import champion_version, run_of

TRAIN_HASH_TAG = "lead.train_hash"
RECORDED = ("manifest.json", "selection.parquet")  # with the run, under train/


@dataclass(frozen=True)
class Champion:
    """The version of a registered model that bears the alias, and the run that trained it.

    params: the run's, by ``section.key``; what was no text is JSON.
    """

    name: str
    version: str
    run_id: str
    run_name: str
    params: Mapping[str, str]

    def __str__(self) -> str:
        run = f"MLflow run {self.run_name}, {self.run_id}"
        return f"champion {self.name} version {self.version} ({run})"


def download_champion(client: Any, uri: str, name: str, folder: Path) -> Champion:
    """Lay the champion's manifest.json, selection.parquet and adapter/ into `folder`, as training did.

    uri: the MLflow that `client` talks to. Raises LeadError when there is no champion, and when
    something of it is absent or is not what its training wrote; else MLflow's errors.
    """
    version, run = find_champion(client, name)
    called = f"champion {name} version {version.version}"
    champion = Champion(
        name, str(version.version), version.run_id, run.info.run_name, run.data.params
    )
    _download_record(client, champion, folder)
    _download_adapter(version.source, uri, folder)
    _check(folder, run.data.tags.get(TRAIN_HASH_TAG), called)
    return champion


def find_champion(client: Any, name: str) -> tuple[Any, Any]:
    """Return the version of the registered model `name` that is champion, and its run.

    Raises LeadError when there is none, or its run is gone; else MLflow's errors.
    """
    version = champion_version(client, name)
    if version is None:
        raise LeadError(
            f"MLflow has no champion of the registered model {name!r}; `lead run evaluate --force` "
            "registers the adapter that is here, if it is better than the base model"
        )
    run = run_of(client, version)
    if run is None:
        raise LeadError(
            f"champion {name} version {version.version}: its run {version.run_id} is not in MLflow any "
            f"more; {_ADVICE}"
        )
    return version, run


_ADVICE = "give the alias to a version whose run is whole, or train again"


def _download_record(client: Any, champion: Champion, folder: Path) -> None:
    there = {Path(item.path).name for item in client.list_artifacts(champion.run_id, "train")}
    for name in RECORDED:
        if name not in there:
            raise LeadError(f"{champion}: train/{name} is not with its run; {_ADVICE}")
        Path(client.download_artifacts(champion.run_id, f"train/{name}", str(folder))).rename(
            folder / name
        )


def _download_adapter(source: str, uri: str, folder: Path) -> None:
    import mlflow.artifacts

    place = mlflow.artifacts.download_artifacts(
        f"{source.rstrip('/')}/peft", dst_path=str(folder), tracking_uri=uri
    )
    Path(place).rename(folder / "adapter")
    strip_adapter(folder / "adapter")


def _check(folder: Path, train_hash: str | None, called: str) -> None:
    """Raise LeadError when a file is not the one that the hash before it in the chain names."""
    manifest = read_json(folder / "manifest.json", made_by="lead run train")
    for what, got, expected in (
        ("manifest.json", sha256_file(folder / "manifest.json"), train_hash),
        (
            "selection.parquet",
            sha256_file(folder / "selection.parquet"),
            manifest["selection_sha256"],
        ),
        ("adapter", adapter_hash(folder / "adapter"), manifest["adapter_sha256"]),
    ):
        if got != expected:
            raise LeadError(
                f"{called}: its {what} in MLflow is not what its training wrote (hash {got[:12]}..., "
                f"recorded {str(expected)[:12]}...); {_ADVICE}"
            )

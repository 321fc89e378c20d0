"""The files between the stages: where they are, what they hold, and that they belong together.

Every manifest names, by hash, what its stage was made from; a stage that reads files of another pool,
model or scoring refuses them. Nothing here holds a time, a path of this machine or a run id: equal
work gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lead_core.errors import LeadError
from lead_core.storage import (
    read_json,
    replaced_directory,
    sha256_file,
    sha256_json,
    write_json,
    write_jsonl,
)

if TYPE_CHECKING:
    from lead_core.clustering import Clusters
    from lead_core.scoring import Scores

SCHEMA = 1


@dataclass(frozen=True)
class Layout:
    """Where each stage writes, below one workspace."""

    pool: Path
    decontamination: Path
    scores: Path
    clusters: Path
    cluster_fit: Path
    train: Path
    evaluation: Path
    report: Path
    comparison: Path

    @classmethod
    def below(cls, root: Path, *, run: Path | None = None) -> Layout:
        """Return the layout under `root`; training and what follows it may go to `run` instead."""
        run = run or root
        return cls(
            pool=root / "pool",
            decontamination=root / "decontamination.json",
            scores=root / "scores",
            clusters=root / "clusters",
            cluster_fit=root / "cluster_fit",
            train=run / "train",
            evaluation=run / "eval",
            report=run / "report",
            comparison=root / "compare",
        )


def read_manifest(folder: Path, stage: str) -> dict[str, Any]:
    """Return what `stage` noted in `folder`; LeadError if it is absent or of another schema."""
    command = f"dvc repro {stage}"
    manifest: dict[str, Any] = read_json(folder / "manifest.json", made_by=command)
    if manifest.get("schema") != SCHEMA:
        raise LeadError(
            f"{folder}/manifest.json has schema {manifest.get('schema')}, this version reads "
            f"{SCHEMA}; run `{command}` again"
        )
    return manifest


def check_chain(what: str, got: str, expected: str, stage: str) -> None:
    """Raise LeadError when `what` was made from something else than what is here now."""
    if got != expected:
        raise LeadError(
            f"{what} was made from another input (hash {got[:12]}..., now {expected[:12]}...); "
            f"run `dvc repro {stage}`"
        )


def write_scores(
    folder: Path,
    scores: Scores,
    *,
    ids: Sequence[str],
    tokens: np.ndarray,
    response_tokens: np.ndarray,
    pool_sha256: str,
    model_sha256: str,
    ledger: dict[str, dict[str, int]],
    settings: dict[str, Any] | None = None,
    taken_over: int | None = None,
    scoring_model_sha256: str | None = None,
) -> None:
    """Write scores.parquet, embeddings.npy and the manifest of the score stage.

    tokens [n]: of the pool's records as they are trained on; response_tokens [n]: those that the
    scores are means over. settings: how they were made, None where nobody will go on from them.
    taken_over: records whose scores are of an earlier run, None without one. scoring_model_sha256: of
    the model that scored, if it is not the pool's, whose is `model_sha256`.
    """
    frame = pd.DataFrame(
        {
            "id": ids,
            "loss": scores.loss,
            "response_loss": scores.response_loss,
            "ifd": scores.ifd,
            "set_aside": pd.array(scores.set_aside(), dtype="string"),
            "tokens": tokens.astype(np.int32),
            "response_tokens": response_tokens.astype(np.int32),
        }
    )
    with replaced_directory(folder) as temporary:
        frame.to_parquet(temporary / "scores.parquet", index=False)
        np.save(temporary / "embeddings.npy", scores.embeddings, allow_pickle=False)
        manifest = {
            "schema": SCHEMA,
            "pool_sha256": pool_sha256,
            "model_sha256": model_sha256,
            "scores_sha256": _content_hash(temporary, "scores.parquet", "embeddings.npy"),
            "records": len(frame),
            "ledger": ledger,
        }
        if settings is not None:
            manifest["settings"] = settings
        if taken_over is not None:
            manifest["taken_over"] = taken_over
        if scoring_model_sha256 not in (None, model_sha256):
            manifest["scoring_model_sha256"] = scoring_model_sha256
        write_json(temporary / "manifest.json", manifest)


def scored_by(manifest: Mapping[str, Any]) -> str:
    """Return the hash of the model that made the scores of this manifest."""
    return str(manifest.get("scoring_model_sha256", manifest["model_sha256"]))


def read_scores(
    folder: Path, columns: list[str] | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return scores.parquet, or `columns` of it, and the manifest; checks the content's hash."""
    manifest = read_manifest(folder, "score")
    actual = _content_hash(folder, "scores.parquet", "embeddings.npy")
    check_chain(str(folder), manifest["scores_sha256"], actual, "score")
    return pd.read_parquet(folder / "scores.parquet", columns=columns), manifest


def read_embeddings(folder: Path) -> np.ndarray:
    """Return the prompt embeddings, float32 [n, d], memory-mapped."""
    return np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)


def write_clusters(
    folder: Path, clusters: Clusters, *, ids: Sequence[str], ifd: np.ndarray, scores_sha256: str
) -> None:
    """Write clusters.parquet, clusters.json (figures for people) and the cluster stage's manifest."""
    frame = pd.DataFrame({"id": ids, "difficulty": clusters.difficulty, "task": clusters.task})
    with replaced_directory(folder) as temporary:
        frame.to_parquet(temporary / "clusters.parquet", index=False)
        write_json(temporary / "clusters.json", clusters.figures(ifd))
        manifest = {
            "schema": SCHEMA,
            "scores_sha256": scores_sha256,
            "clusters_sha256": _content_hash(temporary, "clusters.parquet"),
        }
        write_json(temporary / "manifest.json", manifest)


def read_clusters(
    folder: Path, columns: list[str] | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return clusters.parquet, or `columns` of it, and the manifest, as `read_scores` does."""
    manifest = read_manifest(folder, "cluster")
    actual = _content_hash(folder, "clusters.parquet")
    check_chain(str(folder), manifest["clusters_sha256"], actual, "cluster")
    return pd.read_parquet(folder / "clusters.parquet", columns=columns), manifest


def write_training(
    folder: Path,
    *,
    model: Any,
    rounds: list[dict[str, Any]],
    samples: list[dict[str, Any]],
    manifest: dict[str, Any],
) -> None:
    """Write the adapter, rounds.jsonl, selection.parquet and, last, the train stage's manifest."""
    with replaced_directory(folder / "adapter") as temporary:
        model.save_pretrained(temporary, safe_serialization=True)
        strip_adapter(temporary)
    write_jsonl(folder / "rounds.jsonl", rounds)
    selection = pd.DataFrame(samples).astype(
        dict.fromkeys(("round", "step", "difficulty", "task", "uses", "tokens"), np.int32)
    )
    scratch = folder / ".selection.parquet"
    selection.to_parquet(scratch, index=False)
    scratch.replace(folder / "selection.parquet")
    hashes = {
        "adapter_sha256": adapter_hash(folder / "adapter"),
        "selection_sha256": sha256_file(folder / "selection.parquet"),
        "rounds_sha256": sha256_file(folder / "rounds.jsonl"),
    }
    write_json(folder / "manifest.json", {"schema": SCHEMA, **manifest, **hashes})


def strip_adapter(folder: Path) -> None:
    """Take out of a saved peft adapter what is not its own: base model's path, card, order of sets."""
    (folder / "README.md").unlink(missing_ok=True)
    config = read_json(folder / "adapter_config.json", made_by="dvc repro train")
    config["base_model_name_or_path"] = None
    for name, value in config.items():
        if isinstance(value, list):  # peft keeps some of these as sets: their order varies
            config[name] = sorted(value)
    write_json(folder / "adapter_config.json", config)


def adapter_hash(folder: Path) -> str:
    """Return one hash over an adapter's files."""
    return sha256_json({p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.is_file()})


def _content_hash(folder: Path, *names: str) -> str:
    try:
        return sha256_json({name: sha256_file(folder / name) for name in names})
    except FileNotFoundError as error:
        raise LeadError(f"{error.filename} is not there; run `dvc repro`") from None

"""Everything that the report reads of one finished run, checked to belong together."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lead_core.artifacts import (
    Layout,
    check_chain,
    read_clusters,
    read_embeddings,
    read_manifest,
    read_scores,
)
from lead_core.benchmark_check import Check, read_check
from lead_core.errors import LeadError
from lead_core.pool import Pool, open_pool
from lead_core.storage import read_json

HELDOUT_LOSS = "lead_heldout/loss"


@dataclass(frozen=True)
class FinishedRun:
    """What the stages wrote.

    records: one row per record of the pool, in the order of ids: id, source, loss, ifd, tokens,
    response_tokens, set_aside, difficulty, task, uses (0: never trained on). embeddings [n, d]: of the
    same records, on disk. rejected: the first rejected record of each reason, as rejected.jsonl has it.
    samples: selection.parquet, one row per trained sample. rounds: rounds.jsonl.
    """

    pool: Pool
    pool_manifest: dict[str, Any]
    decontamination: Check
    train_manifest: dict[str, Any]
    results: dict[str, Any]
    records: pd.DataFrame
    embeddings: np.ndarray
    rejected: dict[str, dict[str, Any]]
    samples: pd.DataFrame
    rounds: list[dict[str, Any]]

    @property
    def headline(self) -> dict[str, Any] | None:
        """Return the paired difference of the held-out loss; None if it was not evaluated."""
        return self.results["paired"].get(HELDOUT_LOSS)

    @property
    def by_source(self) -> dict[str, dict[str, Any]]:
        """Return the paired difference of the held-out loss per source."""
        prefix = f"{HELDOUT_LOSS}/"
        paired = self.results["paired"].items()
        return {name.removeprefix(prefix): p for name, p in paired if name.startswith(prefix)}

    @property
    def forwards(self) -> dict[str, dict[str, int]]:
        """Return the cost ledger: sequences and tokens per column, the evaluate stage's included."""
        ledger = {name: dict(cost) for name, cost in self.train_manifest["ledger"].items()}
        for unit, amount in self.results["forwards"].items():
            ledger["evaluation"][unit] += amount
        return ledger


def read_run(layout: Layout) -> FinishedRun:
    """Read the outputs of all stages; LeadError when one is absent or was made from other inputs."""
    scores, _ = read_scores(layout.scores)
    clusters, _ = read_clusters(layout.clusters)
    pool_manifest, train = read_training_manifests(layout)
    results = read_json(layout.evaluation / "results.json", made_by="dvc repro evaluate")
    evaluated = results["inputs"]["adapter_sha256"]
    check_chain("the evaluation", evaluated, train["adapter_sha256"], "evaluate")
    samples = pd.read_parquet(_existing(layout.train / "selection.parquet", "train"))
    lines = (
        _existing(layout.train / "rounds.jsonl", "train").read_text(encoding="utf-8").split("\n")
    )
    pool = open_pool(layout.pool)
    records = scores.merge(clusters, on="id", validate="one_to_one")
    records.insert(1, "source", pool.sources)
    records["uses"] = records["id"].map(samples["id"].value_counts()).fillna(0).astype(int)
    return FinishedRun(
        pool=pool,
        pool_manifest=pool_manifest,
        decontamination=read_check(layout.decontamination),
        train_manifest=train,
        results=results,
        records=records,
        embeddings=read_embeddings(layout.scores),
        rejected=_first_of_each_reason(
            layout.pool / "rejected.jsonl", pool_manifest["counts"]["rejected_by_reason"]
        ),
        samples=samples,
        rounds=[json.loads(line) for line in lines if line],
    )


def read_training_manifests(layout: Layout) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifests of pool and training; LeadError when it had other inputs than are there."""
    train = read_manifest(layout.train, "train")
    pool = read_manifest(layout.pool, "prepare")
    for what, manifest, key in (
        ("the pool", pool, "pool_sha256"),
        ("the scores", read_manifest(layout.scores, "score"), "scores_sha256"),
        ("the clusters", read_manifest(layout.clusters, "cluster"), "clusters_sha256"),
    ):
        check_chain(f"the training ({what})", train[key], manifest[key], "train")
    return pool, train


def _first_of_each_reason(path: Path, reasons: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return one row of rejected.jsonl per reason, reading no further than it takes."""
    found: dict[str, dict[str, Any]] = {}
    if reasons:
        with _existing(path, "prepare").open(encoding="utf-8") as lines:
            while len(found) < len(reasons) and (line := lines.readline()):
                row = json.loads(line)
                found.setdefault(row["reason"], row)
    return found


def _existing(path: Path, stage: str) -> Path:
    if not path.is_file():
        raise LeadError(f"{path} is not there; run `dvc repro {stage}` first")
    return path

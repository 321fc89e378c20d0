"""What a clustering was fitted by, as numbers: so that records which come later get labels of it.

No fitted object is kept, for those are pickles: HDBSCAN's training points are, and fitting them again
gives the same clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lead_core.artifacts import SCHEMA, check_chain, read_manifest
from lead_core.storage import replaced_directory, sha256_file, write_json

_FILE = "fit.npz"


@dataclass(frozen=True)
class Reduction:
    """A principal component analysis: mean float64 [d], components float64 [r, d]."""

    mean: np.ndarray
    components: np.ndarray

    def apply(self, embeddings: np.ndarray) -> np.ndarray:
        """Return `embeddings` [n, d] on the components, float64 [n, r]; what is not finite at 0."""
        finite = np.isfinite(embeddings).all(axis=1)
        reduced = np.zeros((len(embeddings), len(self.components)))
        reduced[finite] = (embeddings[finite].astype(np.float64) - self.mean) @ self.components.T
        return reduced


@dataclass(frozen=True)
class ClusterFit:
    """The m records that a clustering was fitted on, and what it came to.

    ids str [m], ifd float64 [m]. centroids float64 [K]: mean IFD per arm. points: per difficulty label
    from -1, float64 [n, r], what HDBSCAN saw. tasks int32 [K + 1]: per label, how many task clusters
    there are, which is the number of its noise. noise_fraction: of the m records.
    """

    ids: np.ndarray
    ifd: np.ndarray
    centroids: np.ndarray
    reduction: Reduction
    points: tuple[np.ndarray, ...]
    tasks: np.ndarray
    noise_fraction: float


def write_fit(
    folder: Path,
    fit: ClusterFit,
    *,
    clusters_sha256: str,
    settings: Mapping[str, Any],
    growth: Mapping[str, Any] | None,
) -> None:
    """Write fit.npz and its manifest.

    clusters_sha256: of the labels that are of this fit. settings: what decided it. growth: what became
    of the labels of an earlier run, None where there was none.
    """
    arrays = {
        "ids": fit.ids,
        "ifd": fit.ifd,
        "centroids": fit.centroids,
        "mean": fit.reduction.mean,
        "components": fit.reduction.components,
        "tasks": fit.tasks,
        **{f"points_{number}": points for number, points in enumerate(fit.points)},
    }
    with replaced_directory(folder) as temporary:
        np.savez(temporary / _FILE, allow_pickle=False, **arrays)
        manifest = {
            "schema": SCHEMA,
            "clusters_sha256": clusters_sha256,
            "fit_sha256": sha256_file(temporary / _FILE),
            "noise_fraction": fit.noise_fraction,
            "settings": dict(settings),
            "growth": growth,
        }
        write_json(temporary / "manifest.json", manifest)


def read_fit(folder: Path) -> tuple[ClusterFit, dict[str, Any]]:
    """Return what `write_fit` wrote, and the manifest; LeadError if it is absent or has changed."""
    manifest = read_manifest(folder, "cluster")
    check_chain(str(folder), manifest["fit_sha256"], sha256_file(folder / _FILE), "cluster")
    with np.load(folder / _FILE, allow_pickle=False) as stored:
        fit = ClusterFit(
            stored["ids"],
            stored["ifd"],
            stored["centroids"],
            Reduction(stored["mean"], stored["components"]),
            tuple(stored[f"points_{number}"] for number in range(len(stored["tasks"]))),
            stored["tasks"],
            manifest["noise_fraction"],
        )
    return fit, manifest

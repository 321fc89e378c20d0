"""Labels for a pool that has grown: the earlier ones kept, new records labelled by the earlier fit.

Unless the pool has drifted from what was fitted; then everything is fitted anew, and every label is
another one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from lead_core.artifacts import Layout, read_clusters, read_scores
from lead_core.cluster_fit import ClusterFit, read_fit
from lead_core.clustering import Clusters, merge_labels, predict_clusters

_CHANCE = 1.358  # of the two-sample Kolmogorov-Smirnov statistic at 95 %, x sqrt(1/n + 1/m)


@dataclass(frozen=True)
class Drift:
    """How far the records that the clusters were not fitted on are from those that they were.

    Or, of the same form, how far they may be: see `params.GrowParams`.
    """

    new_fraction: float
    ifd_distance: float
    noise_rise: float

    def beyond(self, limits: Drift) -> list[str]:
        """Return a phrase for each figure above its limit."""
        names = {
            "new_fraction": "share of new records",
            "ifd_distance": "distance of their IFD",
            "noise_rise": "rise of noise",
        }
        pairs = [(name, getattr(self, name), getattr(limits, name)) for name in names]
        return [
            f"{names[name]} {got:.3f}, at most {most:g}" for name, got, most in pairs if got > most
        ]

    def __str__(self) -> str:
        return (
            f"new since the fit {self.new_fraction:.3f}, distance of their IFD "
            f"{self.ifd_distance:.3f}, rise of noise {self.noise_rise:+.3f}"
        )


@dataclass(frozen=True)
class Growth:
    """What an earlier clustering makes of a pool that has grown.

    labelled: labels for all of it, and the fit that they are of; None where everything has to be fitted
    anew, for `reasons`. drift: None where it was not measured. kept: records with their earlier labels.
    """

    labelled: tuple[Clusters, ClusterFit] | None
    drift: Drift | None
    reasons: tuple[str, ...]
    kept: int

    def as_json(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        return {
            "drift": None if self.drift is None else asdict(self.drift),
            "fitted_anew_for": list(self.reasons),
            "labels_kept": self.kept,
        }


def grow_clusters(
    earlier: Layout,
    ids: np.ndarray,
    ifd: np.ndarray,
    embeddings: np.ndarray,
    eligible: np.ndarray,
    *,
    settings: dict[str, Any],
    limits: Drift,
) -> Growth:
    """Return labels that go on from those of the run in `earlier`, or why they cannot.

    ids str [n]; the others as for `cluster_pool`. settings: as given to `write_fit`.
    """
    fit, fitted = read_fit(earlier.cluster_fit)
    if fitted["settings"] != settings:
        return _anew("the settings of the clustering are others")
    if not len(fit.centroids):
        return _anew("the earlier run had no difficulty cluster")
    before = read_scores(earlier.scores, ["id", "ifd"])[0]
    labels = read_clusters(earlier.clusters)[0]
    rows = pd.Index(before["id"]).get_indexer(pd.Index(ids))
    old, new = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
    if not np.array_equal(before["ifd"].to_numpy()[rows[old]], ifd[old], equal_nan=True):
        return _anew("the IFD of earlier records has changed")
    difficulty, task = np.empty((2, len(ids)), dtype=np.int32)
    difficulty[old] = labels["difficulty"].to_numpy()[rows[old]]
    task[old] = labels["task"].to_numpy()[rows[old]]
    difficulty[new], task[new] = predict_clusters(
        fit,
        ifd[new],
        embeddings[new],
        eligible[new],
        min_cluster_size=settings["cluster"]["min_cluster_size"],
    )
    clusters = merge_labels(fit, difficulty, task)
    drift = measure_drift(fit, clusters, ids, ifd)
    if reasons := drift.beyond(limits):
        return Growth(None, drift, tuple(reasons), 0)
    return Growth((clusters, fit), drift, (), len(old))


def measure_drift(fit: ClusterFit, clusters: Clusters, ids: np.ndarray, ifd: np.ndarray) -> Drift:
    """Return how far the records that are not in `fit` are from those that are.

    Of records that came over many runs all count, not only the last ones: else a slow drift would
    never be seen. clusters: labels of `fit` for all records [n].
    """
    from scipy.stats import ks_2samp

    new = ~np.isin(ids, fit.ids)
    if not new.any():
        return Drift(0.0, 0.0, 0.0)
    values, fitted = ifd[new & np.isfinite(ifd)], fit.ifd[np.isfinite(fit.ifd)]
    distance = 0.0
    if len(values) and len(fitted):
        chance = _CHANCE * np.sqrt(1 / len(values) + 1 / len(fitted))
        distance = max(0.0, float(ks_2samp(values, fitted).statistic) - chance)
    noise = clusters.is_noise()[new].mean() - fit.noise_fraction
    return Drift(float(new.mean()), float(distance), float(noise))


def _anew(reason: str) -> Growth:
    return Growth(None, None, (reason,), 0)

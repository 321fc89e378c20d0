"""Dual-level clustering: K-means on difficulty (IFD), HDBSCAN on prompt embeddings inside each.

LEAD.md A.3-A.4. HDBSCAN is quadratic in practice and lost in high dimension, so embeddings are
centred and reduced by PCA first, and a large cluster is fitted on a sample.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lead_core.cluster_fit import ClusterFit, Reduction

SET_ASIDE = -1


@dataclass(frozen=True)
class Clusters:
    """Labels of n records, in their order.

    difficulty: int32 [n], the arm, numbered by rising IFD centroid; -1 for a record set aside.
    task: int32 [n], the task cluster inside its difficulty cluster, from 0; noise is one of them.
    centroids: float64 [K], mean IFD per arm. noise_tasks: per difficulty label, the task that holds
    HDBSCAN's noise points, if any.
    """

    difficulty: np.ndarray
    task: np.ndarray
    centroids: np.ndarray
    noise_tasks: dict[int, int]

    def is_noise(self) -> np.ndarray:
        """Return which records are noise of their difficulty cluster, bool [n]."""
        tasks = [self.noise_tasks.get(k, -1) for k in range(SET_ASIDE, len(self.centroids))]
        noise: np.ndarray = self.task == np.array(tasks)[self.difficulty + 1]
        return noise

    def figures(self, ifd: np.ndarray) -> dict[str, Any]:
        """Return sizes and ranges per arm and task for people to read."""
        return {
            "arms": [self._figures_of(k, ifd) for k in range(len(self.centroids))],
            "set_aside": self._figures_of(SET_ASIDE, ifd),
        }

    def _figures_of(self, label: int, ifd: np.ndarray) -> dict[str, Any]:
        inside = self.difficulty == label
        tasks, sizes = np.unique(self.task[inside], return_counts=True)
        finite = ifd[inside & np.isfinite(ifd)]
        return {
            "difficulty": label,
            "size": int(inside.sum()),
            "ifd_centroid": float(self.centroids[label]) if label >= 0 else None,
            "ifd_min": float(finite.min()) if finite.size else None,
            "ifd_max": float(finite.max()) if finite.size else None,
            "tasks": [
                {"task": int(t), "size": int(size), "noise": bool(self.noise_tasks.get(label) == t)}
                for t, size in zip(tasks, sizes, strict=True)
            ],
        }


def cluster_pool(
    ifd: np.ndarray,
    embeddings: np.ndarray,
    eligible: np.ndarray,
    *,
    difficulty_clusters: int,
    kmeans_restarts: int,
    reduced_dimensions: int,
    min_cluster_size: int,
    fit_limit: int,
    seed: int,
) -> Clusters:
    """Label every record with its difficulty and task cluster.

    ifd float [n], embeddings float [n, d], eligible bool [n] (False: set aside, label -1; those get
    task clusters too, so that a stratified draw can cover them).
    """
    reduced = reduce_embeddings(embeddings, reduced_dimensions, seed=seed)
    return _label(
        ifd,
        reduced,
        eligible,
        difficulty_clusters=difficulty_clusters,
        kmeans_restarts=kmeans_restarts,
        min_cluster_size=min_cluster_size,
        fit_limit=fit_limit,
        seed=seed,
    )


def fit_clusters(
    ids: Sequence[str],
    ifd: np.ndarray,
    embeddings: np.ndarray,
    eligible: np.ndarray,
    *,
    difficulty_clusters: int,
    kmeans_restarts: int,
    reduced_dimensions: int,
    min_cluster_size: int,
    fit_limit: int,
    seed: int,
) -> tuple[Clusters, ClusterFit]:
    """Return what `cluster_pool` does, and what it was fitted by, as numbers; ids [n]."""
    reduced, reduction = _fit_reduction(embeddings, reduced_dimensions, seed=seed)
    clusters = _label(
        ifd,
        reduced,
        eligible,
        difficulty_clusters=difficulty_clusters,
        kmeans_restarts=kmeans_restarts,
        min_cluster_size=min_cluster_size,
        fit_limit=fit_limit,
        seed=seed,
    )
    points, tasks = [], []
    for label in range(SET_ASIDE, len(clusters.centroids)):
        members = np.flatnonzero(clusters.difficulty == label)
        sample = _fit_sample(len(members), fit_limit, _rng_of(seed, label))
        points.append(reduced[members[sample]])
        last = int(clusters.task[members].max(initial=0))
        tasks.append(clusters.noise_tasks.get(label, last + 1))
    fit = ClusterFit(
        np.asarray(ids, dtype=np.str_),
        ifd,
        clusters.centroids,
        reduction,
        tuple(points),
        np.array(tasks, dtype=np.int32),
        float(clusters.is_noise().mean()),
    )
    return clusters, fit


def _label(
    ifd: np.ndarray,
    reduced: np.ndarray,
    eligible: np.ndarray,
    *,
    difficulty_clusters: int,
    kmeans_restarts: int,
    min_cluster_size: int,
    fit_limit: int,
    seed: int,
) -> Clusters:
    """Return the labels of `cluster_pool`; reduced [n, r]: its embeddings, reduced."""
    difficulty, centroids = cluster_difficulty(
        ifd, eligible, difficulty_clusters, restarts=kmeans_restarts, seed=seed
    )
    task = np.zeros(len(ifd), dtype=np.int32)
    noise_tasks: dict[int, int] = {}
    for label in range(SET_ASIDE, len(centroids)):
        members = np.flatnonzero(difficulty == label)
        labels = cluster_tasks(
            reduced[members], min_cluster_size, fit_limit, rng=_rng_of(seed, label)
        )
        noise = labels < 0
        if noise.any():
            noise_tasks[label] = int(labels.max()) + 1
            labels = np.where(noise, noise_tasks[label], labels)
        task[members] = labels
    return Clusters(difficulty, task, centroids, noise_tasks)


def _rng_of(seed: int, label: int) -> np.random.Generator:
    """Return what draws the sample that HDBSCAN is fitted on inside the difficulty cluster `label`."""
    return np.random.default_rng([seed, label + 1])


def cluster_difficulty(
    ifd: np.ndarray, eligible: np.ndarray, k: int, *, restarts: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels int32 [n] (-1 where not eligible) by rising centroid, and the centroids.

    `k` is lowered, with a printed message, to the number of distinct values.
    """
    from sklearn.cluster import KMeans

    labels = np.full(len(ifd), SET_ASIDE, dtype=np.int32)
    values = ifd[eligible]
    distinct = len(np.unique(values))
    if distinct < k:
        print(f"cluster: only {distinct} distinct IFD values, so {distinct} arms instead of {k}")
        k = distinct
    if k == 0:
        return labels, np.empty(0)
    fitted = KMeans(k, n_init=restarts, random_state=seed).fit(values[:, None])
    order = np.argsort(fitted.cluster_centers_[:, 0], kind="stable")
    rank = np.empty(k, dtype=np.int32)
    rank[order] = np.arange(k, dtype=np.int32)
    labels[eligible] = rank[fitted.labels_]
    return labels, fitted.cluster_centers_[order, 0]


def reduce_embeddings(embeddings: np.ndarray, dimensions: int, *, seed: int) -> np.ndarray:
    """Return centred `embeddings` on their first principal components, float64 [n, <= dimensions].

    A record whose embedding is not finite (its loss is not either) lies at the origin.
    """
    return _fit_reduction(embeddings, dimensions, seed=seed)[0]


def _fit_reduction(
    embeddings: np.ndarray, dimensions: int, *, seed: int
) -> tuple[np.ndarray, Reduction]:
    """Return what `reduce_embeddings` does, and how it is done to further embeddings."""
    from sklearn.decomposition import PCA

    finite = np.isfinite(embeddings).all(axis=1)
    # The whole pool is copied once, to float64, not once more to leave out what is not there.
    known = (embeddings if finite.all() else embeddings[finite]).astype(np.float64)
    dimensions = min(dimensions, *known.shape)
    reduced = np.zeros((len(embeddings), dimensions))
    if len(known) < 2:  # one point has no direction in which it varies
        width = embeddings.shape[1]
        return reduced, Reduction(np.zeros(width), np.zeros((dimensions, width)))
    fitted = PCA(dimensions, random_state=seed)
    reduced[finite] = fitted.fit_transform(known)
    return reduced, Reduction(fitted.mean_, fitted.components_)


def cluster_tasks(
    points: np.ndarray, min_cluster_size: int, fit_limit: int, *, rng: np.random.Generator
) -> np.ndarray:
    """Return HDBSCAN labels int32 [n]; -1 is noise. Fewer points than a cluster needs: one cluster.

    Above `fit_limit` points the fit sees a random sample and `approximate_predict` labels the rest.
    """
    n = len(points)
    if n < 2 * min_cluster_size:
        return np.zeros(n, dtype=np.int32)
    sample = _fit_sample(n, fit_limit, rng)
    clusterer = _fit_hdbscan(points[sample], min_cluster_size, predicts=len(sample) < n)
    labels = np.full(n, -1, dtype=np.int32)
    labels[sample] = clusterer.labels_
    rest = np.setdiff1d(np.arange(n), sample, assume_unique=True)
    labels[rest] = _approximate(clusterer, points[rest])
    return labels


def predict_clusters(
    fit: ClusterFit,
    ifd: np.ndarray,
    embeddings: np.ndarray,
    eligible: np.ndarray,
    *,
    min_cluster_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return difficulty and task int32 [n] of records that `fit` has not seen.

    ifd [n], embeddings [n, d], eligible [n], min_cluster_size: as for `cluster_pool`. The nearest
    centroid, and inside it `approximate_predict` of HDBSCAN, fitted again on the same points.
    """
    difficulty = np.full(len(ifd), SET_ASIDE, dtype=np.int32)
    distances = np.abs(ifd[eligible, None] - fit.centroids)
    difficulty[eligible] = distances.argmin(axis=1)
    reduced, task = fit.reduction.apply(embeddings), np.zeros(len(ifd), dtype=np.int32)
    for label in np.unique(difficulty).tolist():
        members, points = np.flatnonzero(difficulty == label), fit.points[label + 1]
        if len(points) < 2 * min_cluster_size:
            continue
        clusterer = _fit_hdbscan(points, min_cluster_size, predicts=True)
        found = _approximate(clusterer, reduced[members])
        task[members] = np.where(found < 0, fit.tasks[label + 1], found)
    return difficulty, task


def merge_labels(fit: ClusterFit, difficulty: np.ndarray, task: np.ndarray) -> Clusters:
    """Return labels [n] that are all of `fit`, be it fitted or predicted, with its noise tasks."""
    noise = task == fit.tasks[difficulty + 1]
    noisy = np.unique(difficulty[noise]).tolist()
    return Clusters(difficulty, task, fit.centroids, {k: int(fit.tasks[k + 1]) for k in noisy})


def _fit_sample(n: int, fit_limit: int, rng: np.random.Generator) -> np.ndarray:
    """Return the positions of the points that HDBSCAN is fitted on, of `n`."""
    return np.sort(rng.choice(n, fit_limit, replace=False)) if n > fit_limit else np.arange(n)


def _fit_hdbscan(points: np.ndarray, min_cluster_size: int, *, predicts: bool) -> Any:
    import hdbscan

    clusterer = hdbscan.HDBSCAN(
        min_cluster_size=min_cluster_size,
        core_dist_n_jobs=1,
        prediction_data=predicts,
        allow_single_cluster=False,
    )
    with warnings.catch_warnings():
        # hdbscan 0.8 calls scikit-learn by an argument name that is being retired.
        warnings.simplefilter("ignore", FutureWarning)
        return clusterer.fit(points)


def _approximate(clusterer: Any, points: np.ndarray) -> np.ndarray:
    """Return labels [n] of points that the fit has not seen; -1 is noise."""
    import hdbscan

    if not len(points) or clusterer.labels_.max() < 0:
        return np.full(len(points), -1)
    labels: np.ndarray = hdbscan.approximate_predict(clusterer, points)[0]
    return labels

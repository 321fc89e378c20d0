"""The cluster stage: difficulty and task labels for every record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from lead_core.artifacts import Layout, read_embeddings, read_scores, write_clusters
from lead_core.clustering import cluster_pool
from lead_core.params import Params
from lead_core.training_state import drop_finished_scores


def cluster(params: Params, layout: Layout, workspace: Path) -> str:
    """Group the pool by difficulty (K-means on IFD) and, inside, by task (HDBSCAN)."""
    scores, manifest = read_scores(layout.scores)
    drop_finished_scores(workspace)
    ifd = scores["ifd"].to_numpy()
    with threadpool_limits(params.runtime.threads):  # the thread count changes float sums
        clusters = cluster_pool(
            ifd,
            np.asarray(read_embeddings(layout.scores)),
            scores["set_aside"].isna().to_numpy(),
            difficulty_clusters=params.cluster.difficulty_clusters,
            kmeans_restarts=params.cluster.kmeans_restarts,
            reduced_dimensions=params.cluster.reduced_dimensions,
            min_cluster_size=params.cluster.min_cluster_size,
            fit_limit=params.cluster.fit_limit,
            seed=params.seed,
        )
    write_clusters(
        layout.clusters,
        clusters,
        ids=list(scores["id"]),
        ifd=ifd,
        scores_sha256=manifest["scores_sha256"],
    )
    cells = np.unique(np.stack([clusters.difficulty, clusters.task], axis=1), axis=0)
    sizes = np.bincount(clusters.difficulty[clusters.difficulty >= 0])
    return (
        f"clustered {len(ifd)} records: {len(clusters.centroids)} difficulty clusters of "
        f"{', '.join(map(str, sizes))} records, {len(cells)} task clusters in all"
    )

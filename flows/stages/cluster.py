"""The cluster stage: difficulty and task labels for every record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from lead_core.artifacts import (
    Layout,
    read_embeddings,
    read_manifest,
    read_scores,
    write_clusters,
)
from lead_core.cluster_fit import write_fit
from lead_core.cluster_growth import Drift, Growth, grow_clusters
from lead_core.clustering import fit_clusters
from lead_core.earlier_run import read_start
from lead_core.params import Params
from lead_core.training_state import drop_finished_scores


def cluster(params: Params, layout: Layout, workspace: Path) -> str:
    """Group the pool by difficulty (K-means on IFD) and, inside, by task (HDBSCAN).

    With an earlier run to start from, its records keep their labels unless the pool has drifted.
    """
    scores, manifest = read_scores(layout.scores)
    drop_finished_scores(workspace)
    start = read_start(params, workspace)
    ids, ifd = list(scores["id"]), scores["ifd"].to_numpy()
    embeddings = np.asarray(read_embeddings(layout.scores))
    eligible = scores["set_aside"].isna().to_numpy()
    settings = {
        "seed": params.seed,
        "cluster": params.cluster.model_dump(mode="json"),
        "scores": manifest.get("settings"),  # other embeddings are another fit, whatever the IFD
    }
    growth: Growth | None = None
    with threadpool_limits(params.runtime.threads):  # the thread count changes float sums
        if start is not None:
            growth = grow_clusters(
                start.layout,
                np.asarray(ids, dtype=np.str_),
                ifd,
                embeddings,
                eligible,
                settings=settings,
                limits=_limits(params),
            )
        if growth is not None and growth.labelled is not None:
            clusters, fit = growth.labelled
        else:
            clusters, fit = fit_clusters(
                ids,
                ifd,
                embeddings,
                eligible,
                difficulty_clusters=params.cluster.difficulty_clusters,
                kmeans_restarts=params.cluster.kmeans_restarts,
                reduced_dimensions=params.cluster.reduced_dimensions,
                min_cluster_size=params.cluster.min_cluster_size,
                fit_limit=params.cluster.fit_limit,
                seed=params.seed,
            )
    write_clusters(
        layout.clusters, clusters, ids=ids, ifd=ifd, scores_sha256=manifest["scores_sha256"]
    )
    write_fit(
        layout.cluster_fit,
        fit,
        clusters_sha256=read_manifest(layout.clusters, "cluster")["clusters_sha256"],
        settings=settings,
        growth=None if growth is None else growth.as_json(),
    )
    cells = np.unique(np.stack([clusters.difficulty, clusters.task], axis=1), axis=0)
    sizes = np.bincount(clusters.difficulty[clusters.difficulty >= 0])
    of = f" of {', '.join(map(str, sizes))} records" if len(sizes) else ""
    said = (
        f"clustered {len(ifd)} records: {len(clusters.centroids)} difficulty clusters{of}, "
        f"{len(cells)} task clusters in all"
    )
    return said if growth is None else f"{said}\n{_say(growth, len(ifd))}"


def _limits(params: Params) -> Drift:
    grow = params.grow
    return Drift(grow.max_new_fraction, grow.max_ifd_distance, grow.max_noise_rise)


def _say(growth: Growth, records: int) -> str:
    if growth.reasons:
        return f"fitted anew, no earlier label is kept: {'; '.join(growth.reasons)}"
    return (
        f"{growth.kept} records keep their earlier labels, {records - growth.kept} got theirs by the "
        f"earlier fit: {growth.drift}"
    )

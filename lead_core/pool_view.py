"""What selection knows of a pool before training, from the files of the score and cluster stages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lead_core.artifacts import Layout, check_chain, read_clusters, read_scores, scored_by
from lead_core.selectors import PoolView

SCORE_COLUMNS = ["loss", "ifd", "response_tokens"]
CLUSTER_COLUMNS = ["difficulty", "task"]


def view_of(scores: pd.DataFrame, clusters: pd.DataFrame, scored: Mapping[str, Any]) -> PoolView:
    """Return the view that these columns of both make, row by row in order of the pool's ids.

    scored: the manifest of the scores.
    """
    return PoolView(
        difficulty=clusters["difficulty"].to_numpy(np.int16),
        task=clusters["task"].to_numpy(np.int32),
        loss=scores["loss"].to_numpy(np.float64),
        ifd=scores["ifd"].to_numpy(np.float64),
        response_tokens=scores["response_tokens"].to_numpy(np.int32),
        own_losses=scored_by(scored) == scored["model_sha256"],
    )


def read_view(artifacts: Path) -> PoolView:
    """Return the view of the pool that was scored and clustered into `artifacts`.

    Raises LeadError when something is not there, or the clusters are of other scores.
    """
    layout = Layout.below(Path(artifacts))
    scores, scored = read_scores(layout.scores, SCORE_COLUMNS)
    clusters, clustered = read_clusters(layout.clusters, CLUSTER_COLUMNS)
    check_chain("the clusters", clustered["scores_sha256"], scored["scores_sha256"], "cluster")
    return view_of(scores, clusters, scored)

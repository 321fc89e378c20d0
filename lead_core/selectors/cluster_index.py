"""Where the samples of each task cluster are, so that a round need not look at the whole pool."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ClusterIndex:
    """The trainable records of a pool (those with a finite offline loss), task cluster by task cluster.

    labels int32 [C, 2]: difficulty and task of every cluster that has a member, rising. order int32
    [m]: positions in the pool, one cluster after the other, in each the highest offline loss first,
    ties by position. starts int64 [C + 1]: cluster c is ``order[starts[c]:starts[c + 1]]``.
    """

    labels: NDArray[np.int32]
    order: NDArray[np.int32]
    starts: IntArray

    @property
    def sizes(self) -> IntArray:
        """Return how many records each cluster has, int64 [C]."""
        return np.diff(self.starts)

    def members(self, cluster: int) -> NDArray[np.int32]:
        """Return the positions of a cluster's records, highest offline loss first."""
        return self.order[self.starts[cluster] : self.starts[cluster + 1]]

    def cluster_of(self, difficulty: NDArray[np.int32], task: NDArray[np.int32]) -> IntArray:
        """Return the clusters, int64 [m], of records with these two labels [m]."""
        width = int(self.labels[:, 1].max(initial=0)) + 1
        known = _keys(self.labels[:, 0], self.labels[:, 1], width)
        return np.searchsorted(known, _keys(difficulty, task, width))


def index_clusters(
    difficulty: NDArray[np.int32], task: NDArray[np.int32], loss: NDArray[np.float64]
) -> ClusterIndex:
    """Return the index of a pool with labels `difficulty`, `task` and offline `loss`, all [n]."""
    trainable = np.flatnonzero(np.isfinite(loss)).astype(np.int32)
    width = int(task.max(initial=0)) + 1
    keys = _keys(difficulty[trainable], task[trainable], width)
    sizes = np.bincount(keys)
    present = np.flatnonzero(sizes)
    starts = np.concatenate([[0], np.cumsum(sizes[present])])
    # In the smallest type that holds the keys numpy sorts by radix: linear, however many records.
    narrow = keys.astype(np.min_scalar_type(len(sizes)))
    order = trainable[np.argsort(narrow, kind="stable")]
    for start, stop in pairwise(starts.tolist()):
        members = order[start:stop]
        order[start:stop] = members[np.argsort(-loss[members], kind="stable")]
    labels = np.stack([present // width - 1, present % width], axis=1).astype(np.int32)
    return ClusterIndex(labels, order, starts)


def _keys(difficulty: NDArray[np.int32], task: NDArray[np.int32], width: int) -> IntArray:
    """Return one number per pair of labels, rising as the pairs do; difficulty is -1 or more."""
    return (difficulty.astype(np.int64) + 1) * width + task

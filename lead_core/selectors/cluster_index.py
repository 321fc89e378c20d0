"""Where the samples of each task cluster are, so that a round need not look at the whole pool."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ClusterIndex:
    """The task clusters of a pool's m trainable records: those with a finite offline loss.

    labels int32 [C, 2]: difficulty and task of every cluster that has a member, rising. starts int64
    [C + 1]: with the records set out cluster by cluster, c is at ``starts[c]`` to ``starts[c + 1]``.
    """

    labels: NDArray[np.int32]
    starts: IntArray

    @property
    def sizes(self) -> IntArray:
        """Return how many records each cluster has, int64 [C]."""
        return np.diff(self.starts)

    def cluster_of(self, difficulty: NDArray[np.integer], task: NDArray[np.int32]) -> IntArray:
        """Return the clusters, int64 [m], of records with these two labels [m]."""
        width = int(self.labels[:, 1].max(initial=0)) + 1
        known = _keys(self.labels[:, 0], self.labels[:, 1], width)
        return np.searchsorted(known, _keys(difficulty, task, width))


def index_clusters(
    difficulty: NDArray[np.integer], task: NDArray[np.int32], loss: FloatArray
) -> ClusterIndex:
    """Return the index of a pool with labels `difficulty`, `task` and offline `loss`, all [n]."""
    trainable = np.isfinite(loss)
    width = _width(task)
    sizes = np.bincount(_keys(difficulty[trainable], task[trainable], width))
    present = np.flatnonzero(sizes)
    labels = np.stack([present // width - 1, present % width], axis=1).astype(np.int32)
    return ClusterIndex(labels, np.concatenate([[0], np.cumsum(sizes[present])]))


def rank_members(
    index: ClusterIndex,
    difficulty: NDArray[np.integer],
    task: NDArray[np.int32],
    loss: FloatArray,
    values: NDArray[np.number],
) -> NDArray[np.int32]:
    """Return the positions of the trainable records, int32 [m], cluster by cluster as in `index`.

    In each the highest `values` [n] first, ties by position. The rest: see `index_clusters`.
    """
    trainable = np.flatnonzero(np.isfinite(loss)).astype(np.int32)
    keys = _keys(difficulty[trainable], task[trainable], _width(task))
    # In the smallest type that holds the keys numpy sorts by radix: linear, however many records.
    narrow = keys.astype(np.min_scalar_type(int(keys.max(initial=0))))
    order = trainable[np.argsort(narrow, kind="stable")]
    for start, stop in pairwise(index.starts.tolist()):
        members = order[start:stop]
        order[start:stop] = members[np.argsort(-values[members], kind="stable")]
    return order


def _width(task: NDArray[np.int32]) -> int:
    return int(task.max(initial=0)) + 1


def _keys(difficulty: NDArray[np.integer], task: NDArray[np.int32], width: int) -> IntArray:
    """Return one number per pair of labels, rising as the pairs do; difficulty is -1 or more."""
    return (difficulty.astype(np.int64) + 1) * width + task

"""The most informative responses of every length: an order whose every beginning has all lengths."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lead_core.selectors.cluster_index import ClusterIndex, FloatArray

# Multiples of it, modulo 1, fall evenly between those before, however many they are.
GOLDEN_RATIO = (np.sqrt(5) - 1) / 2


def rank_by_length_strata(
    index: ClusterIndex, by_length: NDArray[np.int32], values: FloatArray, size: int
) -> NDArray[np.int32]:
    """Return the positions of `by_length`, int32 [m], in another order inside each cluster.

    by_length: cluster by cluster as in `index`, the longest responses first, int32 [m]. Each cluster
    is cut into strata of neighbours in length, about `size` records each and all alike within one. The
    highest of `values` [n] of every stratum come first, then the second highest of every stratum, and
    so on; equal ranks so that the strata taken first are spread over all lengths.
    """
    order = by_length.copy()
    for start, stop in pairwise(index.starts.tolist()):
        members = by_length[start:stop]
        count = max(1, round(len(members) / size))
        stratum = np.arange(len(members)) * count // len(members)
        inside = np.lexsort((-values[members], stratum))
        begins = np.searchsorted(stratum, np.arange(count))
        rank = np.arange(len(members)) - begins[stratum]
        turn = stratum * GOLDEN_RATIO % 1
        order[start:stop] = members[inside][np.argsort(rank + turn, kind="stable")]
    return order

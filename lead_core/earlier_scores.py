"""Scores that an earlier run has already: only what it has not seen is forwarded.

A loss depends on the other records of its batch in the last bits alone, so the rows taken over are not
to the bit what a full pass over the grown pool would give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lead_core.artifacts import Layout, read_embeddings, read_scores
from lead_core.scoring import Scores


@dataclass(frozen=True)
class EarlierScores:
    """Which of n records have scores of an earlier run.

    rows int64 [n]: their rows in it, -1 for a record that has none. of_rows: those scores, all of them.
    reason: why none is taken over, None where nothing stands against it.
    """

    rows: np.ndarray
    of_rows: Scores | None = None
    reason: str | None = None

    @property
    def missing(self) -> np.ndarray:
        """Return the positions of the records that have to be scored."""
        return np.flatnonzero(self.rows < 0)

    @property
    def taken_over(self) -> int:
        """Return how many records need not be."""
        return len(self.rows) - len(self.missing)

    def complete(self, new: Scores) -> Scores:
        """Return the scores of all n records, those of the `missing` ones being `new`."""
        earlier = self.of_rows
        if earlier is None or not self.taken_over:
            return new

        def both(before: np.ndarray, now: np.ndarray) -> np.ndarray:
            whole = np.empty((len(self.rows), *before.shape[1:]), dtype=before.dtype)
            known = self.rows >= 0
            whole[known] = before[self.rows[known]]
            if len(now):
                whole[~known] = now
            return whole

        return Scores(
            both(earlier.loss, new.loss),
            both(earlier.response_loss, new.response_loss),
            both(earlier.ifd, new.ifd),
            both(earlier.embeddings, new.embeddings),
        )


def find_earlier_scores(
    earlier: Layout | None,
    ids: np.ndarray,
    tokens: np.ndarray,
    response_tokens: np.ndarray,
    *,
    settings: Mapping[str, Any],
) -> EarlierScores:
    """Return what the run in `earlier` (None: no such run) scored of the records with these `ids` [n].

    tokens, response_tokens [n]: a record counts as seen only with the same numbers of them. settings:
    as in that run's manifest, else nothing is taken over; nor with a warm-up, which is another one on
    another pool, nor with a scoring model, whose tokens are others.
    """
    none = np.full(len(ids), -1)
    if earlier is None:
        return EarlierScores(none)
    frame, manifest = read_scores(earlier.scores)
    before = manifest.get("settings", {})
    changed = sorted(name for name in settings if before.get(name) != settings[name])
    if changed:
        return EarlierScores(none, reason=f"{', '.join(changed)} was another then")
    if settings["warmup"] is not None:
        return EarlierScores(none, reason="IFD of a warmed-up model is of the whole pool")
    if settings["model"] is not None:
        return EarlierScores(none, reason="scores of score.model are made anew")
    rows = pd.Index(frame["id"]).get_indexer(pd.Index(ids))
    same = (frame["tokens"].to_numpy()[rows] == tokens) & (
        frame["response_tokens"].to_numpy()[rows] == response_tokens
    )
    scores = Scores(
        frame["loss"].to_numpy(),
        frame["response_loss"].to_numpy(),
        frame["ifd"].to_numpy(),
        read_embeddings(earlier.scores),
    )
    return EarlierScores(np.where(same, rows, -1), scores)

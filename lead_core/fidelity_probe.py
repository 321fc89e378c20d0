"""The probe of the fidelity benchmark: true losses after every round, beside what is estimated."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from lead_core.fidelity import (
    GROUPS,
    Estimator,
    SeenRound,
    compare,
    draw_probe,
    init_shadow,
    read_round,
    update_shadow,
)
from lead_core.rounds import RoundLoop, RoundReport


class FidelityProbe:
    """Watches a loop through `take`, its `on_round`, and keeps one row of figures per round.

    Probed are all samples trained so far and a fixed random sample of those that an arm may choose:
    of the records set aside no rule reads the utility. The forwards are charged to `evaluation`.
    """

    def __init__(self, loop: RoundLoop, estimators: tuple[Estimator, ...], n_samples: int):
        utility = loop.utility
        if utility.loss_change != "displacement" or utility.charge_whole_round or utility.drift:
            raise ValueError(
                "the probed loop must charge its displacement for the rest of a round, without drift"
            )
        self.rounds: list[dict[str, Any]] = []
        self._loop = loop
        self._places = {str(name): place for place, name in enumerate(loop.pool.ids)}
        self._shadow = init_shadow(estimators, loop.pool.view.loss)
        candidates = np.flatnonzero(loop.pool.view.difficulty >= 0)
        self._sample = draw_probe(candidates, n_samples, np.random.default_rng([loop.seed, 2]))
        self._true = loop.pool.view.loss  # where nothing is trained yet, the offline pass told

    def take(self, report: RoundReport) -> None:
        """Update all estimates by a finished round, measure the true losses and compare."""
        loop = self._loop
        seen = read_round(report, self._places, loop.trainer.learning_rate_at)
        mode_gap = self._seen_minus_true(seen)
        prior = loop.utility.drift_prior_samples
        self._shadow = update_shadow(self._shadow, seen, loop.pool.view.clusters, prior)
        probed = np.union1d(self._sample, np.flatnonzero(self._shadow.visited))
        with loop.ledger.charged_to("evaluation"):
            losses = loop.measure(loop.pool.encoded(probed))
        self._true = np.full(len(loop.pool.ids), np.nan)
        self._true[probed] = losses
        visited = self._shadow.visited[probed]
        groups = {
            "trained": probed[visited],
            "fresh": seen.indices,
            "unvisited": probed[~visited],
        }
        self.rounds.append(
            {
                "round": report.round["round"],
                "seen_minus_true_before": mode_gap,
                "groups": {name: self._figures(groups[name]) for name in GROUPS},
            }
        )

    def _seen_minus_true(self, seen: SeenRound) -> dict[str, Any]:
        """Return how far the losses seen in the round's first step lay from the true ones before it.

        Nothing had moved between the two: what differs is train and eval mode. Only for samples that
        were probed after the round before; `mean` is None where there is none.
        """
        first = seen.steps == 0
        differences = seen.loss_seen[first] - self._true[seen.indices[first]]
        known = differences[np.isfinite(differences)]
        return {"mean": float(known.mean()) if len(known) else None, "n": len(known)}

    def _figures(self, indices: np.ndarray) -> dict[str, Any]:
        """Return the true mean loss of a group and every estimator's figures for it."""
        true = self._true[indices]
        figures = {
            estimator.name: compare(estimate[indices], true)
            for estimator, estimate in self._shadow.estimates.items()
        }
        return {
            "n": len(indices),
            "true_mean": float(true.mean()) if len(true) else None,
            "estimators": {n: None if f is None else asdict(f) for n, f in figures.items()},
        }

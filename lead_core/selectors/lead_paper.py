"""`lead-paper`: `lead` with the published online rule unchanged, whatever params.yaml says.

Lin et al. 2025 (arXiv 2505.07437) and its authors' code, for every number of the rule: the loss change
by the published formula, charged whole to every sample; smoothing, gamma (which is also the step size),
rho and uses per sample. Not fixed are LoRA dropout, optimizer, budget and the smallest round: those are
the experiment's, and rules are compared at equal steps.
"""

from __future__ import annotations

from lead_core.selectors.coarse_to_fine import CoarseToFine

SELECTOR = CoarseToFine(
    "lead-paper",
    fixes={
        "select.round_fraction": 0.015,
        "select.max_uses": 4,
        "bandit.exploration": 0.1,
        "bandit.step_size": 0.1,
        "utility.smoothing": 0.1,
        "utility.loss_change": "paper",
        "utility.round_loss_change": "whole",
        "utility.drift": "none",
    },
)

"""The optional warm-up model of IFD: theta_0 trained briefly on a random part of the pool.

LEAD.md A.2. A base model that has never seen the chat template finds every answer hard, whatever its
prompt; after a few steps the ratio of losses tells prompts that help from those that do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lead_core.chat import Encoded
from lead_core.errors import LeadError
from lead_core.model import ResponseLoss, add_adapter
from lead_core.progress import progress
from lead_core.step_result import StepResult
from lead_core.training import OptimizerSettings, Trainer


@dataclass(frozen=True)
class WarmupSettings:
    """How long and how strongly: epochs over `samples` records, LoRA, AdamW at a constant rate."""

    samples: int
    epochs: int
    rank: int
    alpha: float
    learning_rate: float
    effective_batch: int


def warm_up(
    loss: ResponseLoss,
    samples: Sequence[Encoded],
    losses: np.ndarray,
    *,
    settings: WarmupSettings,
    micro_batch_tokens: int,
    pad_id: int,
    seed: int,
) -> None:
    """Train LoRA adapters into the model behind `loss`, in place, and leave it in eval mode.

    losses float64 [n]: what the model as it is makes of `samples`. The records trained on are drawn
    from those where it is finite, all of them if they are fewer than `settings.samples`; every epoch
    goes through them in another order. Raises LeadError when a loss or gradient is not finite.
    """
    rng = np.random.default_rng(seed)
    candidates = np.flatnonzero(np.isfinite(losses))
    size = min(settings.samples, len(candidates))
    chosen = rng.choice(candidates, size, replace=False)
    add_adapter(  # peft puts its layers into the model that it is given
        loss.causal_lm,
        rank=settings.rank,
        alpha=settings.alpha,
        dropout=0.0,
        target_modules="all-linear",
        seed=seed,
    )
    trainer = Trainer(
        loss,
        OptimizerSettings(
            learning_rate=settings.learning_rate,
            decay_factor=1.0,
            decay_steps=1,
            weight_decay=0.0,
            max_grad_norm=None,
        ),
        loss_mean="sample",
        micro_batch_tokens=micro_batch_tokens,
        pad_id=pad_id,
    )
    trainer.seed(seed)  # a model may have dropout of its own
    with progress(settings.epochs * size, "warming up", "samples") as done:
        for _ in range(settings.epochs):
            order = rng.permutation(chosen)
            for start in range(0, size, settings.effective_batch):
                batch = [samples[i] for i in order[start : start + settings.effective_batch]]
                result = trainer.step(batch)
                _check_finite(result, trainer.steps_done)
                done.advance(len(batch))
    loss.eval()


def _check_finite(result: StepResult, step: int) -> None:
    if result.skipped:
        raise LeadError(
            f"score.warmup: a {result.skipped} of step {step} is not a finite number; lower "
            "score.warmup.learning_rate in params.yaml"
        )

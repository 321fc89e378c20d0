"""One optimizer step on an effective batch, with the loss of every sample read before its update.

The loop that everything in LEAD hangs on. It goes through accelerate, which places it on the device;
one process for now.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator

from lead_core.chat import Encoded
from lead_core.errors import LeadError
from lead_core.gradients import RoundGradient, RoundGradientMeter
from lead_core.model import ResponseLoss, group_by_tokens, make_batch, sample_means
from lead_core.step_result import StepResult


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule: learning rate x `decay_factor` every `decay_steps` steps."""

    learning_rate: float
    decay_factor: float
    decay_steps: int
    weight_decay: float
    max_grad_norm: float | None


class Trainer:
    """The model with its optimizer, advanced one effective batch at a time."""

    def __init__(
        self,
        loss: ResponseLoss,
        optimizer: OptimizerSettings,
        *,
        loss_mean: Literal["sample", "token"],
        micro_batch_tokens: int,
        pad_id: int,
    ):
        self.settings = optimizer
        self.loss_mean = loss_mean
        self.micro_batch_tokens = micro_batch_tokens
        self.pad_id = pad_id
        self.steps_done = 0
        self.accelerator = Accelerator(cpu=loss.runtime.device == "cpu", mixed_precision="no")
        if self.accelerator.num_processes > 1:
            raise LeadError(
                "training runs in one process yet; start it without `accelerate launch`"
            )
        named = [(name, p) for name, p in loss.causal_lm.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        adamw = torch.optim.AdamW(
            self.parameters, lr=optimizer.learning_rate, weight_decay=optimizer.weight_decay
        )
        self.loss, self.optimizer = self.accelerator.prepare(loss, adamw)

    def seed(self, seed: int) -> None:
        """Seed what dropout draws from: torch's own generators, which have no other handle."""
        torch.manual_seed(seed)

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of the 0-based optimizer step `step`."""
        decays = step // self.settings.decay_steps
        return self.settings.learning_rate * self.settings.decay_factor**decays

    def step(
        self, samples: Sequence[Encoded], meter: RoundGradientMeter | None = None
    ) -> StepResult:
        """Take one optimizer step on `samples`, whose number is the divisor of their mean.

        The objective is the mean over samples of their mean response-token loss (or the mean over
        response tokens), so it does not depend on how the batch is cut into micro-batches. A loss or
        gradient that is not finite leaves model and optimizer as they were; the schedule goes on.
        """
        lengths = np.array([len(sample.input_ids) for sample in samples])
        response_tokens = sum(len(s.input_ids) - s.response_start for s in samples)
        losses = np.empty(len(samples), dtype=np.float64)
        learning_rate = self.learning_rate_at(self.steps_done)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.loss.train()
        micro_batches = group_by_tokens(lengths, self.micro_batch_tokens)
        for number, indices in enumerate(micro_batches, start=1):
            batch = make_batch([samples[i] for i in indices], pad_id=self.pad_id)
            batch = batch.to(self.accelerator.device)
            last = number == len(micro_batches)  # several processes exchange gradients only then
            with nullcontext() if last else self.accelerator.no_sync(self.loss):
                token_losses = self.loss(batch)
                means = sample_means(token_losses, batch)
                if self.loss_mean == "sample":
                    objective = means.sum() / len(samples)
                else:
                    objective = token_losses.sum() / response_tokens
                self.accelerator.backward(objective)
            losses[indices] = means.detach().cpu().numpy()
        skipped = self._not_finite(losses)
        if skipped is None:
            if meter is not None:
                meter.before_update()
            if self.settings.max_grad_norm is not None:
                self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
            self.optimizer.step()
        elif meter is not None:
            meter.skip_update()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps_done += 1
        return StepResult(losses, lengths, 0.0 if skipped else learning_rate, skipped)

    def _not_finite(self, losses: np.ndarray) -> Literal["loss", "gradient"] | None:
        """Return what forbids the update that the gradients ask for; None if nothing does."""
        if not np.isfinite(losses).all():
            return "loss"
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        return None if torch.isfinite(norm) else "gradient"

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all that a checkpoint needs of the trainer, as named tensors."""
        state = self.optimizer.optimizer.state_dict()["state"]
        tensors = {
            f"parameter/{name}": parameter.detach()
            for name, parameter in zip(self.names, self.parameters, strict=True)
        }
        for index, moments in state.items():
            for moment, value in moments.items():
                tensors[f"optimizer/{index}/{moment}"] = value
        tensors["rng/cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            for device, rng_state in enumerate(torch.cuda.get_rng_state_all()):
                tensors[f"rng/cuda/{device}"] = rng_state
        return {name: value.cpu().clone().contiguous() for name, value in tensors.items()}

    def restore(self, tensors: dict[str, torch.Tensor], steps_done: int) -> None:
        """Continue from what `tensors` returned after `steps_done` steps."""
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters, strict=True):
                parameter.copy_(tensors[f"parameter/{name}"])
        state: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, index, moment = name.split("/")
                state.setdefault(int(index), {})[moment] = value
        whole = self.optimizer.optimizer.state_dict()
        self.optimizer.optimizer.load_state_dict({**whole, "state": state})
        torch.set_rng_state(tensors["rng/cpu"])
        for name, value in tensors.items():
            if name.startswith("rng/cuda/"):
                torch.cuda.set_rng_state(value, int(name.rpartition("/")[2]))
        self.steps_done = steps_done


def check_update(gradient: RoundGradient, round_number: int) -> None:
    """Raise LeadError when a round's gradient, or where it led, is not finite.

    Losses are read before an update, so the last one of a run shows only here.
    """
    if not gradient.is_finite:
        raise LeadError(
            f"round {round_number}: the adapter is no longer made of finite numbers; lower "
            "train.learning_rate, or give train.max_grad_norm a value"
        )


def explain_skip(step: StepResult, ids: np.ndarray, round_number: int) -> str:
    """Return in one line why a step on the samples `ids` [n] was skipped; up to five are named."""
    blamed = blamed_samples(step, ids)
    named = ", ".join(blamed[:5]) + (" and others" if len(blamed) > 5 else "")
    return f"round {round_number}: the {step.skipped} of {named} is not a finite number"


def blamed_samples(step: StepResult, ids: np.ndarray) -> list[str]:
    """Return those of the samples `ids` [n] for which a step was skipped: all, if by the gradient."""
    if step.skipped == "gradient":  # which is a sum over samples
        return [str(name) for name in ids]
    return [str(name) for name in ids[~np.isfinite(step.losses)]]

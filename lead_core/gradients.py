"""What is kept of a round's gradients: exact norms, a sketch for angles, and first-order changes.

Memory per cluster is one sketch, whatever the model's size. The sketch is a count sketch (Charikar,
Chen & Farach-Colton 2002): every coordinate is added, with a random sign, to a random one of m
buckets. Dot products of sketches are unbiased, with standard deviation at most
``sqrt((||a||^2 ||b||^2 + <a, b>^2) / m)``: for m = 16384 a cosine is off by 0.011 or less (one
standard deviation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lead_core.utility import FloatArray, GradientSummary


@dataclass(frozen=True)
class SketchPlan:
    """Bucket (int32 [P]) and sign (int8 [P]) of each of P coordinates, fixed by a seed."""

    size: int
    buckets: torch.Tensor
    signs: torch.Tensor


def plan_sketch(
    n_parameters: int, size: int, *, seed: int, device: torch.device | str
) -> SketchPlan:
    """Return the sketch of `size` buckets for vectors of `n_parameters`; drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    buckets = torch.randint(0, size, (n_parameters,), generator=generator, dtype=torch.int32)
    signs = torch.randint(0, 2, (n_parameters,), generator=generator, dtype=torch.int8) * 2 - 1
    return SketchPlan(size, buckets.to(device), signs.to(device))


def sketch(plan: SketchPlan, vector: torch.Tensor) -> FloatArray:
    """Return the sketch of `vector` [P], float64 [m]."""
    zeros = torch.zeros(plan.size, dtype=torch.float64, device=vector.device)
    return zeros.index_add(0, plan.buckets, (vector * plan.signs).double()).cpu().numpy()


def flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return `tensors` one after the other as one float32 vector (a copy)."""
    return torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])


@dataclass(frozen=True)
class RoundGradient:
    """A round's mean gradient ``g_t`` as it is kept, and what the round's steps did along it.

    displacement float64 [S]: ``g_t . (theta_t - theta_{s-1})`` for each step s: the first-order loss
    change from just before that step to the end of the round, in nats/token.
    """

    summary: GradientSummary
    displacement: FloatArray

    @property
    def is_finite(self) -> bool:
        """Whether the gradient, and where it led, are made of finite numbers."""
        return bool(np.isfinite(self.summary.sq_norm) and np.isfinite(self.displacement).all())


@dataclass(frozen=True)
class GradientTrace:
    """What the steps of a round have left so far; nothing before the first.

    total float32 [P]: the sum of their gradients. snapshots float32 [P] each: the parameters before the
    first step and, at regular distances, before later ones. steps: how many there were, those
    without an update (skipped) included.
    """

    total: torch.Tensor | None = None
    snapshots: tuple[torch.Tensor, ...] = ()
    steps: int = 0
    skipped: int = 0


class RoundGradientMeter:
    """Watches the optimizer steps of one round, from `trace` on.

    Its trace holds at most `max_snapshots` copies of the trainable parameters. In a round of more
    steps (ours) the displacement of a step between two copies is interpolated between theirs.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        n_steps: int,
        max_snapshots: int,
        trace: GradientTrace | None = None,
    ):
        self.trace = GradientTrace() if trace is None else trace
        self._parameters = list(parameters)
        self._stride = -(-n_steps // max_snapshots)

    def before_update(self) -> None:
        """Take in the gradient of a step, as it is before clipping, and where the step starts."""
        gradient = flat(
            [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        )
        # Into the new vector: an earlier trace, which a checkpoint may still hold, stays as it was.
        total = gradient if self.trace.total is None else gradient.add_(self.trace.total)
        self._note_step(total, self.trace.skipped)

    def skip_update(self) -> None:
        """Note a step that makes no update: it has a place in the round, but no gradient."""
        total = self.trace.total
        if total is None:
            total = torch.zeros_like(flat(self._parameters))
        self._note_step(total, self.trace.skipped + 1)

    def _note_step(self, total: torch.Tensor, skipped: int) -> None:
        snapshots, steps = self.trace.snapshots, self.trace.steps
        if steps % self._stride == 0:
            snapshots = (*snapshots, flat(self._parameters))
        self.trace = GradientTrace(total, snapshots, steps + 1, skipped)

    def close(self, plan: SketchPlan) -> RoundGradient:
        """Return the round's mean gradient and the displacement along it, after the last step.

        The mean is over the updates; without one it is zero.
        """
        total, steps = self.trace.total, self.trace.steps
        if total is None:
            raise ValueError("a round without a step has no gradient")
        mean = total / max(1, steps - self.trace.skipped)
        end = flat(self._parameters)
        along = [float(_dot(mean, end - start)) for start in self.trace.snapshots]
        knots = [*range(0, steps, self._stride), steps]
        per_step = np.interp(np.arange(steps), knots, [*along, 0.0])
        summary = GradientSummary(float(_dot(mean, mean)), sketch(plan, mean))
        return RoundGradient(summary, per_step)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.dot(a.double(), b.double())

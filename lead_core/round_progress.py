"""A round under way: its samples, the steps taken of it so far, and how a checkpoint keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from lead_core.gradients import GradientTrace
from lead_core.selectors import Picks
from lead_core.step_result import StepResult

_PICKS = "progress/picks/"
_STEPS = "progress/steps/"
_SNAPSHOTS = "progress/snapshots/"
_TOTAL = "progress/gradient_sum"


@dataclass(frozen=True)
class RoundProgress:
    """A round between two of its optimizer steps.

    picks: how it was drawn, its indices in the order of training; no index where nothing was eligible.
    steps: what each step taken so far saw. trace: what those steps left of their gradients.
    """

    picks: Picks
    steps: tuple[StepResult, ...] = ()
    trace: GradientTrace = field(default_factory=GradientTrace)

    @property
    def samples_done(self) -> int:
        """Return how many of the round's samples were trained on; they are the first of `picks`."""
        return sum(len(step.losses) for step in self.steps)

    @property
    def skipped_steps(self) -> int:
        """Return how many of the steps made no update."""
        return sum(step.skipped is not None for step in self.steps)

    @property
    def complete(self) -> bool:
        """Whether all of the round's steps are taken."""
        return self.samples_done == len(self.picks.indices)


@dataclass(frozen=True)
class PackedState:
    """A state in the parts of a checkpoint; one that holds another has its parts among its own."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tensors: dict[str, torch.Tensor]


def begin_progress(picks: Picks, rng: np.random.Generator) -> RoundProgress:
    """Return the round on `picks` before its first step, in shuffled order."""
    return RoundProgress(replace(picks, indices=rng.permutation(picks.indices)))


def pack_progress(progress: RoundProgress) -> PackedState:
    """Return `progress` as what a checkpoint can hold; its tensors on the CPU."""
    steps, trace = progress.steps, progress.trace
    drawn = vars(progress.picks)
    is_array = {name: isinstance(value, np.ndarray) for name, value in drawn.items()}
    arrays = {f"{_PICKS}{name}": value for name, value in drawn.items() if is_array[name]}
    if steps:
        arrays |= {
            f"{_STEPS}losses": np.concatenate([step.losses for step in steps]),
            f"{_STEPS}lengths": np.concatenate([step.lengths for step in steps]),
            f"{_STEPS}learning_rates": np.array([step.learning_rate for step in steps]),
        }
    tensors = {f"{_SNAPSHOTS}{i}": copy.cpu() for i, copy in enumerate(trace.snapshots)}
    if trace.total is not None:
        tensors[_TOTAL] = trace.total.cpu()
    values = {
        "picks": {name: value for name, value in drawn.items() if not is_array[name]},
        "step_samples": [len(step.losses) for step in steps],
        "step_skipped": [step.skipped for step in steps],
        "snapshots": len(trace.snapshots),
    }
    return PackedState(values, arrays, tensors)


def unpack_progress(packed: PackedState, device: torch.device | str) -> RoundProgress:
    """Return what `pack_progress` was given, its tensors on `device`."""
    arrays, tensors = packed.arrays, packed.tensors
    drawn: dict[str, Any] = dict(packed.values["picks"])
    drawn |= {k.removeprefix(_PICKS): v for k, v in arrays.items() if k.startswith(_PICKS)}
    picks = Picks(**drawn)
    sizes = packed.values["step_samples"]
    if not sizes:
        return RoundProgress(picks)
    cuts = np.cumsum(sizes)[:-1]
    steps = zip(
        np.split(arrays[f"{_STEPS}losses"], cuts),
        np.split(arrays[f"{_STEPS}lengths"], cuts),
        arrays[f"{_STEPS}learning_rates"].tolist(),
        packed.values["step_skipped"],
        strict=True,
    )
    snapshots = (tensors[f"{_SNAPSHOTS}{i}"] for i in range(packed.values["snapshots"]))
    taken = tuple(StepResult(*step) for step in steps)
    progress = RoundProgress(picks, taken)
    trace = GradientTrace(
        tensors[_TOTAL].to(device),
        tuple(copy.to(device) for copy in snapshots),
        len(taken),
        progress.skipped_steps,
    )
    return replace(progress, trace=trace)

"""LEAD in a training loop of one's own: `LeadSampler` says what to train on and is told what it cost.

The same decisions as in the pipeline's own loop (`rounds`), by the same functions (`round_rule`). It
needs numpy and torch alone, and leaves model, data and optimizer to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch

from lead_core.errors import LeadError
from lead_core.gradients import SketchPlan, plan_sketch
from lead_core.loop_state import LoopState, init_loop, pack_loop, unpack_loop
from lead_core.round_progress import PackedState, RoundProgress
from lead_core.round_rule import RoundRule, budget_limits, one_epoch, rule_settings
from lead_core.selectors import PoolView, get_selector, on_any_scores
from lead_core.step_result import StepResult
from lead_core.utility import LossChange


@dataclass(frozen=True, kw_only=True)
class LeadSettings:
    """What LEAD goes by: the keys of params.yaml (docs/parameters.md), with that file's values.

    effective_batch: samples per optimizer step. budget_samples: distinct samples in all.
    """

    effective_batch: int
    budget_samples: int
    visits_per_budget: float | None = 1.0
    max_rounds: int | None = None
    seed: int = 0
    selector: str = "informative"
    round_fraction: float = 0.015
    min_round_samples: int | None = None
    max_uses: int = 4
    cluster_size_power: float = 0.5
    exploration: float = 0.1
    step_size: float = 1.0
    smoothing: float = 0.1
    loss_change: LossChange = "displacement"
    round_loss_change: Literal["remaining", "whole"] = "remaining"
    drift: Literal["none", "cluster"] = "none"
    drift_prior_samples: float = 8
    sketch_size: int = 16384
    displacement_snapshots: int = 16

    def __post_init__(self) -> None:
        """Raise LeadError that names every value that is not to be had."""
        problems = [
            f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
            for name, allowed in _CHOICES.items()
            if getattr(self, name) not in allowed
        ]
        problems += [
            f"{name} must be {text}, got {value!r}"
            for name, (text, fits) in _BOUNDS.items()
            if (value := getattr(self, name)) is not None and not fits(value)
        ]
        if problems:
            raise LeadError("\n".join(f"LeadSettings: {problem}" for problem in problems))


_CHOICES: dict[str, tuple[str, ...]] = {
    "loss_change": get_args(LossChange),
    "round_loss_change": ("remaining", "whole"),
    "drift": ("none", "cluster"),
}
_POSITIVE = ("above 0", lambda value: value > 0)
_BOUNDS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # those of params.yaml
    "exploration": ("in (0, 1]", lambda value: 0 < value <= 1),
    "round_fraction": ("in (0, 1]", lambda value: 0 < value <= 1),
    "cluster_size_power": ("in [0, 1]", lambda value: 0 <= value <= 1),
    "smoothing": ("in [0, 1)", lambda value: 0 <= value < 1),
    "drift_prior_samples": ("0 or more", lambda value: value >= 0),
    "sketch_size": ("64 or more", lambda value: value >= 64),
    "step_size": _POSITIVE,
    **dict.fromkeys(
        (
            "effective_batch",
            "budget_samples",
            "visits_per_budget",
            "max_rounds",
            "min_round_samples",
            "max_uses",
            "displacement_snapshots",
        ),
        _POSITIVE,
    ),
}


class LeadSampler:
    """An iterable of the samples of each optimizer step, as positions in the pool: list of int.

    After each of them the caller runs forward and backward, calls `observe`, and steps its optimizer;
    then comes the next. It ends with the budget. As `batch_sampler` of a DataLoader it works as long as
    nothing is fetched ahead: the next round depends on what this one taught.
    """

    def __init__(
        self, view: PoolView, parameters: Iterable[torch.nn.Parameter], settings: LeadSettings
    ):
        self._rule = _rule(view, settings)
        self._parameters = [p for p in parameters if p.requires_grad]
        if not self._parameters:
            raise LeadError("LeadSampler: none of the parameters is trained (requires_grad)")
        self._settings = settings
        self._rng = np.random.default_rng([settings.seed, 1])
        self._state = init_loop(view)
        self._awaited: int | None = None

    @property
    def state(self) -> LoopState:
        """Return where training stands, to look at: its arrays go on changing."""
        return self._state

    def __iter__(self) -> Iterator[list[int]]:
        while not self._rule.is_over(self._current()):
            progress = self._state.progress
            if progress is None:
                self._state = self._rule.begin(self._state, self._rng)
                continue
            batch = self._rule.next_batch(progress)
            self._awaited = len(batch)
            yield batch.tolist()
            if self._awaited is not None:
                raise LeadError(
                    "LeadSampler: the next samples were asked for before observe() was told the "
                    "losses of the last; fetch no batch ahead, and observe every one"
                )

    def observe(self, losses: torch.Tensor, learning_rate: float) -> None:
        """Take in the losses of the samples last given, and the gradients of the parameters.

        losses [m]: mean loss of each sample's response tokens in nats, before the update, in the order
        given. To be called after backward, before clipping and before the optimizer's step.
        """
        progress = self._state.progress
        if progress is None or self._awaited is None:
            raise LeadError("LeadSampler: observe() once for each list of samples, not before")
        values = losses.detach().double().cpu().numpy()
        if values.shape != (self._awaited,):
            raise LeadError(
                f"LeadSampler: observe() got losses of shape {list(values.shape)}, expected "
                f"[{self._awaited}]: one per sample, the mean over its response tokens"
            )
        if not np.isfinite(values).all():
            raise LeadError("LeadSampler: a loss is not a finite number; lower the learning rate")
        meter = self._rule.meter(progress, self._parameters)
        meter.before_update()
        tokens = np.zeros(len(values), dtype=np.int64)  # nothing that is decided depends on them
        step = StepResult(values, tokens, learning_rate)
        progress = replace(progress, steps=(*progress.steps, step), trace=meter.trace)
        self._state = replace(self._state, work_done=self._state.work_done + 1, progress=progress)
        self._awaited = None

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that selection has to go on from, for `torch.save`.

        To be called between two steps, with the model and the optimizer as they are then.
        """
        packed = pack_loop(self._current(), self._rng)
        arrays = {name: torch.tensor(array) for name, array in packed.arrays.items()}
        tensors = {name: tensor.clone() for name, tensor in packed.tensors.items()}
        return {
            "made_with": self._made_with(),
            "values": packed.values,
            "arrays": arrays,
            "tensors": tensors,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises LeadError if that was made with another pool, model or settings.
        """
        arrays = {name: tensor.cpu().numpy().copy() for name, tensor in saved["arrays"].items()}
        for name, expected in self._made_with().items():
            if (got := saved["made_with"].get(name)) != expected:
                raise LeadError(
                    f"LeadSampler: the saved state was made with {name} {got}, this sampler has "
                    f"{expected}"
                )
        packed = PackedState(saved["values"], arrays, saved["tensors"])
        device = self._parameters[0].device
        self._state = unpack_loop(packed, self._rule.view, self._rng, device)
        self._awaited = None

    def _made_with(self) -> dict[str, Any]:
        """Return what a saved state goes with: other values would be followed without a word."""
        view = self._rule.view
        return {
            "pool_samples": len(view.loss),
            "arms": view.n_arms,
            "trained_parameters": sum(p.numel() for p in self._parameters),
            **asdict(self._settings),
        }

    @cached_property
    def _plan(self) -> SketchPlan:
        """Return the sketch of gradients; made late, when the model is where it trains."""
        n_trainable = sum(p.numel() for p in self._parameters)
        device, size = self._parameters[0].device, self._rule.utility.sketch_size
        return plan_sketch(n_trainable, size, seed=self._settings.seed, device=device)

    def _current(self) -> LoopState:
        """Return the state, a round whose last step is taken being finished first."""
        progress = self._state.progress
        if progress is not None and len(progress.picks.indices) and progress.complete:
            self._state = self._finished(progress)
        return self._state

    def _finished(self, progress: RoundProgress) -> LoopState:
        gradient = self._rule.meter(progress, self._parameters).close(self._plan)
        if not gradient.is_finite:
            raise LeadError(
                f"LeadSampler: after round {self._state.round + 1} the parameters are no longer made "
                "of finite numbers; lower the learning rate, or clip the gradients"
            )
        return self._rule.finish(self._state, progress, gradient)[0]


def _check_view(view: PoolView) -> None:
    """Raise LeadError for arrays that do not fit each other, naming the first record that is wrong."""
    names = [field.name for field in fields(view) if field.name != "own_losses"]
    sizes = {name: len(getattr(view, name)) for name in names}
    if len(set(sizes.values())) != 1:
        raise LeadError(f"LeadSampler: the arrays of PoolView differ in length: {sizes}")
    for name, lowest in (("difficulty", -1), ("task", 0)):
        labels = getattr(view, name)
        if not np.issubdtype(labels.dtype, np.integer):
            raise LeadError(f"LeadSampler: PoolView.{name} must be integers, got {labels.dtype}")
        if (low := np.flatnonzero(labels < lowest)).size:
            raise LeadError(
                f"LeadSampler: PoolView.{name} must be {lowest} or more, got {labels[low[0]]} at "
                f"{low[0]}; give noise a label of its own"
            )
    if (lost := np.flatnonzero((view.difficulty >= 0) & ~np.isfinite(view.loss))).size:
        raise LeadError(
            f"LeadSampler: PoolView.loss at {lost[0]} is not finite; set its difficulty to -1"
        )
    with_arm = view.difficulty >= 0
    if (wrong := np.flatnonzero(with_arm & ~((view.ifd > 0) & (view.ifd < 1)))).size:
        raise LeadError(
            f"LeadSampler: PoolView.ifd must be above 0 and below 1, got {view.ifd[wrong[0]]} at "
            f"{wrong[0]}; set its difficulty to -1"
        )
    if (empty := np.flatnonzero(with_arm & (view.response_tokens < 1))).size:
        raise LeadError(
            f"LeadSampler: PoolView.response_tokens must be 1 or more, got "
            f"{view.response_tokens[empty[0]]} at {empty[0]}"
        )


def _rule(view: PoolView, settings: LeadSettings) -> RoundRule:
    """Return what `settings` mean on this pool; a selector's fixed values stand above them."""
    selector = get_selector(settings.selector)
    if selector.exact_utilities:
        raise LeadError(
            f"LeadSampler: {selector.name} forwards the pool before every round, which only the "
            "pipeline does (`lead run`); choose another selector"
        )
    if selector.starts_from_losses and not view.own_losses:
        raise LeadError(
            f"LeadSampler: another model made the scores, but {selector.name} starts from the trained "
            f"model's own losses; choose one of {', '.join(on_any_scores())}, or score with "
            "score.model: null"
        )
    fixed = {key.rpartition(".")[2]: value for key, value in selector.fixes.items()}
    settings = replace(settings, **fixed)  # type: ignore[arg-type]
    _check_view(view)
    if not 1 <= settings.budget_samples <= len(view.loss):
        raise LeadError(
            f"LeadSampler: budget_samples must be between 1 and {len(view.loss)}, the pool's size, "
            f"got {settings.budget_samples}"
        )
    limits = budget_limits(settings.budget_samples, settings.visits_per_budget, settings.max_rounds)
    if selector.whole_pool:
        limits = one_epoch(view.loss)
    selection, utility = rule_settings(asdict(settings), effective_batch=settings.effective_batch)
    return RoundRule(view, selector, selection, utility, limits, settings.effective_batch)

"""What LEAD adds to training: utilities, bandit, selection, gradient sketch and logging, in seconds.

Two views of it. The loop is taken apart by a stopwatch: exact, however small the share. And the whole
is held against the bare trainer on the same batches: nothing can hide there, but two equal runs differ
by more than the per cent or so that is looked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lead_core.bench.interleaving import interleave, timed
from lead_core.bench.restart import remember_start
from lead_core.bench.result import Figure, Target
from lead_core.bench.spread import Spread, spread_of, spread_of_ratios
from lead_core.bench.stopwatch import Stopwatch
from lead_core.chat import Encoded
from lead_core.checkpoint import Checkpoint, CheckpointStore
from lead_core.gradients import RoundGradientMeter
from lead_core.rounds import RoundLoop, RoundReport
from lead_core.step_result import StepResult
from lead_core.training import Trainer

SHARE = Target(2.0, at_most=True)
LOGGING_SHARE = Target(1.0, at_most=True)

TRAINING = "training"
CHECKPOINTS = "checkpoints"
# What LEAD needs beside forwards, backwards and updates; checkpoints are a choice of the user's.
PARTS = {
    "selection": "selection, utilities, bandit, sketch",
    "gradients": "gradients and snapshots of a round",
    "logging": "logging",
}


@dataclass(frozen=True)
class BookkeepingResult:
    """A few rounds of LEAD's loop, taken apart, and the same steps without it.

    seconds: per repetition, of every part of the loop. fixed_list: per repetition, of the bare trainer
    on the same batches.
    """

    rounds: int
    samples: int
    seconds: dict[str, tuple[float, ...]]
    fixed_list: tuple[float, ...]

    def share(self, *parts: str) -> Spread:
        """Return what `parts` took, as a percentage of the loop without checkpoints."""
        spent = [sum(values) for values in zip(*(self.seconds[p] for p in parts), strict=True)]
        return spread_of_ratios(spent, self._loop_seconds()).times(100)

    @property
    def over_fixed_list(self) -> Spread:
        """Return how much longer the loop took than the bare trainer, in per cent of that."""
        ratios = zip(self._loop_seconds(), self.fixed_list, strict=True)
        return spread_of([100 * (loop / bare - 1) for loop, bare in ratios])

    def figures(self) -> Sequence[Figure]:
        """Return the share of all parts, of each, and the difference to the fixed list."""
        return [
            Figure("all that LEAD adds", self.share(*PARTS), "%", SHARE),
            *(
                Figure(text, self.share(part), "%", LOGGING_SHARE if part == "logging" else None)
                for part, text in PARTS.items()
            ),
            Figure("loop against fixed list", self.over_fixed_list, "%"),
            Figure("checkpoints, beside it", self.share(CHECKPOINTS), "%"),
        ]

    def _loop_seconds(self) -> list[float]:
        counted = [self.seconds[part] for part in (TRAINING, *PARTS)]
        return [sum(values) for values in zip(*counted, strict=True)]


def measure_bookkeeping(
    loop: RoundLoop, *, on_round: Callable[[RoundReport], None], repetitions: int
) -> BookkeepingResult:
    """Run `loop` to its limits and its bare trainer on the same batches, by turns.

    Both start from the same adapters. `on_round` is told of every round, as a recorder of the train
    stage is: what it takes counts as logging.
    """
    restart = remember_start(loop.trainer.accelerator.unwrap_model(loop.trainer.loss))
    runs: list[_WatchedRun] = []

    def with_bookkeeping() -> float:
        restart()
        runs.append(_WatchedRun(loop, on_round))
        return timed(runs[-1].run)()

    def bare() -> float:
        restart()
        return timed(lambda: _train_bare(loop, runs[-1].batches))()

    with_bookkeeping()
    bare()
    runs.clear()
    fixed_list = interleave({"loop": with_bookkeeping, "fixed": bare}, repetitions)["fixed"]
    return BookkeepingResult(
        rounds=runs[-1].rounds,
        samples=sum(map(len, runs[-1].batches)),
        seconds={
            part: tuple(run.watch.seconds[part] for run in runs)
            for part in (TRAINING, CHECKPOINTS, *PARTS)
        },
        fixed_list=fixed_list,
    )


def _train_bare(loop: RoundLoop, batches: Sequence[Sequence[Encoded]]) -> None:
    for samples in batches:
        with loop.ledger.charged_to("training"):
            loop.trainer.step(samples)


class _WatchedRun:
    """One run of a loop under a stopwatch; afterwards, the batches that it trained on."""

    def __init__(self, loop: RoundLoop, on_round: Callable[[RoundReport], None]):
        self.watch = Stopwatch("set-up")
        self.batches: list[Sequence[Encoded]] = []
        self.rounds = 0
        self._loop = loop
        self._on_round = on_round

    def run(self) -> None:
        """Train; what belongs to no other part is selection, from where training begins."""
        with tempfile.TemporaryDirectory(prefix="lead-bench-") as folder:
            trainer: Any = _WatchedTrainer(self._loop.trainer, self)
            replace(
                self._loop,
                trainer=trainer,
                store=_WatchedStore(Path(folder), self.watch),
                on_start=lambda: self.watch.switch("selection"),
                on_round=self._take,
            ).run()
            self.watch.switch("clean-up")

    def _take(self, report: RoundReport) -> None:
        self.rounds += 1
        with self.watch.charged_to("logging"):
            self._on_round(report)


class _WatchedTrainer:
    """A trainer whose steps are charged to training, but for the gradients that its meter takes in."""

    def __init__(self, trainer: Trainer, run: _WatchedRun):
        self._trainer = trainer
        self._run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)

    def step(self, samples: Sequence[Encoded], meter: RoundGradientMeter) -> StepResult:
        """Take the step, and keep its samples."""
        self._run.batches.append(samples)
        watched: Any = _WatchedMeter(meter, self._run.watch)
        with self._run.watch.charged_to(TRAINING):
            return self._trainer.step(samples, watched)


class _WatchedMeter:
    """A meter that charges what it takes in to gradients."""

    def __init__(self, meter: RoundGradientMeter, watch: Stopwatch):
        self._meter = meter
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meter, name)

    def before_update(self) -> None:
        """Take in a step's gradient."""
        with self._watch.charged_to("gradients"):
            self._meter.before_update()


class _WatchedStore(CheckpointStore):
    """A store whose checkpoints are charged to themselves, and its notes to logging."""

    def __init__(self, folder: Path, watch: Stopwatch):
        super().__init__(folder)
        self._watch = watch

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint."""
        with self._watch.charged_to(CHECKPOINTS):
            super().save(checkpoint)

    def append(self, log: str, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows to a log."""
        with self._watch.charged_to("logging"):
            super().append(log, rows)

    def note_work(self, number: int, column: str, sequences: int, tokens: int) -> None:
        """Note what is about to be forwarded."""
        with self._watch.charged_to("logging"):
            super().note_work(number, column, sequences, tokens)

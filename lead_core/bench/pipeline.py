"""What it costs to find that nothing is to be done: no-op runs of the pipeline, in seconds."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lead_core.bench.interleaving import interleave, timed
from lead_core.bench.result import Figure, NotMeasured, Target
from lead_core.bench.spread import spread_of


@dataclass(frozen=True)
class PipelineResult:
    """Seconds of each command, start of the interpreter included, and what they should stay below."""

    seconds: dict[str, tuple[float, ...]]
    limits: dict[str, float]

    def figures(self) -> Sequence[Figure]:
        """Return the seconds of each command."""
        return [
            Figure(name, spread_of(seconds), "s", Target(self.limits[name], at_most=True))
            for name, seconds in self.seconds.items()
        ]


def measure_pipeline(
    workspace: Path,
    commands: Mapping[str, Sequence[str]],
    *,
    limits: Mapping[str, float],
    environment: Mapping[str, str],
    repetitions: int,
) -> PipelineResult:
    """Time `commands` (name -> command line) by turns in a workspace that is up to date.

    limits: seconds, by name. NotMeasured when a command fails.
    """

    def run(name: str) -> None:
        done = subprocess.run(
            commands[name], cwd=workspace, env=dict(environment), capture_output=True, text=True
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise NotMeasured(f"`{name}` exits with {done.returncode} ({reason})")

    sides = {name: timed(partial(run, name)) for name in commands}
    for side in sides.values():
        side()
    return PipelineResult(interleave(sides, repetitions), dict(limits))

"""`lead bench`: measure, side by side in one run, and write or show what came of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.bench_measurements import MEASUREMENTS, ONLY_IN_FULL
from flows.bench_subject import Subject
from lead_core.bench.effort import FULL, QUICK
from lead_core.bench.machine import describe_machine
from lead_core.bench.report import BenchReport
from lead_core.bench.result import NotMeasured, Result
from lead_core.benchmark_files import files_in
from lead_core.errors import LeadError
from lead_core.origin import write_origin
from lead_core.params import load_params
from lead_core.storage import write_json, write_text

MMLU = "mmlu/test.jsonl"


@dataclass(frozen=True)
class BenchPlan:
    """What to measure (no names: all), how thoroughly, on what; where results go (None: nowhere).

    subjects: of MMLU, the first so many; None: as many as go with `full`.
    """

    names: tuple[str, ...]
    full: bool
    out: Path | None
    data_dir: Path | None
    subjects: int | None
    overrides: tuple[str, ...]

    def command(self, workspace: Path) -> str:
        """Return the command line that makes this; a folder outside of the workspace has no name."""
        words = ["lead", "bench", *self.names, "--full" if self.full else "--quick"]
        for option, folder in (("--data-dir", self.data_dir), ("--out", self.out)):
            if folder is not None:
                inside = folder.is_relative_to(workspace)
                words += [option, folder.relative_to(workspace).as_posix() if inside else "FOLDER"]
        if self.subjects is not None:
            words += ["--subjects", str(self.subjects)]
        for text in self.overrides:
            words += ["--set", text]
        return shlex.join(words)


def run_bench(workspace: Path, plan: BenchPlan) -> BenchReport:
    """Measure what `plan` names, one after the other, and write it if it says where.

    Raises LeadError before anything is measured for a name that is none, and for files that are not
    there. What cannot be measured here is in the report with the reason.
    """
    names = chosen_measurements(plan.names, full=plan.full)
    if plan.data_dir is not None and MMLU not in files_in(plan.data_dir):
        raise LeadError(f"--data-dir: no file {plan.data_dir / MMLU} (docs/evaluation.md)")
    effort = FULL if plan.full else QUICK
    if plan.subjects is not None:
        effort = replace(effort, subjects=plan.subjects)
    params = load_params(workspace / "params.yaml", plan.overrides)
    subject = Subject(workspace, params, effort, plan.data_dir)
    machine = describe_machine(subject.runtime)
    results: dict[str, Result] = {}
    skipped: dict[str, str] = {}
    report = BenchReport(machine, params.model.name, effort, results, skipped)
    for name in names:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        try:
            results[name] = MEASUREMENTS[name](subject)
        except NotMeasured as reason:
            skipped[name] = str(reason)
        if plan.out is not None:  # after each: a later failure loses nothing of it
            write_report(plan.out, report, workspace, plan.command(workspace))
    return report


def chosen_measurements(names: Sequence[str], *, full: bool) -> tuple[str, ...]:
    """Return the measurements to make, each once; without `names`, all that go with `full`.

    Raises LeadError for a name that is none.
    """
    for name in names:
        if name not in MEASUREMENTS:
            raise LeadError(
                f"lead bench: no measurement {name!r}; there is {', '.join(MEASUREMENTS)}"
            )
    fitting = [name for name in MEASUREMENTS if full or name not in ONLY_IN_FULL]
    return tuple(dict.fromkeys(names or fitting))


def write_report(out: Path, report: BenchReport, workspace: Path, command: str) -> None:
    """Write bench.json, its table (bench.md), and where and how it was made (origin.json)."""
    path = out / "bench.json"
    write_json(path, report.as_json())
    write_text(out / "bench.md", report.as_markdown(command))
    write_origin(path, workspace, {"command": command, "machine": str(report.machine)})

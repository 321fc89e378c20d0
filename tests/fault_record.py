"""What the fault suite injected, what of it was survived, and what that cost."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from lead_core.storage import json_text, write_text
from lead_core.tracking_process import git_origin

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Injected:
    """A fault by the test that injected it; `seconds_lost`: to the repeated run, where it was timed."""

    name: str
    case: str
    survived: bool
    seconds: float
    seconds_lost: float | None


class FaultRecord:
    """A plugin of pytest that counts tests marked `faults`, and keeps them in `out` as they end.

    A test that was skipped, or failed before its fault, injected none.
    """

    def __init__(self, out: Path | None, arguments: tuple[str, ...]):
        self._out = out
        self._command = shlex.join(["python", "-m", "pytest", *arguments])
        self._origin = git_origin(ROOT) if out else {}  # now: later edits were not tried
        self._planned = 0
        self._faults: list[Injected] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count what is to be injected."""
        self._planned = sum("faults" in item.keywords for item in session.items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take down a fault whose test has just ended."""
        if report.when != "call" or report.skipped or "faults" not in report.keywords:
            return
        test, _, case = report.nodeid.rpartition("::")[2].partition("[")
        lost = dict(report.user_properties).get("seconds_lost")
        self._faults.append(
            Injected(
                name=test.removeprefix("test_").replace("_", " "),
                case=case.removesuffix("]"),
                survived=report.passed,
                seconds=round(report.duration, 1),
                seconds_lost=None if lost is None else round(float(str(lost)), 1),
            )
        )
        if self._out is not None:
            write_text(self._out, json_text(self.as_json()))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say the sums, if there are any."""
        if self._faults:
            found = self.as_json()
            terminalreporter.write_line(
                f"faults injected: {found['faults_injected']}, survived: {found['faults_survived']}, "
                f"seconds lost to kills: {found['seconds_lost']:.0f}"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON values; planned and injected differ while the suite runs."""
        return self._origin | {
            "command": self._command,
            "faults_planned": self._planned,
            "faults_injected": len(self._faults),
            "faults_survived": sum(fault.survived for fault in self._faults),
            "seconds_lost": round(sum(fault.seconds_lost or 0.0 for fault in self._faults), 1),
            "faults": [asdict(fault) for fault in self._faults],
        }

"""Every run of the simulated night by its end and its reason, and what is wrong with the whole."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from test_stages import call, hashes, make_workspace

from lead_core.storage import sha256_file

if TYPE_CHECKING:
    from night import Night

PATIENCE_SECONDS = 1800.0
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class Run:
    """A flow run as Prefect tells it: its end, how long it took, and the reason if it failed."""

    name: str
    scheduled: bool
    end: str
    seconds: float
    reason: str | None


@dataclass(frozen=True)
class Account:
    """What the night was and became. `problems` is empty if all is accounted for."""

    minutes_in_all: float
    runs: dict[str, int]
    faults_injected: int
    faults_survived: int
    seconds_lost: float
    faults: list[dict[str, Any]]
    faults_without_their_moment: list[str]
    runs_that_did_not_complete: list[dict[str, Any]]
    runs_by_hand: list[dict[str, Any]]
    exit_codes_of_serving: list[int]
    mlflow_runs: dict[str, int]
    problems: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def account_for(night: Night, *, rested: bool) -> Account:
    """Ask Prefect and MLflow, compare the last result with one that nothing disturbed, and sum up."""
    runs, waiting = _flow_runs()
    problems = [f"left running: {line}" for line in night.orphans]
    if not rested:
        problems.append("the last work was not done by any scheduled run")
    for run in runs:
        if run.end not in ENDS:
            problems.append(f"run {run.name} has no end: {run.end}")
        elif run.end in ("FAILED", "CRASHED") and not run.reason:
            problems.append(f"run {run.name} ended as {run.end} without a reason")
    by_hand = [_by_hand(process.poll(), log) for process, log in night.seconds]
    problems += [f"a run by hand gave no reason: {each}" for each in by_hand if not each["said"]]
    statuses, said = _mlflow_runs(night)
    problems += said
    if not _is_undisturbed(night):
        problems.append("the last artifacts differ from those of a run that nothing disturbed")
    bad = [run for run in runs if run.end != "COMPLETED"]
    counts = Counter(run.end.lower() for run in runs if run.scheduled)
    return Account(
        minutes_in_all=round(night.elapsed / 60, 1),
        runs={
            "scheduled": sum(counts.values()),
            **{end.lower(): counts[end.lower()] for end in ENDS},
            "skipped_while_nobody_served": waiting,
            "changes_trained": night.changes,
        },
        faults_injected=len(night.injected),
        faults_survived=len(night.injected) if not problems else 0,
        seconds_lost=round(sum(run.seconds for run in bad), 1),
        faults=[asdict(each) for each in night.injected],
        faults_without_their_moment=night.missed,
        runs_that_did_not_complete=[asdict(run) for run in bad],
        runs_by_hand=by_hand,
        exit_codes_of_serving=night.serving_ended,
        mlflow_runs=statuses,
        problems=problems,
    )


def _flow_runs() -> tuple[list[Run], int]:
    """Return the runs that were begun, and how many were planned but never begun."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.read_flow_runs()
    begun = [run for run in found if run.state_type.value != "SCHEDULED"]
    late = sum(
        run.state_type.value == "SCHEDULED" and run.state_name != "Scheduled" for run in found
    )
    runs = [
        Run(
            name=run.name,
            scheduled=run.deployment_id is not None,
            end=run.state_type.value,
            seconds=round(run.total_run_time.total_seconds(), 1),
            reason=(run.state.message or "").split("\n")[0] or None,
        )
        for run in sorted(begun, key=lambda run: run.expected_start_time)
    ]
    return runs, late


def _by_hand(code: int | None, log: Path) -> dict[str, Any]:
    lines = log.read_text(errors="replace").splitlines()
    said = [line for line in lines if line.startswith("error: ")]
    return {"exit_code": code, "said": "completed" if code == 0 else (said or [None])[-1]}


def _mlflow_runs(night: Night) -> tuple[dict[str, int], list[str]]:
    """Return how MLflow's runs ended, and what is untrue of them after `lead sync`."""
    from mlflow import MlflowClient

    from lead_core.tracking import resolve_settings, sync

    settings = resolve_settings(night.workspace, None, "lead")
    report = sync(settings)
    problems = []
    if report.waiting or report.active or report.refused or report.failure:
        problems.append(f"not all of the record arrived in MLflow: {report}")
    client = MlflowClient(settings.uri)
    experiment = client.get_experiment_by_name("lead")
    runs = client.search_runs([experiment.experiment_id])
    if running := [run.info.run_name for run in runs if run.info.status == "RUNNING"]:
        problems.append(f"MLflow takes for running: {running}")
    key = sha256_file(night.workspace / "artifacts/train/manifest.json")
    last = [run for run in runs if run.data.tags.get("lead.train_hash") == key]
    if [run.info.status for run in last] != ["FINISHED"]:
        problems.append(f"the last training is in MLflow as {[run.info.status for run in last]}")
    elif "eval/lead_heldout/loss" not in last[0].data.metrics:
        problems.append("the last training has no evaluation in MLflow")
    return dict(Counter(run.info.status for run in runs)), problems


def _is_undisturbed(night: Night) -> bool:
    """Whether the artifacts are, bit for bit, what a new workspace makes of the same parameters."""
    calm = make_workspace(night.folder / "calm")
    shutil.copy(night.workspace / "params.yaml", calm)
    call(calm, "lead", "lock")
    call(calm, "dvc", "repro", seconds=PATIENCE_SECONDS)  # others may be at work on this machine
    same = hashes(calm / "artifacts") == hashes(night.workspace / "artifacts")
    params = [
        yaml.safe_load((each / "params.yaml").read_text()) for each in (calm, night.workspace)
    ]
    return same and params[0] == params[1]

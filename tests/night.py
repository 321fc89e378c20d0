"""A night in which everything goes wrong, and what became of every run.

    python tests/night.py --minutes 30 --seed 0

`lead serve` with a short cron, a Prefect and an MLflow server on loopback, a tiny model on a small disk
of its own; every completed run is followed by a changed learning rate, so that the next one has work.
Faults come at random from the seed until the minutes are over; then everything gets the time to come to
rest. All of it runs in namespaces of its own (`unshare`): whatever happens, nothing outlives it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from night_account import account_for
from night_faults import FAULTS, Fault
from night_service import Service, free_port
from test_stages import call, environment, make_workspace
from toy_workspace import lead, processes_in, processes_with

from flows.params_file import edit_params
from flows.workspace import hold_workspace
from lead_core.errors import LeadError
from lead_core.storage import json_text, write_text
from lead_core.tracking_process import git_origin

ROOT = Path(__file__).parents[1]
DISK = "600m"  # of the workspace: what it holds in a night, and room to fill
TICK_SECONDS = 2.0
GAP_SECONDS = (30.0, 110.0)  # between two faults
PATIENCE_SECONDS = 240.0  # for a fault that waits for its moment
REST_SECONDS = 900.0  # at most, for the last run to be whole
ORPHAN_SECONDS = 60.0  # beyond what a stage gets to save its state


@dataclass(frozen=True)
class Injected:
    """A fault that happened: when (seconds since the start), and to what."""

    seconds: float
    name: str
    detail: str


class Night:
    """The services, the workspace and what has happened so far."""

    def __init__(self, folder: Path, seed: int, every_minutes: int):
        self.folder = folder
        self.workspace = folder / "workspace"
        self.ballast = self.workspace / "ballast"
        self.rng = random.Random(seed)
        self.injected: list[Injected] = []
        self.missed: list[str] = []  # faults whose moment did not come
        self.seconds: list[tuple[subprocess.Popen[bytes], Path]] = []  # runs by hand
        self.serving_ended: list[int] = []  # exit codes
        self.orphans: list[str] = []
        self.changes = 0
        self.began = time.monotonic()
        prefect_port, mlflow_port = free_port(), free_port()
        self.environment = environment() | {
            "PYTHONPATH": str(ROOT),
            "PREFECT_API_URL": f"http://127.0.0.1:{prefect_port}/api",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "true",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow_port}",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        os.environ.update(self.environment)  # for the Prefect client of this process
        at = ["--host", "127.0.0.1", "--port"]
        python = [sys.executable, "-m"]
        store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        files = ["--artifacts-destination", str(folder / "mlartifacts"), "--workers", "1"]
        self.prefect = self._service(
            "prefect", [*python, "prefect", "server", "start", *at, str(prefect_port)], folder
        )
        self.mlflow = self._service(
            "mlflow", [*python, "mlflow", "server", *store, *files, *at, str(mlflow_port)], folder
        )
        self.serve = self._service(
            "serve", lead("serve", "--cron", f"*/{every_minutes} * * * *"), self.workspace
        )

    def _service(self, name: str, command: list[str], cwd: Path) -> Service:
        log = self.folder / "logs" / f"{name}.log"
        return Service(command, cwd=cwd, environment=self.environment, log=log)

    @property
    def elapsed(self) -> float:
        """Seconds since the night began."""
        return time.monotonic() - self.began

    def flows(self) -> list[int]:
        """Return the processes of scheduled flows that are at work."""
        return processes_with(self.workspace, "spawn_main")

    def cancel(self) -> str | None:
        """Cancel the run that is at work, as a click in Prefect's interface does."""
        import httpx
        from prefect.client.orchestration import get_client
        from prefect.states import Cancelling

        if not processes_with(self.workspace, "-m flows.stages"):
            return None
        try:
            with get_client(sync_client=True) as client:
                for run in client.read_flow_runs():
                    if run.deployment_id and run.state_name == "Running":
                        client.set_flow_run_state(run.id, Cancelling())
                        return str(run.name)
        except httpx.HTTPError:
            pass
        return None

    def check_orphans_of_serving(self) -> None:
        """Wait until nothing is left of `lead serve` and its run; remember what stays."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while (left := self._left_of_serving()) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.orphans += left

    def _left_of_serving(self) -> list[str]:
        if any(process.poll() is None for process, _ in self.seconds):
            return []  # a run by hand is no orphan, and its processes look the same
        lines = []
        for pid in processes_in(self.workspace):
            try:
                lines.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return lines

    def keep_serving(self) -> None:
        """Start `lead serve` again when it has ended, as systemd would."""
        if not self.serve.runs:
            if self.serve.code is not None:
                self.serving_ended.append(self.serve.code)
            self.serve.start()

    def renew_work(self) -> None:
        """Change the learning rate when the present one was trained to the end."""
        try:
            with hold_workspace(self.workspace):
                if self.is_done():
                    self.changes += 1
                    rate = round(0.003 + 1e-5 * self.changes, 8)
                    edit_params(self.workspace / "params.yaml", [f"train.learning_rate={rate}"])
        except (LeadError, OSError):
            return  # somebody works there, or the disk is full: next time

    def is_done(self) -> bool:
        """Whether the artifacts are those of the present params.yaml."""
        import yaml

        wanted = yaml.safe_load((self.workspace / "params.yaml").read_text())["train"]
        stages = yaml.safe_load((self.workspace / "dvc.lock").read_text())["stages"]
        report = stages.get("report", {}).get("params", {}).get("params.yaml", {})
        train = stages.get("train", {}).get("params", {}).get("params.yaml", {})
        return report.get("train") == wanted == train.get("train")

    def tick(self) -> None:
        """What happens all night, faults apart."""
        self.keep_serving()
        time.sleep(TICK_SECONDS)


def disturb(night: Night, minutes: float) -> None:
    """Inject one fault after the other until the minutes are over, and repair what has to be."""
    names: list[Fault] = []
    repairs: list[tuple[float, Fault]] = []
    due = night.elapsed + GAP_SECONDS[0]
    pending: Fault | None = None
    while night.elapsed < 60 * minutes or repairs:
        night.tick()
        for at, fault in [each for each in repairs if night.elapsed >= each[0]]:
            if fault.repair is not None:
                fault.repair(night)
            repairs.remove((at, fault))
        night.renew_work()
        if night.elapsed < due or night.elapsed >= 60 * minutes:
            continue
        if pending is None:
            names = names or night.rng.sample(FAULTS, len(FAULTS))
            pending = names.pop()
        detail = pending.inject(night)
        if detail is None and night.elapsed < due + PATIENCE_SECONDS:
            continue
        if detail is None:
            night.missed.append(pending.name)
        else:
            night.injected.append(Injected(round(night.elapsed, 1), pending.name, detail))
            print(f"{night.elapsed:6.0f} s  {pending.name}: {detail}", flush=True)
            if pending.repair is not None:
                repairs.append((night.elapsed + pending.after_seconds, pending))
        due = night.elapsed + night.rng.uniform(*GAP_SECONDS)
        pending = None


def come_to_rest(night: Night) -> bool:
    """Let scheduled runs do the work that is left and one change more; stop serving.

    Returns whether all of it was done.
    """
    deadline = night.elapsed + REST_SECONDS
    changes = night.changes
    while night.elapsed < deadline and night.changes == changes:
        night.tick()
        night.renew_work()
    while night.elapsed < deadline and (night.flows() or not night.is_done()):
        night.tick()
    done = night.changes > changes and night.is_done()
    for process, _ in night.seconds:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()  # one that hangs has no reason to show, and is found by that
    night.serve.stop()
    night.check_orphans_of_serving()
    return done


def main() -> int:
    """Spend the night, write what became of it, and return 0 if every run is accounted for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=2, help="minutes between scheduled runs")
    parser.add_argument("--out", type=Path, default=ROOT / "results/night/night.json")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not chosen.inside:
        command = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
        command += ["--mount-proc", sys.executable, *sys.argv, "--inside"]
        return subprocess.run(command).returncode
    folder = Path(tempfile.mkdtemp(prefix="lead-night-"))
    night = Night(folder, chosen.seed, chosen.every)
    for name in ("workspace", "logs", "prefect"):
        (folder / name).mkdir()
    disk = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(night.workspace)]
    subprocess.run(disk, check=True)
    night.prefect.start()
    night.mlflow.start()
    make_workspace(night.workspace)
    call(night.workspace, "lead", "lock")
    call(night.workspace, "dvc", "repro", seconds=REST_SECONDS)
    night.began = time.monotonic()
    origin = git_origin(ROOT) | {
        "command": shlex.join(["python", "tests/night.py", *sys.argv[1:-1]]),
        "seed": chosen.seed,
        "minutes": chosen.minutes,
        "cron": f"*/{chosen.every} * * * *",
    }
    print(f"the night begins in {folder}", flush=True)
    try:
        disturb(night, chosen.minutes)
        rested = come_to_rest(night)
        account = account_for(night, rested=rested)
    finally:
        for service in (night.serve, night.mlflow, night.prefect):
            service.stop(20)
    text = json_text(origin | account.as_json()).replace(str(folder), "FOLDER")
    write_text(chosen.out, text)  # without a path of this machine
    print(text)
    if account.problems:
        print(f"logs: {folder / 'logs'}")
        return 1
    subprocess.run(["umount", str(night.workspace)])
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

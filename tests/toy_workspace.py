"""A workspace for real DVC and Prefect whose stages are a few shell commands."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from dvc.repo import Repo

from flows.server import prefect_server

REPOSITORY = Path(__file__).parents[1]

# Read by Prefect at its first import: tests leave the user's and the checkout's history alone.
_home = tempfile.TemporaryDirectory(prefix="lead-tests-")
os.environ["PREFECT_HOME"] = f"{_home.name}/.prefect"
os.environ.pop("PREFECT_API_URL", None)

STAGES = {
    "train": {
        "cmd": "sh train.sh",
        "deps": ["sources.lock.json", "train.sh"],
        "params": ["train"],
        "outs": ["adapter"],
    },
    "report": {
        "cmd": "mkdir -p artifacts/report && cp metrics.txt artifacts/report/metrics.json",
        "deps": ["adapter", "metrics.txt"],
        "metrics": ["artifacts/report/metrics.json"],
    },
}

TRAIN = "echo training; cp sources.lock.json adapter\n"

METRICS = {
    "heldout_loss_base": 1.5,
    "heldout_loss_tuned": 1.25,
    "heldout_loss_difference": -0.25,
    "heldout_loss_low": -0.3,
    "heldout_loss_high": -0.2,
    "heldout_records": 64,
    "pool_records": 1000,
    "samples_distinct": 160,
    "visits": 170,
    "rounds": 10,
    "optimizer_steps": 11,
    "forwards_offline": 2000,
    "forwards_selection": 0,
    "forwards_training": 170,
    "forwards_evaluation": 128,
}


def make_workspace(folder: Path) -> Path:
    """Fill `folder` with a workspace whose training is the script train.sh."""
    Repo.init(str(folder), no_scm=True).close()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = True\n    analytics = false\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}, sort_keys=False))
    (folder / "train.sh").write_text(TRAIN)
    (folder / "metrics.txt").write_text(json.dumps(METRICS))
    (folder / "data.jsonl").write_text('{"prompt": "2+2?", "response": "4"}\n')
    model = folder / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["data"]["sources"] = ["data.jsonl"]
    params["model"]["name"] = str(model)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


@functools.cache
def prefect_api() -> str:
    """Start one Prefect server for all tests of this process; flows in it use it from then on."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(prefect_server(Path(os.environ["PREFECT_HOME"]).parent)).url


def lead(*arguments: str) -> list[str]:
    """Return the command line of `lead` with these arguments."""
    return [sys.executable, "-c", "from flows.cli import main; main()", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return an environment that finds our packages from any folder and no server of others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), **more}


def processes_in(folder: Path) -> set[int]:
    """Return the ids of other running processes whose working directory is in `folder` (Linux)."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = (process / "cwd").resolve(strict=True).is_relative_to(folder.resolve())
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if inside and state != "Z" and int(process.name) != os.getpid():
            found.add(int(process.name))
    return found


def processes_with(folder: Path, word: str) -> list[int]:
    """Return those in `folder` whose command line holds `word`, without their supervisors (Linux)."""
    found = []
    for pid in processes_in(folder):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            if word in line and "supervisor.py" not in line:
                found.append(pid)
    return found


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Return as soon as `condition` holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.05)

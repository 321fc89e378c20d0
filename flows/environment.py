"""Environment variables: what Prefect must find before its first import, what a stage is given."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def set_prefect_environment(workspace: Path) -> None:
    """Point Prefect at the workspace and keep it from phoning home; the user's own values win.

    Call before the first import of prefect, which reads its settings then.
    """
    for name, value in {
        "DO_NOT_TRACK": "true",  # the one spelling that MLflow accepts too
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(workspace / ".prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    }.items():
        os.environ.setdefault(name, value)


def stage_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a stage: ours, with this interpreter first as ``python``.

    `lead` may be started by its full path, without an activated environment; dvc.yaml says
    ``python -m flows.stages``. Output is unbuffered, so that log lines arrive when printed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **(extra or {})}

"""A Prefect API for the time of a run: the user's if one is configured, else our own on loopback.

Prefect's built-in ephemeral server survives its flow when that is terminated or killed (measured
with 3.8.8: SIGTERM and SIGKILL both leave the uvicorn process behind), and it runs no scheduler.
Ours is a full `prefect server` on the same database, under a supervisor that ends it with us.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.environment import set_prefect_environment
from flows.process import start_supervised, stop_supervised
from lead_core.errors import LeadError

SERVER_LOG = Path(".prefect") / "server.log"  # below the workspace
STARTUP_SECONDS = 120.0  # a first start migrates the database: 12 s on two cores, more under load


@dataclass(frozen=True)
class PrefectApi:
    """A Prefect API in use: its URL, and its supervised process where it is ours."""

    url: str
    process: subprocess.Popen[bytes] | None = None


@contextlib.contextmanager
def prefect_server(workspace: Path) -> Iterator[PrefectApi]:
    """Yield a Prefect API, which every flow in this block uses.

    Raises LeadError with the server's last words if it does not come up.
    """
    set_prefect_environment(workspace)
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

    if configured := PREFECT_API_URL.value():
        yield PrefectApi(configured)
        return
    port = _free_port()
    address = ["--host", "127.0.0.1", "--port", str(port)]
    log_path = workspace / SERVER_LOG
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        process = start_supervised(
            [sys.executable, "-m", "prefect", "server", "start", *address],
            cwd=workspace,
            environment=os.environ,
            output=log,
            grace_seconds=5.0,
        )
    try:
        _wait_until_healthy(port, process, log_path)
        url = f"http://127.0.0.1:{port}"
        with temporary_settings({PREFECT_API_URL: f"{url}/api", PREFECT_UI_URL: url}):
            yield PrefectApi(f"{url}/api", process)
    finally:
        _flush_prefect()
        stop_supervised(process)


def _flush_prefect() -> None:
    """Let Prefect's background senders finish: at our exit they would wait for a dead server."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=10)


def _wait_until_healthy(port: int, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)  # past any proxy
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            connection.request("GET", "/api/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        time.sleep(0.1)
    raise LeadError(
        f"Prefect's API did not come up within {STARTUP_SECONDS:.0f} s; its log is {log_path}. "
        "Run again, or set PREFECT_API_URL to a server of your own"
    )


def _free_port() -> int:
    """Return a port that is free, of the kernel's choice: two runs that start at once never meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

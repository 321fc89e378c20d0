"""Servers of Prefect and MLflow on PostgreSQL, as docs/operations.md starts them, killed in mid-run."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from night_service import Service, free_port
from test_stages import call, make_workspace
from toy_workspace import REPOSITORY, environment, processes_in, wait_for

from flows.params_file import edit_params


def server_binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs; Debian keeps them out of the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb") or (debian[-1] if debian else None)
    return Path(found).resolve().parent if found else None


BINARIES = server_binaries()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARIES is None, reason="needs PostgreSQL's server (Debian: postgresql)"),
]
pytest.importorskip("psycopg2", reason="MLflow needs psycopg2-binary for PostgreSQL")

ROUNDS = 400  # of a tenth of a second: time to kill something
AS_OTHER = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")


class Database(Service):
    """A PostgreSQL server of the test's own on loopback."""

    def __init__(self, folder: Path, log: Path):
        self.port = free_port()
        self._folder = folder
        self._prefix = AS_OTHER if os.geteuid() == 0 else ()  # it refuses to be root's
        if self._prefix:
            shutil.chown(folder, "postgres", "postgres")
        place = ["-D", f"{folder}/data", "-p", str(self.port), "-h", "127.0.0.1", "-k", str(folder)]
        command = [*self._prefix, f"{BINARIES}/postgres", *place]
        super().__init__(command, cwd=folder, environment=os.environ, log=log)

    def create(self) -> None:
        """Make it, start it, and lay out what the operations page asks for."""
        command = [*self._prefix, f"{BINARIES}/initdb", "-D", f"{self._folder}/data"]
        command += ["-U", "postgres", "-A", "trust"]
        subprocess.run(command, cwd=self._folder, check=True, stdout=subprocess.DEVNULL)
        self.start()
        wait_for(self.is_ready)
        self._client("createuser", "lead")
        for name in ("prefect", "mlflow"):
            self._client("createdb", "--owner", "lead", name)

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._client("pg_isready")
            return True
        return False

    def _client(self, program: str, *arguments: str) -> None:
        place = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        command = [f"{BINARIES}/{program}", *place, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def database(tmp_path) -> Iterator[Database]:
    folder = Path(tempfile.mkdtemp(prefix="lead-postgresql-"))  # pytest's are closed to other users
    server = Database(folder, tmp_path / "postgresql.log")
    try:
        server.create()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_workers_run_outlives_kills_of_postgresql_and_of_prefects_server(database, tmp_path):
    prefect_port, mlflow_port = free_port(), free_port()
    home = tmp_path / "prefect"
    variables = environment(
        PREFECT_API_URL=f"http://127.0.0.1:{prefect_port}/api",
        PREFECT_API_DATABASE_CONNECTION_URL=f"postgresql+asyncpg://lead@localhost:{database.port}/prefect",
        PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="prefect.server.concurrency.lease_storage.filesystem",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_HOME=str(home),
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        DO_NOT_TRACK="true",
        HF_HUB_OFFLINE="1",
        OMP_NUM_THREADS="1",
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    # What the environment held when the tests began goes on: psycopg2 may lie outside of the venv.
    variables["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    workspace = make_workspace(tmp_path / "workspace")
    shutil.copy(REPOSITORY / "prefect.yaml", workspace)
    edit_params(
        workspace / "params.yaml",
        [
            f"tracking.uri=http://127.0.0.1:{mlflow_port}",
            "select.max_uses=1000",
            f"select.visits_per_budget={ROUNDS * 2 / 40}",
        ],
    )
    log = tmp_path / "worker.log"

    def service(cwd: Path, name: str, *command: str) -> Service:
        return Service(
            [sys.executable, "-m", *command], cwd=cwd, environment=variables, log=tmp_path / name
        )

    def run(*command: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=workspace,
            env=variables,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    at = ["--host", "127.0.0.1", "--port"]
    prefect = service(tmp_path, "prefect.log", "prefect", "server", "start", *at, str(prefect_port))
    store = ["--backend-store-uri", f"postgresql://lead@localhost:{database.port}/mlflow"]
    files = ["--artifacts-destination", str(tmp_path / "mlartifacts"), "--workers", "1"]
    mlflow = service(
        tmp_path, "mlflow.log", "mlflow", "server", *at, str(mlflow_port), *store, *files
    )
    worker = service(workspace, log.name, "prefect", "worker", "start", "--pool", "lead")
    states = ("prefect", "flow-run", "ls", "--flow-name", "lead", "--output", "json")
    try:
        prefect.start()
        mlflow.start()
        wait_for(lambda: answers(prefect_port, "/api/ready"), seconds=300)
        wait_for(lambda: answers(mlflow_port, "/health"), seconds=300)
        run("prefect", "work-pool", "create", "lead", "--type", "process")
        run("prefect", "--no-prompt", "deploy", "--all")
        worker.start()
        run("prefect", "deployment", "run", "lead/pipeline")
        wait_for(lambda: log.exists() and "round 3:" in log.read_text(), seconds=900)
        assert list((home / "concurrency_leases").glob("*-*.json")), "else they die with the server"
        database.kill()
        time.sleep(10)
        database.start()
        wait_for(database.is_ready)
        prefect.kill()
        prefect.start()
        wait_for(lambda: answers(prefect_port, "/api/ready"), seconds=300)
        wait_for(lambda: ended(log), seconds=900)
        assert '"Completed"' in run(*states)
        call(workspace, "lead", "sync")
        assert recorded(mlflow_port) == ("FINISHED", list(range(1, ROUNDS + 1)), True)
    finally:
        for each in (worker, mlflow, prefect):
            each.stop(20)
    wait_for(lambda: not processes_in(workspace))


def answers(port: int, path: str) -> bool:
    """Whether a server on loopback says that it is well."""
    import httpx

    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}{path}").is_success
    return False


def ended(log: Path) -> bool:
    """Whether the log of a worker tells the end of a flow run."""
    return any(
        "Flow run" in line and "Finished in state" in line for line in log.read_text().splitlines()
    )


def recorded(port: int) -> tuple[str, list[int], bool]:
    """Return what MLflow knows of its only run: the state, the steps, whether it was evaluated."""
    from mlflow import MlflowClient

    client = MlflowClient(f"http://127.0.0.1:{port}")
    (run,) = client.search_runs([client.get_experiment_by_name("lead").experiment_id])
    steps = [each.step for each in client.get_metric_history(run.info.run_id, "train/loss")]
    return run.info.status, steps, "eval/lead_heldout/loss" in run.data.metrics

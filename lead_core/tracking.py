"""Experiment tracking: one MLflow run per training, and no run ever needs it to succeed.

Whatever is logged is first an event in an outbox on disk (`tracking_outbox`); a sender carries the
events to MLflow in batches. A server that is down, dies or refuses costs one warning: the next run
or `lead sync` sends what it missed. A point that the run already holds is never sent again, so a
resumed training, a repeated sending and an outage all leave the history of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from lead_core.errors import LeadError
from lead_core.storage import sha256_file
from lead_core.tracking_champion import PROMOTION_TAG, Verdict, promote
from lead_core.tracking_names import first_line, flatten_params, legal_tags, redact
from lead_core.tracking_outbox import Event, Outbox, Sent, list_outboxes
from lead_core.tracking_process import ending_after, is_alive, origin_tags, sigterm_as_exit
from lead_core.tracking_run import TrackedRun
from lead_core.tracking_view import VIEW_TAG, view_state

if TYPE_CHECKING:
    from lead_core.tracking_download import Champion

HTTP_TIMEOUT_SECONDS = 5
TABLES_TIMEOUT_SECONDS = 120  # for another process that creates them
SENDING_TIMEOUT_SECONDS = 30  # for another process that sends what was left behind
MAX_POINTS = 1000  # MLflow's limits for one call
MAX_ENTRIES = 100
MAX_DIGEST = 36

# Not BAD_REQUEST: MLflow also says that when it has lost its database.
REFUSALS = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST")

FAILURE_TAG = "lead.failure"
ADAPTER_TAG = "lead.adapter_sha256"
TABLES_TAG = "mlflow.loggedArtifacts"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackingSettings:
    """Where runs are recorded; made by `resolve_settings`. The URI may hold a password."""

    workspace: Path
    uri: str = field(repr=False)
    experiment: str
    artifact_location: str | None

    @property
    def outboxes(self) -> Path:
        """The directory of what is still to be sent."""
        return self.workspace / ".lead_state" / "outbox"


def resolve_settings(workspace: Path, uri: str | None, experiment: str) -> TrackingSettings:
    """Return absolute settings: `uri`, else MLFLOW_TRACKING_URI, else SQLite in the workspace.

    Raises LeadError for a URI that MLflow has no store for.
    """
    workspace = workspace.resolve()
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{workspace / uri.removeprefix('sqlite:///')}"
    elif not re.match(r"databricks|https?://|(postgresql|mysql|mssql)\b.*://", uri):
        raise LeadError(
            f"params.yaml: tracking.uri must be null, sqlite:///FILE, http(s)://HOST or the URI of "
            f"a database, got {redact(uri)!r}"
        )
    served = re.match(r"databricks|https?://", uri)  # such a server decides where artifacts lie
    location = None if served else (workspace / "mlartifacts").as_uri()
    return TrackingSettings(workspace, uri, experiment, location)


@contextlib.contextmanager
def open_run(
    settings: TrackingSettings,
    *,
    name: str,
    key: Mapping[str, str],
    tags: Mapping[str, object],
    params: Mapping[str, Any],
    parent_key: Mapping[str, str] | None = None,
) -> Iterator[TrackedRun]:
    """Continue the newest run whose tags hold `key`, or start one, and end it truthfully.

    `params` may be nested. `parent_key` names the parent run by tags, as `key` does. The run ends
    as FINISHED; as KILLED by Ctrl-C, SIGTERM or an `exit_code` of those; as FAILED by any other
    exception. Exceptions go on their way. SIGTERM becomes `SystemExit(143)` where nobody handles it.
    """
    opening = {
        "do": "open",
        "name": name,
        "key": dict(key),
        "tags": {**origin_tags(settings.workspace), **legal_tags(tags), **key},
        "params": flatten_params(params),
        "parent_key": dict(parent_key) if parent_key else None,
    }
    with sigterm_as_exit():
        run = TrackedRun(settings.outboxes, _MlflowCarrier(settings), opening)
        try:
            yield run
        except BaseException as error:
            run.close(*ending_after(error))
            raise
        run.close("FINISHED")


# Where a run came from: written by the first process, kept by those that add to it later.
ORIGIN = frozenset(
    {
        "lead.flow_run_id",
        "lead.flow_run_url",
        "lead.git_dirty",
        "lead.stage",
        "lead.version",
        "mlflow.source.git.commit",
    }
)


@dataclass(frozen=True)
class SyncReport:
    """What became of the outboxes, one per process that logged, and how many dead runs there were.

    `active` ones belong to processes at work, `waiting` ones could not be sent for `failure`;
    `refused` events are kept in `refused.jsonl` beside the outboxes.
    """

    sent: int = 0
    active: int = 0
    waiting: int = 0
    refused: int = 0
    killed: int = 0
    failure: str | None = None


def sync(settings: TrackingSettings) -> SyncReport:
    """Send what waits on disk and close dead runs; a failure is in the report, never raised."""
    before = len(list_outboxes(settings.outboxes))
    try:
        with _quiet_libraries():
            return _send_left_behind(settings, _connect(settings))
    except Exception as error:  # of any library below MLflow
        waiting = len(list_outboxes(settings.outboxes))
        return SyncReport(sent=before - waiting, waiting=waiting, failure=first_line(error))


def fetch_champion(settings: TrackingSettings, name: str, folder: Path) -> Champion:
    """Lay what the champion of the registered model `name` was trained to into `folder`.

    Files and errors as in `download_champion`; LeadError when MLflow cannot be used, too.
    """
    with _failing_in_one_line(settings):
        from lead_core.tracking_download import download_champion  # with pandas

        return download_champion(_connect(settings).client, settings.uri, name, folder)


def champion_train_hash(settings: TrackingSettings, name: str) -> str:
    """Return the hash of the training behind the champion of the registered model `name`.

    Raises LeadError as `fetch_champion` does.
    """
    with _failing_in_one_line(settings):
        from lead_core.tracking_download import TRAIN_HASH_TAG, find_champion

        _, run = find_champion(_connect(settings).client, name)
        if TRAIN_HASH_TAG not in run.data.tags:
            raise LeadError(
                f"the champion of {name} (run {run.info.run_id}) has no tag {TRAIN_HASH_TAG}: it was "
                "not logged by this pipeline, and no run can be found by it"
            )
        return str(run.data.tags[TRAIN_HASH_TAG])


def share_view(settings: TrackingSettings) -> str:
    """Give the experiment the view of `tracking_view`; return its id. LeadError without MLflow."""
    with _failing_in_one_line(settings):
        store = _connect(settings)
        store.client.set_experiment_tag(store.experiment_id, VIEW_TAG, view_state())
        return store.experiment_id


@contextlib.contextmanager
def _failing_in_one_line(settings: TrackingSettings) -> Iterator[None]:
    """Turn whatever MLflow or a library below it raises into one line for the user."""
    try:
        with _quiet_libraries():
            yield
    except LeadError:
        raise
    except Exception as error:
        raise LeadError(
            f"MLflow at {redact(settings.uri)} cannot be used ({first_line(error)}); "
            "try again when it is there, or see tracking.uri in params.yaml"
        ) from error


def reconcile(settings: TrackingSettings) -> int:
    """Mark as KILLED the RUNNING runs of this host whose process is gone; return how many.

    `open_run` and `sync` do so by themselves. Raises MLflow's errors.
    """
    with _quiet_libraries():
        return _close_dead_runs(_connect(settings))


class _MlflowCarrier:
    """Brings the outbox of an open run to MLflow, after those that earlier processes left."""

    def __init__(self, settings: TrackingSettings):
        self.verdict: str | None = None  # what became of the run's candidate for champion
        self._settings = settings
        self._sender: _Sender | None = None

    @property
    def destination(self) -> str:
        """The server's name, fit for logs."""
        return f"MLflow at {redact(self._settings.uri)}"

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run."""
        return self._sender.run_id if self._sender else None

    def deliver(self, outbox: Outbox) -> None:
        """Send all that has not arrived yet. Raises MLflow's errors."""
        # Taken out while in use: after a failure nobody knows how much of the last call has
        # arrived, so the next sender looks at the run afresh.
        sender, self._sender = self._sender, None
        with _quiet_libraries():
            if sender is None:
                store = _connect(self._settings)
                _send_left_behind(self._settings, store)
                sender = _Sender(store, outbox)
            sender.send_record()
            sender.send_files()
        self.verdict = sender.verdict or self.verdict
        self._sender = sender

    def save_adapter(self, path: Path, model: Any, tokenizer: Any, base_model_dir: Path) -> None:
        """Write the adapter and the tokenizer as an MLflow model into `path`."""
        import accelerate
        import peft
        import torch
        import transformers

        with _quiet_libraries():
            import mlflow.transformers

            mlflow.transformers.save_model(
                {"model": model, "tokenizer": tokenizer},
                path=str(path),
                task="text-generation",
                base_model_path=str(base_model_dir.resolve()),
                pip_requirements=[
                    f"{module.__name__}=={module.__version__.partition('+')[0]}"
                    for module in (accelerate, peft, torch, transformers)
                ],
            )


def _send_left_behind(settings: TrackingSettings, store: _Store) -> SyncReport:
    """Send the outboxes of processes that are gone, oldest first, then close dead runs.

    The order matters: an evaluation finds the run of a training that was recorded before it.
    """
    counts = dict.fromkeys(("sent", "active", "waiting", "refused"), 0)
    failure: str | None = None
    settings.outboxes.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.outboxes / ".lock", timeout=SENDING_TIMEOUT_SECONDS):
        for outbox in list_outboxes(settings.outboxes):
            if not outbox.lock():
                counts["active"] += 1
                continue
            try:
                _close_if_cut_off(outbox)
                sender = _Sender(store, outbox)
                sender.send_record()
                try:
                    sender.send_files()
                except Exception as error:  # of the artifact store alone: the others may go on
                    failure = first_line(error)
                    counts["waiting"] += 1
                else:
                    outbox.remove()
                    counts["sent"] += 1
                counts["refused"] += sender.refused
            finally:
                outbox.release()
    return SyncReport(**counts, killed=_close_dead_runs(store), failure=failure)


def _close_if_cut_off(outbox: Outbox) -> None:
    """Add the missing end to the events of a process that was killed."""
    last: Event = {}
    for event, _ in outbox.read(0):
        if event["do"] == "close":
            return
        last = event
    end = {"status": "KILLED", "failure": "the process was gone before the run was closed"}
    outbox.append({"do": "close", "time": last.get("time"), **end})


def _close_dead_runs(store: _Store) -> int:
    """Mark as KILLED, at their last sign of life, the runs of processes that are gone."""
    dead = 0
    for run in store.search({"lead.host": socket.gethostname()}, "attributes.status = 'RUNNING'"):
        if is_alive(run.data.tags):
            continue
        times = [metric.timestamp for metric in run.data.to_proto().metrics]
        failure = f"process {run.data.tags['lead.pid']} was gone before the run was closed"
        store.client.set_tag(run.info.run_id, FAILURE_TAG, failure)
        end = max([run.info.start_time, *times])
        store.client.set_terminated(run.info.run_id, "KILLED", end)
        dead += 1
    return dead


@dataclass(frozen=True)
class _Store:
    """A connection to MLflow and the experiment that our runs are in."""

    client: Any
    experiment_id: str

    def search(self, tags: Mapping[str, str], *conditions: str) -> list[Any]:
        """Return the runs with these tags that are not deleted, the newest first."""
        terms = [f"tags.`{name}` = {_quoted(value)}" for name, value in tags.items()]
        found = self.client.search_runs(
            [self.experiment_id],
            filter_string=" and ".join([*terms, *conditions]),
            order_by=["attributes.start_time DESC"],
        )
        return list(found)

    def find(self, tags: Mapping[str, str]) -> Any | None:
        """Return the newest run with these tags that is not deleted."""
        return next(iter(self.search(tags)), None)


def _quoted(value: str) -> str:
    """Return a value of a search in quotes; MLflow knows no escapes, so not both kinds at once."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def _connect(settings: TrackingSettings) -> _Store:
    """Connect to MLflow, making the database and the experiment where they are missing."""
    import mlflow.store.db.utils as database
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    database.MAX_RETRY_COUNT = 3  # of 10, which for a database that is away take 100 s
    # Of several processes that create the same tables at once, all but one would fail.
    local = settings.uri.startswith("sqlite:///")
    file = settings.uri.removeprefix("sqlite:///").partition("?")[0]
    lock = FileLock(f"{file}.lock", timeout=TABLES_TIMEOUT_SECONDS)
    with lock if local else contextlib.nullcontext():
        client = MlflowClient(settings.uri)
        experiment = client.get_experiment_by_name(settings.experiment)
        if experiment is None:
            try:
                client.create_experiment(
                    settings.experiment,
                    settings.artifact_location,
                    tags={"mlflow.experimentKind": "custom_model_development"},  # UI: runs first
                )
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another machine was faster
                    raise
            experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        raise LeadError(
            f"experiment {settings.experiment!r} is deleted: restore it (`mlflow experiments "
            f"restore`) or change tracking.experiment"
        )
    return _Store(client, experiment.experiment_id)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Set MLflow up and silence it and its libraries: what they log, we report in one line.

    With MLflow's own settings one call to a dead server takes four minutes. What the user has set
    for the sake of a slow one stays.
    """
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(HTTP_TIMEOUT_SECONDS))
    import mlflow  # noqa: F401  only now, as it reads the above and sets the levels below

    levels = {name: logging.getLogger(name).level for name in ("mlflow", "alembic", "urllib3")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _http_timeout_for(path: Path) -> Iterator[None]:
    """Give a server one more second per megabyte to acknowledge an upload."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    usual = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
    seconds = int(usual) + max((each.stat().st_size for each in files), default=0) // 1_000_000
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(seconds)
    try:
        yield
    finally:
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = usual


def _is_refusal(error: Exception) -> bool:
    """Return whether MLflow understood the request and will never take it (a deleted run, say)."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.error_code in REFUSALS


class _Point(NamedTuple):
    """One value of one metric; `step` is None for a figure of the whole run."""

    name: str
    value: float
    step: int | None
    time: int


class _Sender:
    """Carries the events of one outbox to one MLflow run; the methods raise MLflow's errors.

    After an error the sender is of no further use: a new one finds out what has arrived.
    """

    def __init__(self, store: _Store, outbox: Outbox):
        self.refused = 0
        self.verdict: str | None = None
        self._store = store
        self._client = store.client
        self._outbox = outbox
        self._sent = outbox.sent
        self._last_steps: dict[str, int] = {}  # of each metric, when we came to the run
        self._steps: dict[str, set[int]] = {}  # sent by us; all there are for those `_complete`
        self._complete: set[str] = set()
        self._figures: dict[str, float] = {}
        self._figure_times: dict[str, int] = {}
        if self._sent.run_id is not None:
            self._come_back(self._sent.run_id)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None before its opening was sent."""
        return self._sent.run_id

    def send_record(self) -> None:
        """Send everything but files, from where the last sender stopped."""
        senders = {
            "tags": self._send_tags,
            "dataset": self._send_dataset,
            "close": self._send_close,
        }
        points: list[_Point] = []
        end = self._sent.record
        for event, end in self._outbox.read(self._sent.record):
            if event["do"] == "metrics":
                points += [
                    _Point(name, value, event["step"], event["time"])
                    for name, value in event["values"].items()
                ]
                if len(points) < MAX_POINTS:
                    continue
            self._send_points(points)
            points = []
            if event["do"] == "open":
                self._open(event)  # never put aside: without it, nothing has a place to go
            elif event["do"] in senders:
                self._carry(event, senders[event["do"]])
            self._mark(record=end)
        self._send_points(points)
        self._mark(record=end)

    def send_files(self) -> None:
        """Send the files that events name, from where the last sender stopped."""
        senders = {
            "artifact": self._send_artifact,
            "table": self._send_table,
            "adapter": self._send_adapter,
            "promote": self._send_promotion,
        }
        end = self._sent.files
        for event, end in self._outbox.read(self._sent.files):
            if event["do"] in senders:
                with _http_timeout_for(self._outbox.directory / event["file"]):
                    self._carry(event, senders[event["do"]])
                self._mark(files=end)
        self._mark(files=end)

    def _mark(self, **progress: Any) -> None:
        sent = replace(self._sent, **progress)
        if sent != self._sent:
            self._outbox.mark_sent(sent)
            self._sent = sent

    def _carry(self, event: Event, send: Callable[[Event], None]) -> None:
        """Send an event; one that MLflow refuses is put aside, or it would block all others."""
        try:
            send(event)
        except Exception as error:
            if not _is_refusal(error):
                raise
            reason = first_line(error)
            self._outbox.refuse(event, reason)
            if self.refused == 0:
                logger.warning("tracking: MLflow refused a part of the record: %s", reason)
            self.refused += 1

    def _come_back(self, run_id: str) -> None:
        """Look at the run that an earlier sender wrote to; start over if this MLflow has no such."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._mark(**asdict(Sent()))
        else:
            self._look_at(run)

    def _look_at(self, run: Any) -> None:
        """Remember which points the run holds already."""
        for metric in run.data.to_proto().metrics:
            self._last_steps[metric.key] = metric.step
            self._figures[metric.key] = metric.value
            self._figure_times[metric.key] = metric.timestamp

    def _open(self, event: Event) -> None:
        tags = dict(event["tags"])
        if event["parent_key"]:
            tags["mlflow.parentRunId"] = self._find_parent(event["parent_key"])
        run = self._store.find(event["key"])
        if run is None:
            run = self._client.create_run(
                self._store.experiment_id, event["time"], tags, event["name"]
            )
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
            tags = {k: v for k, v in tags.items() if k not in ORIGIN or k not in run.data.tags}
            if FAILURE_TAG in run.data.tags:
                self._client.delete_tag(run.info.run_id, FAILURE_TAG)
        self._mark(run_id=run.info.run_id)
        self._look_at(run)
        tags.update(self._send_params(event["params"], run.data.params))
        self._send_tags({"tags": tags})

    def _find_parent(self, key: Mapping[str, str]) -> str:
        """Return the id of the parent run, made here if its own process could not make it yet."""
        parent = self._store.find(key)
        if parent is None:
            name = " ".join(key.values())
            parent = self._client.create_run(
                self._store.experiment_id, tags=dict(key), run_name=name
            )
            self._client.set_terminated(parent.info.run_id)
        return parent.info.run_id

    def _send_params(self, params: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
        """Send the params that the run does not know; return tags that tell of changed ones."""
        from mlflow.entities import Param

        new = [Param(name, value) for name, value in params.items() if name not in known]
        for start in range(0, len(new), MAX_ENTRIES):
            batch = new[start : start + MAX_ENTRIES]
            self._client.log_batch(self.run_id, params=batch, synchronous=True)
        changed = {
            f"lead.changed.{name}": f"{known[name]} -> {value}"
            for name, value in params.items()
            if known.get(name, value) != value
        }
        if changed:
            logger.warning(
                "tracking: the run keeps its first value of %s; the new one is in its tags",
                ", ".join(name.removeprefix("lead.changed.") for name in changed),
            )
        return legal_tags(changed)

    def _send_tags(self, event: Event) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(name, value) for name, value in event["tags"].items()]
        for start in range(0, len(tags), MAX_ENTRIES):
            batch = tags[start : start + MAX_ENTRIES]
            self._client.log_batch(self.run_id, tags=batch, synchronous=True)

    def _send_points(self, points: list[_Point]) -> None:
        new = [point for point in points if self._is_new(point)]
        for start in range(0, len(new), MAX_POINTS):
            batch = new[start : start + MAX_POINTS]
            self._carry({"do": "points", "points": batch}, self._send_batch)

    def _send_batch(self, event: Event) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(point.name, point.value, self._time_of(point), point.step or 0)
            for point in event["points"]
        ]
        self._client.log_batch(self.run_id, metrics=metrics, synchronous=True)

    def _time_of(self, point: _Point) -> int:
        """Return the point's time; of a figure, one after its last value's.

        MLflow takes the figure with the latest time for the newest, and clocks are set back.
        """
        if point.step is not None:
            return point.time
        time = max(point.time, self._figure_times.get(point.name, -1) + 1)
        self._figure_times[point.name] = time
        return time

    def _is_new(self, point: _Point) -> bool:
        """Return whether the run lacks the point, taking it for recorded from now on."""
        name, value, step, _ = point
        if step is None:
            changed = self._figures.get(name) != value
            self._figures[name] = value
            return changed
        steps = self._steps.setdefault(name, set())
        # The whole history (3 s for 100,000 points) only where an older session may have been.
        if step <= self._last_steps.get(name, -1) and name not in self._complete:
            self._complete.add(name)
            steps.update(each.step for each in self._client.get_metric_history(self.run_id, name))
        if step in steps:
            return False
        steps.add(step)
        return True

    def _send_dataset(self, event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=event["name"],
            digest=event["digest"][:MAX_DIGEST],
            source_type="local",
            source=json.dumps({"uri": event["source"]}),
            profile=json.dumps({"num_rows": event["rows"]}),
        )
        context = InputTag("mlflow.data.context", event["context"])
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, [context])])

    def _send_artifact(self, event: Event) -> None:
        path = self._outbox.directory / event["file"]
        self._client.log_artifact(self.run_id, str(path), event["to"])

    def _send_table(self, event: Event) -> None:
        folder = Path(event["to"]).parent.as_posix()
        self._send_artifact({**event, "to": None if folder == "." else folder})
        tables = json.loads(self._client.get_run(self.run_id).data.tags.get(TABLES_TAG, "[]"))
        table = {"path": event["to"], "type": "table"}  # makes the UI show it as one
        if table not in tables:
            self._client.set_tag(self.run_id, TABLES_TAG, json.dumps([*tables, table]))

    def _send_adapter(self, event: Event) -> None:
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        path = self._outbox.directory / event["file"]
        digest = sha256_file(path / "peft" / "adapter_model.safetensors")
        for model in self._client.search_logged_models(
            [self._store.experiment_id], filter_string=f"tags.`{ADAPTER_TAG}` = '{digest}'"
        ):
            if model.source_run_id == self.run_id:
                if str(model.status) == "READY":
                    return
                self._client.delete_logged_model(model.model_id)  # the last sender was cut off
        model = self._client.create_logged_model(
            self._store.experiment_id, "adapter", self.run_id, tags={ADAPTER_TAG: digest}
        )
        written = Model.load(str(path))
        written.model_id, written.run_id = model.model_id, self.run_id
        written.artifact_path = model.artifact_location
        written.save(str(path / "MLmodel"))
        self._client.log_model_artifacts(model.model_id, str(path))
        self._client.finalize_logged_model(model.model_id, "READY")
        self._client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=0)])

    def _send_promotion(self, event: Event) -> None:
        import pandas as pd
        from mlflow.exceptions import MlflowException

        candidate = pd.read_parquet(self._outbox.directory / event["file"])
        run_id = str(self.run_id)  # known: the opening comes before any file
        try:
            verdict = promote(self._client, run_id, event["name"], candidate, event["model_sha256"])
        except MlflowException as error:
            if not _is_refusal(error):
                raise
            verdict = Verdict(False, f"MLflow refused it: {first_line(error)}")
        self.verdict = verdict.reason
        figures = {f"promotion/{name}": value for name, value in verdict.figures.items()}
        self._send_points([_Point(*item, None, event["time"]) for item in figures.items()])
        self._send_tags({"tags": legal_tags({PROMOTION_TAG: verdict.reason})})

    def _send_close(self, event: Event) -> None:
        if event["failure"]:
            self._client.set_tag(self.run_id, FAILURE_TAG, event["failure"])
        self._client.set_terminated(self.run_id, event["status"], event["time"])

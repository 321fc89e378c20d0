"""The promotion gate: which adapter bears the alias ``champion`` in MLflow's model registry.

An adapter gets it only if its held-out loss is lower than the base model's and than the present
champion's, record by record: the paired 95 % interval of the difference lies below zero. Whatever
happens, the run says why, in its tag ``lead.promotion``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lead_core.statistics import paired_difference

if TYPE_CHECKING:
    import pandas as pd

ALIAS = "champion"
PROMOTION_TAG = "lead.promotion"
HELDOUT_FILE = "eval/heldout.parquet"  # where the evaluate stage keeps it with the run
MODEL_TAG = "lead.model_hash"


@dataclass(frozen=True)
class Verdict:
    """Whether an adapter may go on towards champion, why in one line, and figures for the record."""

    passed: bool
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)


def judge(change: Mapping[str, Any] | None, against: str) -> Verdict:
    """Return whether a paired difference of held-out losses (lower is better) is a gain.

    change: `difference`, `low`, `high` and `n` of candidate minus the other, nats/token; None if there
    is none.
    """
    if change is None:
        return Verdict(False, "no held-out loss to judge by: put lead_heldout into evaluate.tasks")
    if change["high"] is None:
        return Verdict(False, f"one held-out record is too few to judge against {against}")
    figures = {name: float(change[name]) for name in ("difference", "low", "high")}
    passed = figures["high"] < 0
    found = "better" if passed else "not better"
    reason = (
        f"{found} than {against}: held-out loss {figures['difference']:+.4f} "
        f"[{figures['low']:+.4f}, {figures['high']:+.4f}] over {change['n']} records"
    )
    return Verdict(passed, reason, figures)


def judge_against_champion(
    candidate: pd.DataFrame, champion: pd.DataFrame | None, name: str
) -> Verdict:
    """Return whether `candidate` gains on the champion `name`, on the records that both held out.

    Frames with columns id and tuned_loss. A record that only one of them held out is left out: the
    other one may have been trained on it.
    """
    if champion is None:
        return Verdict(False, f"the held-out losses of {name} are not in MLflow; {_ADVICE}")
    both = candidate.merge(champion, on="id", suffixes=("", "_champion"))
    if both.empty:
        return Verdict(False, f"{name} was measured on other held-out records; {_ADVICE}")
    change = paired_difference(both["tuned_loss_champion"], both["tuned_loss"])
    return judge(vars(change), name)


_ADVICE = "take its alias `champion` away to let the next one in"


def promote(
    client: Any, run_id: str, name: str, candidate: pd.DataFrame, model_sha256: str
) -> Verdict:
    """Make the adapter of the run the champion of the registered model `name` if it gains on the last.

    candidate: columns id and tuned_loss. model_sha256: of the base model; losses under another one are
    not compared. Repeating it changes nothing. Raises MLflow's errors.
    """
    adapter = _adapter_of(client, run_id)
    if adapter is None:
        return Verdict(False, "its adapter is not in MLflow")
    present = champion_version(client, name)
    if present is None:
        verdict = Verdict(True, "the first one")
    else:
        called = f"champion {name} version {present.version}"
        if present.run_id == run_id:
            return Verdict(True, f"it is {called} already")
        verdict = _judge_against(client, present, called, candidate, model_sha256)
    if not verdict.passed:
        return verdict
    version = _register(client, name, run_id, adapter)
    client.set_registered_model_alias(name, ALIAS, version)
    return Verdict(True, f"{name} version {version} is champion: {verdict.reason}", verdict.figures)


def _judge_against(
    client: Any, present: Any, called: str, candidate: pd.DataFrame, model_sha256: str
) -> Verdict:
    run = run_of(client, present)
    if run is not None and run.data.tags.get(MODEL_TAG) != model_sha256:
        return Verdict(False, f"{called} is an adapter of another base model; {_ADVICE}")
    losses = None if run is None else _heldout_of(client, run.info.run_id)
    return judge_against_champion(candidate, losses, called)


def _adapter_of(client: Any, run_id: str) -> Any | None:
    """Return the newest model that the run has as an output: those that have arrived whole."""
    outputs = client.get_run(run_id).outputs
    ids = [each.model_id for each in outputs.model_outputs] if outputs else []
    found = [client.get_logged_model(each) for each in ids]
    return max(found, key=lambda model: model.creation_timestamp, default=None)


def champion_version(client: Any, name: str) -> Any | None:
    """Return the version that bears the alias; None if there is none, or no such model yet."""
    from mlflow.exceptions import MlflowException

    try:
        registered = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    version = registered.aliases.get(ALIAS)
    return None if version is None else client.get_model_version(name, version)


def run_of(client: Any, version: Any) -> Any | None:
    """Return the run that trained a registered version; None if it is gone."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(version.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _heldout_of(client: Any, run_id: str) -> pd.DataFrame | None:
    """Return the held-out losses that an evaluation left with its run."""
    import pandas as pd

    folder = HELDOUT_FILE.rpartition("/")[0]
    if not any(each.path == HELDOUT_FILE for each in client.list_artifacts(run_id, folder)):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(client.download_artifacts(run_id, HELDOUT_FILE, scratch))
        return pd.read_parquet(path, columns=["id", "tuned_loss"])


def _register(client: Any, name: str, run_id: str, adapter: Any) -> str:
    """Return the version that stands for the run's adapter, made if there is none yet."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.run_id == run_id:  # of a sender that was cut off before it set the alias
            return str(version.version)
    # Not `models:/ID`: a database store looks that up at the process' own tracking URI, not ours.
    made = client.create_model_version(
        name, adapter.artifact_location, run_id=run_id, model_id=adapter.model_id
    )
    return str(made.version)

"""What `lead export` does: a finished training, ours or the champion's, turned into folders."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lead_core.artifacts import Layout, read_manifest
from lead_core.assets import ResolvedModel, resolve_model
from lead_core.errors import LeadError
from lead_core.export import export_subset
from lead_core.export_configs import Recipe, micro_batch_size
from lead_core.export_forms import Form
from lead_core.export_model import base_reference, export_adapter, export_merged
from lead_core.params import Params, effective_params, load_params
from lead_core.report_data import read_training_manifests
from lead_core.tracking import fetch_champion, resolve_settings

ARTIFACTS = Path("artifacts")
# Of the champion's parameters, those that say how its model is loaded and trained.
CHAMPIONS_OWN = ("model.", "train.", "data.max_tokens")


@dataclass(frozen=True)
class FinishedTraining:
    """A training to export: where its files are, its parameters and its base model."""

    layout: Layout
    params: Params
    model: ResolvedModel


def export(
    workspace: Path,
    *,
    champion: bool,
    subset: Path | None,
    form: Form,
    scores: bool,
    adapter: Path | None,
    merged: Path | None,
) -> Iterator[str]:
    """Export what has a folder named, and yield a summary of each.

    champion: the training of MLflow's champion instead of the workspace's. Raises LeadError when there
    is no such training, or when what is there does not belong together.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if champion:
            said, training = _champions_training(workspace, Path(scratch))
            yield said
        else:
            training = _workspaces_training(workspace)
        layout, params, model = training.layout, training.params, training.model
        if subset:
            recipe = training_recipe(params, model, layout)
            yield export_subset(layout, subset, form=form, scores=scores, recipe=recipe)
        if adapter:
            yield export_adapter(layout, adapter, model)
        if merged:
            trust = params.model.trust_remote_code
            yield export_merged(layout, merged, model, trust_remote_code=trust)


def _workspaces_training(workspace: Path) -> FinishedTraining:
    """Return the training in the workspace, checked to be of the pool that lies beside it."""
    layout = Layout.below(ARTIFACTS)
    if not (layout.train / "manifest.json").is_file():
        raise LeadError(
            f"nothing is trained yet: {layout.train}/manifest.json is not there; "
            "run `lead run train` first"
        )
    read_training_manifests(layout)
    params, _ = effective_params(load_params(workspace / "params.yaml"))
    return FinishedTraining(layout, params, resolve_model(params.model.name, params.model.revision))


def _champions_training(workspace: Path, scratch: Path) -> tuple[str, FinishedTraining]:
    """Fetch the champion's training into `scratch`; return its name and it, with its own parameters.

    Its pool is the workspace's, which may have moved on: only the subset's texts are taken from there.
    """
    path = workspace / "params.yaml"
    tracking = load_params(path).tracking
    if tracking.champion is None:
        raise LeadError(
            "params.yaml: tracking.champion must name the registered model whose champion to export, "
            "got null; `lead run evaluate --force --set tracking.champion=NAME` makes the first one"
        )
    settings = resolve_settings(workspace, tracking.uri, tracking.experiment)
    champion = fetch_champion(settings, tracking.champion, scratch)
    params = load_params(path, _own_settings(champion.params))
    model = resolve_model(params.model.name, params.model.revision)
    trained_on = read_manifest(scratch, "train")["model_sha256"]
    if model.sha256 != trained_on:
        raise LeadError(
            f"{champion} was trained on another state of {params.model.name} (hash "
            f"{trained_on[:12]}..., here {model.sha256[:12]}...); bring that base model back"
        )
    layout = replace(Layout.below(ARTIFACTS), train=scratch)
    return str(champion), FinishedTraining(layout, params, model)


def _own_settings(recorded: Mapping[str, str]) -> list[str]:
    """Return those of a run's parameters that matter here as overrides; a plain text becomes JSON."""
    overrides = []
    for name, text in recorded.items():
        if name.startswith(CHAMPIONS_OWN):
            try:
                json.loads(text)
            except ValueError:
                text = json.dumps(text)
            overrides.append(f"{name}={text}")
    return overrides


def training_recipe(params: Params, model: ResolvedModel, layout: Layout) -> Recipe:
    """Return how to train on the subset elsewhere: params.yaml, and what the training came to."""
    manifest = read_manifest(layout.train, "train")
    train, lora = params.train, params.train.lora
    reference, revision = base_reference(model)
    return Recipe(
        model=reference,
        revision=revision,
        trust_remote_code=params.model.trust_remote_code,
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        target_modules=lora.target_modules,
        learning_rate=train.learning_rate,
        decays=train.decay_factor < 1,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        effective_batch=train.effective_batch,
        micro_batch=micro_batch_size(
            train.effective_batch, params.data.max_tokens, train.micro_batch_tokens
        ),
        epochs=round(manifest["visits"] / manifest["distinct"], 4),
        max_tokens=params.data.max_tokens,
        bf16=manifest["precision"] == "bf16",
        seed=manifest["seed"],
    )

"""What `lead export` does: the workspace's parameters and finished training, turned into folders."""

from __future__ import annotations

from pathlib import Path

from lead_core.artifacts import Layout
from lead_core.assets import ResolvedModel, resolve_model
from lead_core.errors import LeadError
from lead_core.export import export_subset
from lead_core.export_configs import Recipe, micro_batch_size
from lead_core.export_forms import Form
from lead_core.export_model import base_reference, export_adapter, export_merged
from lead_core.params import Params, effective_params, load_params
from lead_core.report_data import read_training_manifests

ARTIFACTS = Path("artifacts")


def export(
    workspace: Path,
    *,
    subset: Path | None,
    form: Form,
    scores: bool,
    adapter: Path | None,
    merged: Path | None,
) -> list[str]:
    """Export what has a folder named, and return a summary of each.

    Raises LeadError when nothing is trained yet, or when what is there does not belong together.
    """
    layout = Layout.below(ARTIFACTS)
    if not (layout.train / "manifest.json").is_file():
        raise LeadError(
            f"nothing is trained yet: {layout.train}/manifest.json is not there; "
            "run `lead run train` first"
        )
    params, _ = effective_params(load_params(workspace / "params.yaml"))
    model = resolve_model(params.model.name, params.model.revision)
    done = []
    if subset:
        recipe = training_recipe(params, model, layout)
        done.append(export_subset(layout, subset, form=form, scores=scores, recipe=recipe))
    if adapter:
        done.append(export_adapter(layout, adapter, model))
    if merged:
        trust = params.model.trust_remote_code
        done.append(export_merged(layout, merged, model, trust_remote_code=trust))
    return done


def training_recipe(params: Params, model: ResolvedModel, layout: Layout) -> Recipe:
    """Return how to train on the subset elsewhere: params.yaml, and what the training came to."""
    _, manifest = read_training_manifests(layout)
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

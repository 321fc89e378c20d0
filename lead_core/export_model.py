"""The trained adapter for use without us: as a peft folder, or merged into the base model's weights."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lead_core.artifacts import Layout, adapter_hash, check_chain, read_manifest
from lead_core.assets import MODEL_FILES, ResolvedModel, model_kind
from lead_core.errors import LeadError, first_reason
from lead_core.export_card import adapter_card, merged_card, provenance
from lead_core.export_folder import export_folder
from lead_core.storage import read_json, write_json, write_text

ADAPTER, MERGED = "adapter", "merged"
TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.jinja",
    "chat_template.json",
)
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # in safetensors, in torch


def base_reference(model: ResolvedModel) -> tuple[str, str | None]:
    """Return what `from_pretrained` takes for a base model, an id or a folder, and its hub commit."""
    if model_kind(model.name) == "hub":
        return model.name, model.revision
    return str(model.path), None


def export_adapter(layout: Layout, path: Path, model: ResolvedModel) -> str:
    """Write the adapter with its base model named, tokenizer files and a card; return a summary.

    Raises LeadError when `model` or the adapter is not what the training had and wrote.
    """
    manifest = _checked_training(layout, model)
    origin = provenance(manifest)
    reference, revision = base_reference(model)
    with export_folder(path, ADAPTER, {"provenance": origin}) as folder:
        for file in sorted((layout.train / "adapter").iterdir()):
            shutil.copyfile(file, folder / file.name)
        config = read_json(folder / "adapter_config.json", made_by="dvc repro train")
        named = {"base_model_name_or_path": reference, "revision": revision}
        write_json(folder / "adapter_config.json", {**config, **named})
        _copy(model.path, folder, TOKENIZER_FILES)
        write_text(folder / "README.md", adapter_card(origin, model, reference))
    return f"adapter over {reference} in {path}"


def export_merged(
    layout: Layout, path: Path, model: ResolvedModel, *, trust_remote_code: bool
) -> str:
    """Write the base model with the adapter merged into its weights; return a summary.

    The sum is taken in float32, in which training took it, and stored in the type of the base model's
    own weights: what its users' memory and kernels are made for, rounded once. All other files
    (config, tokenizer, chat template) are the base model's, unchanged. Needs memory for all weights in
    float32. Raises LeadError as `export_adapter` does, and for weights that are quantised.
    """
    manifest = _checked_training(layout, model)
    origin = provenance(manifest)
    dtype = stored_dtype(model)
    with export_folder(path, MERGED, {"provenance": origin, "dtype": dtype}) as folder:
        _copy(model.path, folder, [name for name in MODEL_FILES if name != "*.safetensors"])
        for index in folder.glob("*.safetensors.index.json"):
            index.unlink()
        _write_merged_weights(layout.train / "adapter", folder, model, dtype, trust_remote_code)
        write_text(folder / "README.md", merged_card(origin, model, dtype))
    return f"{model.name} with the adapter merged in, {dtype}, in {path}"


def stored_dtype(model: ResolvedModel) -> str:
    """Return torch's name of the type that most of the model's weights are stored in.

    Raises LeadError when that is none of `DTYPES`: sums with quantised weights are not theirs.
    """
    counts: Counter[str] = Counter()
    for file in sorted(model.path.glob("*.safetensors")):
        with safe_open(file, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118  # it is no mapping
                tensor = weights.get_slice(name)
                counts[tensor.get_dtype()] += prod(tensor.get_shape())
    stored = counts.most_common(1)[0][0]
    if stored not in DTYPES:
        raise LeadError(
            f"the weights of {model.name} are stored as {stored}, an adapter merges into "
            f"{', '.join(DTYPES)} only; use `lead export --adapter`"
        )
    return DTYPES[stored]


def _checked_training(layout: Layout, model: ResolvedModel) -> dict[str, Any]:
    manifest = read_manifest(layout.train, "train")
    adapter = layout.train / "adapter"
    if not adapter.is_dir():
        raise LeadError(f"{adapter} is not there; run `dvc repro train` first")
    check_chain("the adapter", manifest["model_sha256"], model.sha256, "train")
    check_chain(str(adapter), manifest["adapter_sha256"], adapter_hash(adapter), "train")
    return manifest


def _write_merged_weights(
    adapter: Path, folder: Path, model: ResolvedModel, dtype: str, trust_remote_code: bool
) -> None:
    import torch

    from lead_core.model import load_adapter, load_model

    base = load_model(
        model, device="cpu", attention="eager", trust_remote_code=trust_remote_code
    )  # in float32
    tuned = load_adapter(base, adapter)
    bar = sys.stderr.isatty()
    try:
        whole = tuned.merge_and_unload(progressbar=bar, safe_merge=True)
        merged = whole.to(getattr(torch, dtype))
    except ValueError as error:  # a weight that is no number
        raise LeadError(
            f"{adapter} does not merge ({first_reason(error)}); run `dvc repro train` again"
        ) from error
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            merged.save_pretrained(scratch, safe_serialization=True)
        except SafetensorError as error:  # a full disk, as safetensors says it
            raise LeadError(
                f"the merged weights cannot be written ({first_reason(error)}); make room, or choose "
                "a folder on another disk"
            ) from error
        for file in _weights(Path(scratch)):
            file.replace(folder / file.name)


def _weights(folder: Path) -> Iterator[Path]:
    yield from folder.glob("*.safetensors")
    yield from folder.glob("*.safetensors.index.json")


def _copy(source: Path, target: Path, patterns: list[str] | tuple[str, ...]) -> None:
    for file in {file for pattern in patterns for file in source.glob(pattern)}:
        shutil.copyfile(file, target / file.name)

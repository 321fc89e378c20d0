"""README.md of an export: what it is, where it came from, by hash, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lead_core.assets import EMBEDDED_MODELS, ResolvedModel, model_kind

COMMANDS = {
    "llamafactory.yaml": "llamafactory-cli train llamafactory.yaml",
    "trl.yaml": "trl sft --config trl.yaml",
    "axolotl.yaml": "axolotl train axolotl.yaml",
}

_RUN = ("selector", "seed", "budget", "pool_size", "distinct", "visits", "rounds", "steps")
_HASHES = ("model", "pool", "scores", "clusters", "selection", "adapter")


def provenance(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return, of the train stage's manifest, what says how a selection or an adapter came about."""
    hashes = {f"{name}_sha256": manifest[f"{name}_sha256"] for name in _HASHES}
    return {**{name: manifest[name] for name in _RUN}, **hashes, "ledger": manifest["ledger"]}


def subset_card(
    facts: Mapping[str, Any],
    *,
    data_file: str,
    columns: Sequence[str],
    files: Sequence[str],
    absent: Sequence[str],
    refused: int,
) -> str:
    """Return the README.md of an exported subset; its head lets `load_dataset(folder)` find the data.

    columns: the keys of a record. files: the config files beside it. absent: tools without one, and
    why. refused: records that the form cannot hold.
    """
    head = {"configs": [{"config_name": "default", "data_files": data_file}]}
    lines = [
        "# Instruction data selected by LEAD",
        "",
        f"`{data_file}`: {facts['distinct'] - refused} of the {facts['pool_size']} records of a pool, "
        f"in the order in which `{facts['selector']}` first chose them. "
        f'Keys: {", ".join(f"`{name}`" for name in columns)}. `load_dataset(".")` reads them as well.',
        "",
    ]
    if "utility" in columns:
        lines += [
            "`utility`: the record's IDU after its last use, nats/token; `round`: the first that used "
            "it; `uses`: times trained on; `difficulty`, `task`: its clusters.",
            "",
        ]
    if refused:
        lines += [f"`refused.jsonl`: {refused} records that this form cannot hold, and why.", ""]
    lines += ["Train on it, in this folder (settings from params.yaml):", "", "```"]
    lines += [COMMANDS[name] for name in COMMANDS if name in files]
    lines += ["```", "", *(f"- No config for {line}" for line in absent)]
    return _page(head, [*lines, *([""] if absent else []), *_provenance_lines(facts)])


def adapter_card(facts: Mapping[str, Any], model: ResolvedModel, reference: str) -> str:
    """Return the README.md of an exported adapter over the base model found at `reference`."""
    lines = [
        f"# LoRA adapter for {model.name}, trained on data selected by LEAD",
        "",
        "In this folder:",
        "",
        "```python",
        "from peft import AutoPeftModelForCausalLM",
        'model = AutoPeftModelForCausalLM.from_pretrained(".")',
        "```",
        "",
        f"The base model is taken from `{reference}` (`base_model_name_or_path` in "
        "adapter_config.json).",
        *_moving_note(model),
        "",
    ]
    head = {**_model_head(model), "library_name": "peft", "tags": ["lora", "lead"]}
    return _page(head, [*lines, *_provenance_lines(facts)])


def merged_card(facts: Mapping[str, Any], model: ResolvedModel, dtype: str) -> str:
    """Return the README.md of a model with the adapter merged into weights kept in `dtype`."""
    lines = [
        f"# {model.name}, tuned on data selected by LEAD",
        "",
        "A model folder like any other. In this folder:",
        "",
        "```",
        "lm_eval --model hf --model_args pretrained=. --tasks TASK",
        "```",
        "",
        f"The adapter was added to the weights in float32; the sum is stored in {dtype}, the type of "
        "the base model's own weights. Tokenizer, chat template and config are the base model's files.",
        "",
    ]
    head = {**_model_head(model), "library_name": "transformers", "tags": ["lead"]}
    return _page(head, [*lines, *_provenance_lines(facts)])


def _model_head(model: ResolvedModel) -> dict[str, Any]:
    kind = model_kind(model.name)
    if kind == "embedded":
        name = model.name.rpartition("/")[2]
        return {"license": EMBEDDED_MODELS[name].licence.lower()}
    return {"base_model": model.name} if kind == "hub" else {}


def _moving_note(model: ResolvedModel) -> list[str]:
    if model_kind(model.name) == "hub":
        return []
    return ["That is a folder of one machine: elsewhere put the base model's place there."]


def _provenance_lines(facts: Mapping[str, Any]) -> list[str]:
    rows = [f"| {name} | {facts[name]} |" for name in _RUN]
    rows += [f"| SHA-256, {name} | `{facts[f'{name}_sha256']}` |" for name in _HASHES]
    ledger = [
        f"| {column} | {cost['sequences']} | {cost['tokens']} |"
        for column, cost in facts["ledger"].items()
    ]
    return [
        "## Provenance",
        "",
        "| | |",
        "|---|---|",
        *rows,
        "",
        "What it cost, up to the end of training:",
        "",
        "| forwarded | sequences | tokens |",
        "|---|---:|---:|",
        *ledger,
    ]


def _page(head: Mapping[str, Any], lines: Sequence[str]) -> str:
    front = yaml.safe_dump(dict(head), sort_keys=False) if head else ""
    return "\n".join(["---", f"{front}---", "", *lines, ""])

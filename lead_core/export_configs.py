"""The small files with which other trainers take up an exported subset.

Checked against LLaMA-Factory 0.9.5, TRL 1.16.0 and axolotl 0.19.0, whose own loaders read them and give
the token ids that our training sees (docs/export.md says what differs). Paths in them are relative:
they are used from the folder that they lie in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lead_core.export_forms import Form
from lead_core.storage import json_text

DATASET = "lead"  # the subset's name in LLaMA-Factory's dataset_info.json
PROMPT_COMPLETION_FILE = "trl.jsonl"
# Trainers count what templates put behind the last turn (a newline), data.max_tokens does not.
TEMPLATE_TAIL_TOKENS = 16


@dataclass(frozen=True)
class Recipe:
    """How to train on the subset: base model, adapters, optimizer; see `params.TrainParams`.

    model: what `from_pretrained` takes. micro_batch: samples per forward. epochs: passes over the
    subset that make as many training samples as LEAD's own training had. max_tokens: of the longest
    record. decays: whether LEAD's learning rate falls, which these trainers have no schedule for.
    """

    model: str
    revision: str | None
    trust_remote_code: bool
    rank: int
    alpha: float
    dropout: float
    target_modules: str | tuple[str, ...]
    learning_rate: float
    decays: bool
    weight_decay: float
    max_grad_norm: float | None
    effective_batch: int
    micro_batch: int
    epochs: float
    max_tokens: int
    bf16: bool
    seed: int


def micro_batch_size(effective_batch: int, max_tokens: int, limit_tokens: int) -> int:
    """Return the largest part of `effective_batch` that stays within `limit_tokens` if all are long."""
    parts = [n for n in range(1, effective_batch + 1) if effective_batch % n == 0]
    return max((n for n in parts if n * max_tokens <= limit_tokens), default=1)


def trainer_files(recipe: Recipe, form: Form, data_file: str) -> tuple[dict[str, str], list[str]]:
    """Return the text of each config file by name, and a line for each tool that gets none and why."""
    if recipe.alpha != int(recipe.alpha):
        return {}, [
            f"LLaMA-Factory, TRL or axolotl: they take whole numbers as train.lora.alpha, not "
            f"{recipe.alpha:g}"
        ]
    files = {"trl.yaml": _trl(recipe)}
    absent = []
    if _is_pattern(recipe.target_modules):
        absent.append(
            "LLaMA-Factory: train.lora.target_modules is a pattern, it takes all-linear or names"
        )
    else:
        files["dataset_info.json"] = _dataset_info(form, data_file)
        files["llamafactory.yaml"] = _llamafactory(recipe)
    if form is Form.ALPACA:
        absent.append(
            "axolotl: its Alpaca type replaces the model's chat template by Alpaca's own prompt and "
            "drops earlier turns; use --format messages"
        )
    else:
        files["axolotl.yaml"] = _axolotl(recipe, form, data_file)
    return files, absent


def _dataset_info(form: Form, data_file: str) -> str:
    entry: dict[str, Any] = {"file_name": data_file}
    if form is Form.ALPACA:
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        entry |= {"formatting": "alpaca"}
        entry |= {"columns": {**columns, "system": "system", "history": "history"}}
    elif form is Form.SHAREGPT:
        entry |= {"formatting": "sharegpt", "columns": {"messages": "conversations"}}
    else:
        tags = {"role_tag": "role", "content_tag": "content"}
        tags |= {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
        entry |= {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    return json_text({DATASET: entry})


def _llamafactory(recipe: Recipe) -> str:
    targets = recipe.target_modules
    settings = {
        "model_name_or_path": recipe.model,
        **_optional("model_revision", recipe.revision),
        "trust_remote_code": recipe.trust_remote_code,
        "stage": "sft",
        "do_train": True,
        "dataset_dir": ".",
        "dataset": DATASET,
        "mask_history": True,
        "cutoff_len": recipe.max_tokens + TEMPLATE_TAIL_TOKENS,
        "finetuning_type": "lora",
        "lora_rank": recipe.rank,
        "lora_alpha": int(recipe.alpha),
        "lora_dropout": recipe.dropout,
        "lora_target": "all" if targets == "all-linear" else ",".join(targets),
        "output_dir": "trained-llamafactory",
        **_shared(recipe),
    }
    return _yaml(
        "LLaMA-Factory on the subset that LEAD selected. In this folder:",
        "    llamafactory-cli train llamafactory.yaml",
        "Without a GPU add use_cpu=true. No template is named: it is read from the tokenizer.",
        recipe=recipe,
        settings=settings,
    )


def _trl(recipe: Recipe) -> str:
    targets = recipe.target_modules
    settings = {
        "model_name_or_path": recipe.model,
        **_optional("model_revision", recipe.revision),
        "trust_remote_code": recipe.trust_remote_code,
        "datasets": [{"path": "json", "data_files": PROMPT_COMPLETION_FILE}],
        "max_length": recipe.max_tokens + TEMPLATE_TAIL_TOKENS,
        "use_peft": True,
        "lora_r": recipe.rank,
        "lora_alpha": int(recipe.alpha),
        "lora_dropout": recipe.dropout,
        "lora_target_modules": [targets] if isinstance(targets, str) else list(targets),
        "output_dir": "trained-trl",
        **_shared(recipe),
    }
    return _yaml(
        "TRL on the subset that LEAD selected. In this folder:",
        "    trl sft --config trl.yaml",
        "Without a GPU add --use_cpu true. Prompt and completion are apart in trl.jsonl: then the loss",
        "is the last turn's alone, as in LEAD, with any chat template.",
        recipe=recipe,
        settings=settings,
    )


def _axolotl(recipe: Recipe, form: Form, data_file: str) -> str:
    sharegpt = form is Form.SHAREGPT
    targets = recipe.target_modules
    adapted: dict[str, Any] = {"lora_target_linear": True}
    if targets != "all-linear":
        adapted = {"lora_target_modules": targets if isinstance(targets, str) else list(targets)}
    settings = {
        "base_model": recipe.model,
        **_optional("revision_of_model", recipe.revision),
        "trust_remote_code": recipe.trust_remote_code,
        "datasets": [
            {
                "path": data_file,
                "ds_type": "parquet" if form is Form.DATASET else "json",
                "type": "chat_template",
                "field_messages": "conversations" if sharegpt else "messages",
                "message_property_mappings": {
                    "role": "from" if sharegpt else "role",
                    "content": "value" if sharegpt else "content",
                },
                "roles_to_train": ["assistant"],
                "train_on_eos": "turn",
            }
        ],
        "chat_template": "tokenizer_default",
        "dataset_prepared_path": "prepared-axolotl",
        "val_set_size": 0.0,
        "sequence_len": recipe.max_tokens + TEMPLATE_TAIL_TOKENS,
        "sample_packing": False,
        "adapter": "lora",
        "lora_r": recipe.rank,
        "lora_alpha": int(recipe.alpha),
        "lora_dropout": recipe.dropout,
        **adapted,
        "output_dir": "trained-axolotl",
        "optimizer": "adamw_torch",
        "micro_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.effective_batch // recipe.micro_batch,
        "num_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler": "constant",
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm or 0.0,
        "bf16": recipe.bf16,
        "seed": recipe.seed,
    }
    return _yaml(
        "axolotl on the subset that LEAD selected. In this folder:",
        "    axolotl train axolotl.yaml",
        "In records of several turns it trains on every answer, LEAD on the last one.",
        recipe=recipe,
        settings=settings,
    )


def _shared(recipe: Recipe) -> dict[str, Any]:
    """Return what transformers' TrainingArguments take, whoever reads them."""
    return {
        "per_device_train_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.effective_batch // recipe.micro_batch,
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm or 0.0,  # 0: no clipping
        "bf16": recipe.bf16,
        "seed": recipe.seed,
        "report_to": "none",
    }


def _yaml(*comments: str, recipe: Recipe, settings: Mapping[str, Any]) -> str:
    shown = list(comments)
    if recipe.decays:
        shown.append("The learning rate is constant: LEAD's slow decay is no schedule known here.")
    head = "".join(f"# {line}\n" for line in shown)
    return head + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)


def _optional(key: str, value: str | None) -> dict[str, str]:
    return {} if value is None else {key: value}


def _is_pattern(target_modules: str | tuple[str, ...]) -> bool:
    """Whether the modules are given as a regular expression, as peft takes a lone string."""
    return isinstance(target_modules, str) and target_modules != "all-linear"

"""Which cells may stand in one table: everything that decides their numbers, as short hashes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lead_core.method_version import METHOD_VERSION
from lead_core.selectors import Selector
from lead_core.storage import sha256_json

Settings = Mapping[str, Any]  # params.yaml as plain values, by section

SHARED = ("runtime", "model", "score", "cluster", "select", "train")
RULE = ("bandit", "utility")
# What a cell itself reads: scoring and clustering reach it as files, checked by their hashes.
TRAINED = ("runtime", "model", "select", "train", *RULE)

# Of these sections, what changes no number of a finished cell (monitoring only its own).
NEUTRAL = frozenset(
    {
        "train.checkpoint_every_rounds",
        "train.checkpoint_every_steps",
        "train.max_skipped_steps",  # either reached, and there is no cell, or without effect
        "train.monitor_every_rounds",
        "train.monitor_samples",
    }
)
# Keys younger than kept cells, with the value that means what was done before there was a choice:
# at that value they are no part of a cell's identity.
ADDED_LATER: dict[str, Any] = {
    "score.model": None,
    "score.warmup": None,
    "select.cluster_size_power": 0.5,
}


def comparison_id(settings: Settings, inputs: Mapping[str, str], precision: str) -> str:
    """Return the identity, 16 hex digits, that all cells of one comparison share.

    settings: params.yaml as it is, before a selector fixes anything. inputs: hashes of pool, held-out
    records and model. precision: what ``auto`` came to: sums in bf16 and in fp32 are not compared with
    each other. Scores and clusters count by their settings, so that cells of two machines, whose
    scores differ in the last bits, can stand together; `kept.py` sees to those of one machine.
    """
    shared = deciding(settings, SHARED)
    del shared["select"]["selector"]
    return sha256_json(
        {
            **shared,
            "data_seed": settings["seed"],
            "precision": precision,
            "method_version": METHOD_VERSION,
            **{name: inputs[name] for name in ("pool_sha256", "heldout_sha256", "model_sha256")},
        }
    )[:16]


def rule_id(selector: Selector, effective: Settings) -> str:
    """Return the identity of a rule's own settings; one constant for rules that read none of them.

    effective: params.yaml with what the selector fixes. So a change of the bandit's step retires the
    cells of `lead`, not those of `random`.
    """
    own = deciding(effective, RULE) if selector.reads_utilities else dict.fromkeys(RULE)
    fixed = {name: value for name, value in selector.fixes.items() if name.startswith("select.")}
    return sha256_json({**own, **fixed})[:16]


def deciding(
    settings: Settings, sections: tuple[str, ...], *, neutral: frozenset[str] = NEUTRAL
) -> dict[str, dict[str, Any]]:
    """Return the parameters of `sections` that decide numbers, a cell's unless `neutral` are others."""
    return {
        name: {
            key: value
            for key, value in settings[name].items()
            if (full := f"{name}.{key}") not in neutral
            and (full not in ADDED_LATER or ADDED_LATER[full] != value)
        }
        for name in sections
    }

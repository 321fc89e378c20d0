"""What a comparison records of a finished cell: facts alone, no time, no path, no name of a comparison.

Equal work gives equal bytes; which comparison a record belongs to is found out when it is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lead_core.artifacts import Layout
from lead_core.comparison.identity import TRAINED, Settings, deciding
from lead_core.method_version import METHOD_VERSION
from lead_core.storage import read_json

SCHEMA = 1
INPUTS = ("pool_sha256", "heldout_sha256", "model_sha256", "scores_sha256", "clusters_sha256")
KEPT_OF_A_ROUND = ("round", "arm", "probabilities", "reward_raw", "reward", "tokens", "n_selected")


def measured_on(runtime: Any, batch_size: int) -> dict[str, Any]:
    """Return how held-out losses were measured: what moves their last digits.

    runtime: a `model.ResolvedRuntime`.
    """
    return {
        "device": runtime.device,
        "precision": runtime.precision,
        "threads": runtime.threads,
        "batch_size": batch_size,
    }


def describe_base(
    heldout: pd.DataFrame, cost: Mapping[str, int], measured: Mapping[str, Any], inputs: Settings
) -> dict[str, Any]:
    """Return the record of the untuned model; arguments as for `describe_cell`."""
    return {
        "schema": SCHEMA,
        "method_version": METHOD_VERSION,
        "inputs": {name: inputs[name] for name in ("heldout_sha256", "model_sha256")},
        "measured": dict(measured),
        "heldout": heldout_losses(heldout),
        "ledger": {"evaluation": dict(cost)},
    }


def describe_cell(
    layout: Layout,
    effective: Settings,
    heldout: pd.DataFrame,
    cost: Mapping[str, int],
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the record of a finished cell, read from its training's outputs.

    effective: params.yaml with what the selector fixes. heldout: id, source and loss of every held-out
    record under the tuned model. cost: sequences and tokens that measuring it forwarded. measured: see
    `measured_on`.
    """
    manifest = read_json(layout.train / "manifest.json", made_by="lead compare")
    samples = pd.read_parquet(layout.train / "selection.parquet")
    rounds = [
        json.loads(line)
        for line in (layout.train / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    ledger = {column: dict(spent) for column, spent in manifest["ledger"].items()}
    for unit, amount in cost.items():
        ledger["evaluation"][unit] += amount
    return {
        "schema": SCHEMA,
        "method_version": METHOD_VERSION,
        "selector": manifest["selector"],
        "seed": manifest["seed"],
        "settings": deciding(effective, TRAINED),
        "inputs": {name: manifest[name] for name in INPUTS},
        "measured": dict(measured),
        "heldout": heldout_losses(heldout),
        "visits": manifest["visits"],
        "distinct": manifest["distinct"],
        "rounds": manifest["rounds"],
        "steps": manifest["steps"],
        "tokens": manifest["tokens"],
        "ledger": ledger,
        "visits_by_source": samples["source"].value_counts().sort_index().to_dict(),
        "planted": _planted_picks(layout.pool, samples["id"]),
        "record": [{name: row[name] for name in KEPT_OF_A_ROUND} for row in rounds],
        "curve": _curve(rounds),
        "selected": samples["id"].tolist(),
    }


def heldout_losses(heldout: pd.DataFrame) -> dict[str, Any]:
    """Return held-out losses as means per source, the mean of those (macro) and each, nats/token."""
    by_source = heldout.groupby("source")["loss"].mean()
    return {
        "macro": float(by_source.mean()),
        "by_source": {str(name): float(value) for name, value in by_source.items()},
        "records": len(heldout),
        "by_record": {
            str(name): dict(zip(rows["id"], rows["loss"].round(5).tolist(), strict=True))
            for name, rows in heldout.groupby("source")
        },
    }


def _planted_picks(pool: Path, picked: pd.Series[str]) -> dict[str, dict[str, int]]:
    """Count, per kind of planted fault, what the pool holds and what was trained on."""
    path = pool / "planted.jsonl"
    if not path.is_file():
        return {}
    faults = pd.read_json(path, lines=True, dtype=str)
    counts = {}
    for kind, rows in faults.groupby("kind"):
        hits = picked[picked.isin(rows["id"])]
        counts[str(kind)] = {
            "pool": len(rows),
            "visits": len(hits),
            "distinct": int(hits.nunique()),
        }
    return counts


def _curve(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return held-out losses seen during training, after so many training tokens each."""
    tokens = np.cumsum([row["tokens"] for row in rounds])
    return [
        {"tokens": int(spent), "loss": row["heldout_loss"]}
        for spent, row in zip(tokens, rounds, strict=True)
        if row["heldout_loss"] is not None
    ]

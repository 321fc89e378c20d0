"""Selectors x seeds: what one cell of a comparison is, what it leaves behind, and reading it back.

A cell is one training by one selector with one seed, on the pipeline's own pool, scores and clusters,
measured on the held-out records. Cells that agree in everything but selector and seed can be compared.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lead_core.artifacts import Layout
from lead_core.errors import LeadError
from lead_core.method_version import METHOD_VERSION
from lead_core.params import Params, effective_params, with_fixed
from lead_core.selectors import get_selector
from lead_core.storage import read_json, sha256_json, write_json

SCHEMA = 1
BASE = "base"  # the untuned model: no selector and no seed
COMPARISON_TAG = "lead.comparison"  # of MLflow runs
# What decides a cell's numbers, given the pool; the rest of params.yaml may change under it.
SHARED = ("runtime", "model", "score", "cluster", "select", "train")
RULE = ("bandit", "utility")
# Of these, what changes no number of a cell (monitoring only its own).
NEUTRAL = frozenset(
    {
        "train.checkpoint_every_rounds",
        "train.checkpoint_every_steps",
        "train.monitor_every_rounds",
        "train.monitor_samples",
    }
)
# Keys younger than kept cells, with the value that means what was done before there was a choice:
# at that value they are no part of a cell's identity.
ADDED_LATER: dict[str, Any] = {"score.warmup": None}


@dataclass(frozen=True)
class Cell:
    """One training of a comparison."""

    selector: str
    seed: int

    @property
    def name(self) -> str:
        """Return the name of its folder and file."""
        return f"{self.selector}-seed{self.seed}"


def planned_cells(params: Params) -> list[Cell]:
    """Return the cells that `compare` in params.yaml asks for, seed by seed.

    The first seeds of all selectors come first, so that a comparison cut short is still a fair one.
    """
    compare = params.compare
    counts = {name: compare.fewer_seeds.get(name, len(compare.seeds)) for name in compare.selectors}
    return [
        Cell(name, seed)
        for place, seed in enumerate(compare.seeds)
        for name in compare.selectors
        if place < counts[name]
    ]


def cell_params(params: Params, cell: Cell, pool_records: int) -> Params:
    """Return the parameters that `cell` is trained with: the shared ones with its selector and seed.

    Held-out losses are taken during training for the first `compare.curve_seeds` seeds alone, about
    `compare.curve_points` times.
    """
    compare = params.compare
    select = params.select.model_copy(update={"selector": cell.selector})
    every = None
    if cell.seed in compare.seeds[: compare.curve_seeds]:
        steps = _visits(params, cell, pool_records) / params.train.effective_batch
        every = max(1, math.ceil(steps / compare.curve_points))
    train = params.train.model_copy(update={"monitor_every_rounds": every})
    return params.model_copy(update={"seed": cell.seed, "select": select, "train": train})


def _visits(params: Params, cell: Cell, pool_records: int) -> float:
    """Return about how many samples the cell trains on."""
    if get_selector(cell.selector).whole_pool:
        return pool_records
    select = params.select
    distinct = select.budget_samples or (select.budget_fraction or 0.0) * pool_records
    return distinct * (select.visits_per_budget or 1.0)


def comparison_id(params: Params, inputs: Mapping[str, str], precision: str) -> str:
    """Return the identity, 16 hex digits, that all cells of one comparison share.

    inputs: hashes of pool, held-out records and model. precision: what ``auto`` came to: sums in bf16
    and in fp32 are not compared with each other.
    """
    settings = _settings(params)
    del settings["select"]["selector"]
    shared = {name: settings[name] for name in SHARED} | {
        "data_seed": params.seed,
        "precision": precision,
        "method_version": METHOD_VERSION,
        **{name: inputs[name] for name in ("pool_sha256", "heldout_sha256", "model_sha256")},
    }
    return sha256_json(shared)[:16]


def rule_id(params: Params, selector: str) -> str:
    """Return the identity of a selector's own settings; one constant for rules that read none of them.

    So a change of the bandit's step retires the cells of `lead`, not those of `random`.
    """
    rule = get_selector(selector)
    settings = _settings(with_fixed(params, rule.fixes)) if rule.reads_utilities else {}
    return sha256_json({name: settings.get(name) for name in RULE})[:16]


def _settings(params: Params) -> dict[str, dict[str, Any]]:
    """Return the parameters that decide a cell's numbers, by section."""
    sections = {name: getattr(params, name).model_dump(mode="json") for name in (*SHARED, *RULE)}
    return {
        name: {
            key: value
            for key, value in section.items()
            if (full := f"{name}.{key}") not in NEUTRAL
            and (full not in ADDED_LATER or ADDED_LATER[full] != value)
        }
        for name, section in sections.items()
    }


def describe_base(heldout: pd.DataFrame, comparison: str) -> dict[str, Any]:
    """Return what a comparison keeps of the untuned model; heldout as for `describe_cell`."""
    return {"schema": SCHEMA, "comparison": comparison, "heldout": heldout_losses(heldout)}


def describe_cell(
    layout: Layout, params: Params, heldout: pd.DataFrame, *, comparison: str
) -> dict[str, Any]:
    """Return what a comparison keeps of a finished cell, read from its training's outputs.

    heldout: source and loss of every held-out record under the tuned model. Holds no time and no
    path: equal work gives equal bytes.
    """
    manifest = read_json(layout.train / "manifest.json", made_by="lead compare")
    samples = pd.read_parquet(layout.train / "selection.parquet")
    rounds = [
        json.loads(line)
        for line in (layout.train / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    kept = ("round", "arm", "probabilities", "reward_raw", "reward", "tokens", "n_selected")
    return {
        "schema": SCHEMA,
        "comparison": comparison,
        "rule": rule_id(params, manifest["selector"]),
        "method_version": METHOD_VERSION,
        "selector": manifest["selector"],
        "seed": manifest["seed"],
        "heldout": heldout_losses(heldout),
        "visits": manifest["visits"],
        "distinct": manifest["distinct"],
        "rounds": manifest["rounds"],
        "steps": manifest["steps"],
        "tokens": manifest["tokens"],
        "ledger": manifest["ledger"],
        "visits_by_source": samples["source"].value_counts().sort_index().to_dict(),
        "planted": _planted_picks(layout.pool, samples["id"]),
        "settings": _settings(effective_params(params)[0]),
        "record": [{name: row[name] for name in kept} for row in rounds],
        "curve": _curve(rounds),
        "selected": samples["id"].tolist(),
    }


def heldout_losses(heldout: pd.DataFrame) -> dict[str, Any]:
    """Return held-out losses as means per source and the mean of those (macro), nats/token."""
    by_source = heldout.groupby("source")["loss"].mean()
    return {
        "macro": float(by_source.mean()),
        "by_source": {str(name): float(value) for name, value in by_source.items()},
        "records": len(heldout),
    }


def _planted_picks(pool: Path, picked: pd.Series) -> dict[str, dict[str, int]]:
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


def keep_cell(folder: Path, found: Mapping[str, Any], provenance: Any) -> None:
    """Keep a finished cell as one small file to commit, with where it came from beside its figures.

    Files of other comparisons and other settings of a rule have other names: none is overwritten.
    """
    cell = Cell(found["selector"], found["seed"])
    path = _cell_path(folder, cell, found["comparison"], found["rule"])
    write_json(path, {**found, "provenance": provenance})


def kept_cell(folder: Path, cell: Cell, comparison: str, params: Params) -> dict[str, Any] | None:
    """Return what is kept of `cell` for this comparison; None if it has to be computed.

    Raises LeadError for a file that is none of ours.
    """
    return _read_kept(_cell_path(folder, cell, comparison, rule_id(params, cell.selector)))


def keep_base(folder: Path, found: Mapping[str, Any], provenance: Any) -> None:
    """Keep the untuned model's figures beside the cells."""
    write_json(folder / found["comparison"] / f"{BASE}.json", {**found, "provenance": provenance})


def kept_base(folder: Path, comparison: str) -> dict[str, Any] | None:
    """Return what is kept of the untuned model for this comparison; None if it has to be measured."""
    return _read_kept(folder / comparison / f"{BASE}.json")


def missing_cells(
    folder: Path, cells: Iterable[Cell], comparison: str, params: Params
) -> list[Cell]:
    """Return those of `cells` that nothing usable is kept of, in their order."""
    return [cell for cell in cells if kept_cell(folder, cell, comparison, params) is None]


def _cell_path(folder: Path, cell: Cell, comparison: str, rule: str) -> Path:
    return folder / comparison / f"{cell.name}.{rule[:8]}.json"


def _read_kept(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found = read_json(path, made_by="lead compare")
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise LeadError(f"{path} is not a cell of this version; move it away to compute it again")
    return found

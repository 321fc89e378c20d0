"""The base model on the held-out records: the row that every cell of a comparison is held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from lead_core.artifacts import Layout, read_manifest
from lead_core.assets import resolve_model
from lead_core.chat import load_tokenizer
from lead_core.comparison import BASE, comparison_id, describe_base
from lead_core.heldout import heldout_frame
from lead_core.model import ResolvedRuntime, load_model, resolve_runtime
from lead_core.params import Params
from lead_core.pool import open_heldout
from lead_core.storage import write_json


def base(params: Params, layout: Layout, workspace: Path) -> str:
    """Measure the untuned model; write its figures below artifacts/compare."""
    runtime = resolve_runtime(
        params.runtime.device, params.runtime.threads, params.runtime.precision
    )
    manifest = read_manifest(layout.pool, "prepare")
    comparison = comparison_id(params, manifest, runtime.precision)
    heldout = measure(params, layout, runtime, load_base(params, runtime))
    found = describe_base(heldout, comparison)
    write_json(layout.comparison / BASE / "cell.json", found)
    return f"base model: held-out loss {found['heldout']['macro']:.4f} nats/token (macro)"


def load_base(params: Params, runtime: ResolvedRuntime) -> Any:
    """Load the untuned model."""
    return load_model(
        resolve_model(params.model.name, params.model.revision),
        device=runtime.device,
        attention=params.runtime.attention,
        trust_remote_code=params.model.trust_remote_code,
    )


def measure(params: Params, layout: Layout, runtime: ResolvedRuntime, model: Any) -> pd.DataFrame:
    """Return source and loss of every held-out record under `model`."""
    tokenizer = load_tokenizer(
        resolve_model(params.model.name, params.model.revision),
        trust_remote_code=params.model.trust_remote_code,
    )
    return heldout_frame(
        model,
        open_heldout(layout.pool, verify=True),
        runtime=runtime,
        pad_id=tokenizer.eos_token_id,
        batch_size=params.evaluate.batch_size,
    )

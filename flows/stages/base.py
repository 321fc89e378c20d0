"""The base model on the held-out records: the row that every cell of a comparison is held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from lead_core.artifacts import Layout, check_chain, read_manifest
from lead_core.assets import resolve_model
from lead_core.chat import load_tokenizer
from lead_core.comparison.cells import BASE
from lead_core.comparison.record import describe_base, measured_on
from lead_core.heldout import heldout_frame
from lead_core.model import ResolvedRuntime, load_model, resolve_runtime
from lead_core.origin import write_origin
from lead_core.params import Params
from lead_core.pool import open_heldout
from lead_core.storage import write_json


def base(params: Params, layout: Layout, workspace: Path) -> str:
    """Measure the untuned model; write its record below artifacts/compare."""
    runtime = resolve_runtime(
        params.runtime.device, params.runtime.threads, params.runtime.precision
    )
    manifest = read_manifest(layout.pool, "prepare")
    heldout, cost = measure(params, layout, runtime, load_base(params, layout, runtime))
    measured = measured_on(runtime, params.evaluate.batch_size)
    found = describe_base(heldout, cost, measured, manifest)
    path = layout.comparison / BASE / "cell.json"
    write_json(path, found)
    write_origin(path, workspace)
    return f"base model: held-out loss {found['heldout']['macro']:.4f} nats/token (macro)"


def load_base(params: Params, layout: Layout, runtime: ResolvedRuntime) -> Any:
    """Load the untuned model, which must be the one that the pool was made for."""
    model = resolve_model(params.model.name, params.model.revision)
    manifest = read_manifest(layout.pool, "prepare")
    check_chain("the pool", manifest["model_sha256"], model.sha256, "prepare")
    return load_model(
        model,
        device=runtime.device,
        attention=params.runtime.attention,
        trust_remote_code=params.model.trust_remote_code,
    )


def measure(
    params: Params, layout: Layout, runtime: ResolvedRuntime, model: Any
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return source and loss of every held-out record under `model`, and what that forwarded."""
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

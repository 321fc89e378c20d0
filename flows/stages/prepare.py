"""The prepare stage: sources become a pool of tokenised records and a held-out split."""

from __future__ import annotations

from pathlib import Path

from lead_core.artifacts import Layout
from lead_core.assets import resolve_model
from lead_core.chat import load_tokenizer
from lead_core.dirt import Kind
from lead_core.lock import check_lock
from lead_core.lock_file import LOCK_FILE, read_lock
from lead_core.params import DirtParams, Params
from lead_core.preparation import prepare_pool, summarise


def prepare(params: Params, layout: Layout, workspace: Path) -> str:
    """Read the sources into a pool and a held-out split."""
    lock = read_lock(workspace / LOCK_FILE)
    check_lock(lock, params, workspace)
    model = resolve_model(params.model.name, params.model.revision)
    counts = prepare_pool(
        sources=params.data.read_from,
        limit=params.data.limit,
        max_tokens=params.data.max_tokens,
        heldout_per_source=params.data.heldout_per_source,
        dirt=_fractions(params.data.dirt),
        seed=params.seed,
        tokenizer=load_tokenizer(model, trust_remote_code=params.model.trust_remote_code),
        lock=lock,
        workspace=workspace,
        out=layout.pool,
    )
    return summarise(counts)


def _fractions(dirt: DirtParams | None) -> dict[Kind, float] | None:
    if dirt is None:
        return None
    return {
        Kind.EXCHANGED: dirt.exchanged_fraction,
        Kind.NEAR_DUPLICATE: dirt.near_duplicate_fraction,
    }

"""The score stage: the one offline inference pass over the pool, with its optional warm-up."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import lead_core.model
import lead_core.scored_batches
import lead_core.scoring
from lead_core.artifacts import Layout, check_chain, read_manifest, write_scores
from lead_core.assets import resolve_model
from lead_core.chat import assistant_header, load_tokenizer
from lead_core.earlier_run import read_start
from lead_core.earlier_scores import find_earlier_scores
from lead_core.ledger import CostLedger, count_forwards
from lead_core.method_version import METHOD_VERSION
from lead_core.model import (
    ResolvedRuntime,
    ResponseLoss,
    decoder_of,
    load_model,
    resolve_attention,
    resolve_runtime,
)
from lead_core.params import Params
from lead_core.pool import open_pool
from lead_core.scored_batches import ScoredBatches
from lead_core.scoring import score_pool
from lead_core.storage import append_jsonl, sha256_file, sha256_json
from lead_core.training_state import claim_state, mark_finished, scores_folder
from lead_core.warmup import WarmupSettings, warm_up

# Whose change may move a bit of what a forward gives, or of how it is kept.
CODE = (lead_core.model, lead_core.scored_batches, lead_core.scoring)
LIBRARIES = ("numpy", "peft", "torch", "transformers")


def score(params: Params, layout: Layout, workspace: Path) -> str:
    """Forward every record once with its prompt and once without: losses, IFD, embeddings.

    Finished batches wait in `.lead_state/scores`: after a kill they are not forwarded again.
    """
    model = resolve_model(params.model.name, params.model.revision)
    manifest = read_manifest(layout.pool, "prepare")
    check_chain("the pool", manifest["model_sha256"], model.sha256, "prepare")
    pool = open_pool(layout.pool, verify=True)
    runtime = resolve_runtime(
        params.runtime.device, params.runtime.threads, params.runtime.precision
    )
    trust = params.model.trust_remote_code
    tokenizer = load_tokenizer(model, trust_remote_code=trust)
    causal_lm = load_model(
        model,
        device=runtime.device,
        attention=params.runtime.attention,
        trust_remote_code=trust,
    )
    loss = ResponseLoss(causal_lm, runtime)
    ledger = CostLedger()
    count_forwards(decoder_of(loss.causal_lm), ledger)
    samples = pool.encoded(np.arange(len(pool.ids)))
    lengths = np.array([len(sample.input_ids) for sample in samples])
    response_lengths = lengths - np.array([sample.response_start for sample in samples])
    settings = scoring_settings(params, runtime)
    start = read_start(params, workspace)
    earlier = find_earlier_scores(
        None if start is None else start.layout,
        pool.ids,
        lengths,
        response_lengths,
        settings=settings,
    )
    warmup = params.score.warmup
    warmed = (
        None
        if warmup is None
        else partial(
            warm_up,
            loss,
            samples,
            settings=WarmupSettings(**warmup.model_dump()),
            micro_batch_tokens=params.score.batch_tokens,
            pad_id=tokenizer.eos_token_id,
            seed=params.seed,
        )
    )
    kept = ScoredBatches(scores_folder(workspace, scoring_key(params, model.sha256, runtime)))
    claim_state(kept.folder)
    with ledger.charged_to("offline"):
        new = score_pool(
            loss,
            [samples[i] for i in earlier.missing],
            header=assistant_header(tokenizer),
            pad_id=tokenizer.eos_token_id,
            batch_tokens=params.score.batch_tokens,
            depth_fraction=params.score.embedding_depth_fraction,
            warm_up=warmed,
            kept=kept,
        )
    ledger.add("offline", kept.sequences, kept.tokens)
    scores = earlier.complete(new)
    write_scores(
        layout.scores,
        scores,
        ids=list(pool.ids),
        tokens=lengths,
        response_tokens=response_lengths,
        pool_sha256=manifest["pool_sha256"],
        model_sha256=model.sha256,
        ledger=ledger.as_dict(),
        settings=settings,
        taken_over=None if start is None else earlier.taken_over,
    )
    # Only of the forwards, and named by what they gave: the stage's own row holds loading too.
    scores_sha256 = read_manifest(layout.scores, "score")["scores_sha256"]
    seconds = round(ledger.seconds["offline"], 3)
    append_jsonl(
        layout.scores.parent / "timings.jsonl",
        {
            "stage": "score",
            "scores_sha256": scores_sha256,
            "offline_seconds": seconds,
            "taken_over": kept.sequences,  # forwards that these seconds do not hold
        },
    )
    mark_finished(kept.folder)
    aside = Counter(reason for reason in scores.set_aside() if reason)
    set_aside = ", ".join(f"{n} {reason}" for reason, n in sorted(aside.items())) or "none"
    said = ""
    if start is not None:
        why = f": {earlier.reason}" if earlier.reason else ""
        said = f"; {earlier.taken_over} records have their scores of the earlier run{why}"
    return (
        f"scored {len(samples)} records: median loss {np.nanmedian(scores.loss):.3f} nats/token, "
        f"median IFD {np.nanmedian(scores.ifd):.3f}; set aside: {set_aside}; "
        f"{ledger.sequences['offline']} forwards"
        + (f", {kept.sequences} of them kept from before" if kept.sequences else "")
        + said
    )


def scoring_key(params: Params, model_sha256: str, runtime: ResolvedRuntime) -> str:
    """Return the hash of all but the samples that decides the bits of a forward: see `batch_key`."""
    return sha256_json(
        {
            "attention": resolve_attention(params.runtime.attention, runtime.device),
            "code": [sha256_file(Path(str(module.__file__))) for module in CODE],
            "libraries": {name: version(name) for name in LIBRARIES},
            "model": model_sha256,
            "runtime": asdict(runtime),
            "trust_remote_code": params.model.trust_remote_code,
        }
    )


def scoring_settings(params: Params, runtime: ResolvedRuntime) -> dict[str, Any]:
    """Return what decides a record's scores beyond its tokens, the model and the last float bits."""
    return {
        "attention": params.runtime.attention,
        "device": runtime.device,
        "precision": runtime.precision,
        "method_version": METHOD_VERSION,
        **params.score.model_dump(mode="json", exclude={"batch_tokens"}),
    }

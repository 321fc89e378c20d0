"""The score stage: the one offline inference pass over the pool, with its optional warm-up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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
from lead_core.assets import ResolvedModel, resolve_model
from lead_core.chat import Encoded, assistant_header, load_tokenizer
from lead_core.earlier_run import read_start
from lead_core.earlier_scores import find_earlier_scores
from lead_core.errors import LeadError
from lead_core.ledger import CostLedger, count_forwards
from lead_core.lock_file import LOCK_FILE, check_model, model_entry, read_lock
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
from lead_core.pool import Pool, open_pool
from lead_core.scored_batches import ScoredBatches
from lead_core.scoring import score_pool, with_gaps
from lead_core.scoring_model import blamed_on_score_model, resolve_scoring_model
from lead_core.scoring_samples import context_tokens, encode_for_scoring
from lead_core.storage import append_jsonl, sha256_file, sha256_json
from lead_core.training_state import claim_state, mark_finished, scores_folder
from lead_core.warmup import WarmupSettings, warm_up

# Whose change may move a bit of what a forward gives, or of how it is kept.
CODE = (lead_core.model, lead_core.scored_batches, lead_core.scoring)
LIBRARIES = ("numpy", "peft", "torch", "transformers")


def score(params: Params, layout: Layout, workspace: Path) -> str:
    """Forward every record once with its prompt and once without: losses, IFD, embeddings.

    By the model that is trained, or by `score.model`, which reads the messages with its own tokenizer.
    Finished batches wait in `.lead_state/scores`: after a kill they are not forwarded again.
    """
    model = resolve_model(params.model.name, params.model.revision)
    manifest = read_manifest(layout.pool, "prepare")
    check_chain("the pool", manifest["model_sha256"], model.sha256, "prepare")
    pool = open_pool(layout.pool, verify=True)
    runtime = resolve_runtime(
        params.runtime.device, params.runtime.threads, params.runtime.precision
    )
    scorer = model if params.score.model is None else _locked_scoring_model(params, workspace)
    trust = params.scoring_model.trust_remote_code
    with blamed_on_score_model(params):
        tokenizer = load_tokenizer(scorer, trust_remote_code=trust)
        causal_lm = load_model(
            scorer,
            device=runtime.device,
            attention=params.runtime.attention,
            trust_remote_code=trust,
        )
    loss = ResponseLoss(causal_lm, runtime)
    ledger = CostLedger()
    count_forwards(decoder_of(loss.causal_lm), ledger)
    other = None if scorer.sha256 == model.sha256 else scorer.sha256
    samples, left_out = (
        (pool.encoded(np.arange(len(pool))), {})  # in the pool because this model can read them
        if other is None
        else _samples(params, pool, tokenizer, context_tokens(causal_lm))
    )
    response_tokens = np.array([len(s.input_ids) - s.response_start for s in samples])
    settings = scoring_settings(params, runtime, other)
    start = read_start(params, workspace)
    earlier = find_earlier_scores(
        None if start is None else start.layout,
        pool.ids,
        pool.lengths,
        pool.response_lengths,
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
    kept = ScoredBatches(scores_folder(workspace, scoring_key(params, scorer.sha256, runtime)))
    claim_state(kept.folder)
    with ledger.charged_to("offline"):
        new = score_pool(
            loss,
            [samples[i] for i in earlier.missing] if earlier.taken_over else samples,
            header=assistant_header(tokenizer),
            pad_id=tokenizer.eos_token_id,
            batch_tokens=params.score.batch_tokens,
            depth_fraction=params.score.embedding_depth_fraction,
            warm_up=warmed,
            kept=kept,
        )
    ledger.add("offline", kept.sequences, kept.tokens)
    scores = earlier.complete(new)
    if left_out:
        scores = scores.with_left_out(left_out)
        response_tokens = with_gaps(response_tokens, left_out, 0)
    write_scores(
        layout.scores,
        scores,
        ids=list(pool.ids),
        tokens=pool.lengths,
        response_tokens=response_tokens,
        pool_sha256=manifest["pool_sha256"],
        model_sha256=model.sha256,
        ledger=ledger.as_dict(),
        settings=settings,
        taken_over=None if start is None else earlier.taken_over,
        scoring_model_sha256=other,
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
    by = "" if params.score.model is None else f" with {params.score.model.name}"
    said = ""
    if start is not None:
        why = f": {earlier.reason}" if earlier.reason else ""
        said = f"; {earlier.taken_over} records have their scores of the earlier run{why}"
    return (
        f"scored {len(samples)} records{by}: median loss {np.nanmedian(scores.loss):.3f} nats/token, "
        f"median IFD {np.nanmedian(scores.ifd):.3f}; set aside: {_counted(scores.set_aside())}; "
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
            "trust_remote_code": params.scoring_model.trust_remote_code,
        }
    )


def scoring_settings(
    params: Params, runtime: ResolvedRuntime, scoring_model_sha256: str | None
) -> dict[str, Any]:
    """Return what decides a record's scores beyond its tokens, the model and the last float bits.

    scoring_model_sha256: of the model that scores, None where it is the one that is trained.
    """
    return {
        "attention": params.runtime.attention,
        "device": runtime.device,
        "precision": runtime.precision,
        "method_version": METHOD_VERSION,
        **params.score.model_dump(mode="json", exclude={"batch_tokens", "model"}),
        "model": scoring_model_sha256,
    }


def _locked_scoring_model(params: Params, workspace: Path) -> ResolvedModel:
    """Return the model under `score.model`; no pool is tied to it, so it is held against the lock."""
    model = resolve_scoring_model(params)
    locked = read_lock(workspace / LOCK_FILE)["scoring_model"]
    check_model("score.model", locked, model_entry(model))
    return model


def _samples(
    params: Params, pool: Pool, tokenizer: Any, limit_tokens: int | None
) -> tuple[Sequence[Encoded], dict[int, str]]:
    """Return the records that `score.model` can score, and by position why the others cannot."""
    conversations = (pool.messages(i) for i in range(len(pool)))
    samples, left_out = encode_for_scoring(
        tokenizer, conversations, count=len(pool), limit_tokens=limit_tokens
    )
    if not samples:
        raise LeadError(
            f"score.model: {params.scoring_model.name} can score none of the {len(pool)} records "
            f"({_counted(left_out.values())}); set another model"
        )
    return samples, left_out


def _counted(reasons: Iterable[str | None]) -> str:
    counts = Counter(reason for reason in reasons if reason)
    return ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items())) or "none"

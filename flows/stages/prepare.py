"""The prepare stage: sources become a pool of tokenised records and a held-out split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lead_core.artifacts import Layout
from lead_core.assets import resolve_model
from lead_core.benchmark_check import Check, check_lines, write_check
from lead_core.benchmarks import read_texts, unchecked_tasks
from lead_core.chat import load_tokenizer
from lead_core.contamination import count_contaminated
from lead_core.decontamination import BenchmarkIndex, Thresholds, build_index
from lead_core.dirt import Kind
from lead_core.lock import check_lock, locked_benchmarks
from lead_core.lock_file import LOCK_FILE, read_lock
from lead_core.params import DirtParams, Params
from lead_core.preparation import prepare_pool, summarise


def prepare(params: Params, layout: Layout, workspace: Path) -> str:
    """Read the sources into a pool and a held-out split, without what the benchmarks hold."""
    lock = read_lock(workspace / LOCK_FILE)
    check_lock(lock, params, workspace)
    model = resolve_model(params.model.name, params.model.revision)
    benchmarks = _index_benchmarks(params, lock, workspace)
    action = params.data.decontaminate.action if params.data.decontaminate else "none"
    counts = prepare_pool(
        sources=params.data.read_from,
        limit=params.data.limit,
        max_tokens=params.data.max_tokens,
        heldout_per_source=params.data.heldout_per_source,
        benchmarks=benchmarks,
        remove_contaminated=action == "remove",
        dirt=_fractions(params.data.dirt),
        seed=params.seed,
        tokenizer=load_tokenizer(model, trust_remote_code=params.model.trust_remote_code),
        lock=lock,
        workspace=workspace,
        out=layout.pool,
    )
    check = Check(
        action=action,
        benchmarks=count_contaminated(benchmarks, counts.contaminated) if benchmarks else (),
        unchecked_tasks=_unchecked_tasks(params),
    )
    write_check(layout.decontamination, check)
    return "\n".join([summarise(counts), *check_lines(check)])


def _index_benchmarks(
    params: Params, lock: Mapping[str, Any], workspace: Path
) -> BenchmarkIndex | None:
    wanted = params.data.decontaminate
    benchmarks = locked_benchmarks(params)
    if wanted is None or not benchmarks:
        return None
    texts = (
        text
        for benchmark, locked in zip(benchmarks, lock["benchmarks"], strict=True)
        for text in read_texts(
            benchmark, min_words=wanted.min_words, workspace=workspace, locked=locked
        )
    )
    return build_index(
        texts,
        Thresholds(
            ngram_words=wanted.ngram_words,
            min_words=wanted.min_words,
            edited_ngram_words=wanted.edited_ngram_words,
            edited_share=wanted.edited_share,
            boilerplate_rows=wanted.boilerplate_rows,
        ),
    )


def _unchecked_tasks(params: Params) -> tuple[str, ...]:
    against = params.data.decontaminate.against if params.data.decontaminate else ()
    return tuple(unchecked_tasks(against, params.evaluate.task_names))


def _fractions(dirt: DirtParams | None) -> dict[Kind, float] | None:
    if dirt is None:
        return None
    return {
        Kind.EXCHANGED: dirt.exchanged_fraction,
        Kind.NEAR_DUPLICATE: dirt.near_duplicate_fraction,
        Kind.TRUNCATED: dirt.truncated_fraction,
        Kind.WRONG_LANGUAGE: dirt.wrong_language_fraction,
        Kind.POLITENESS: dirt.politeness_fraction,
    }

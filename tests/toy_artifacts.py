"""Files between the stages, made up but complete, in the form that the stages write."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from lead_core.artifacts import Layout, write_clusters, write_scores
from lead_core.benchmark_check import BenchmarkCheck, Check, write_check
from lead_core.chat import encode
from lead_core.clustering import Clusters
from lead_core.export_configs import Recipe
from lead_core.scoring import Scores
from lead_core.storage import sha256_file, sha256_json, write_json, write_jsonl

ARMS = 3
HOSTILE = "<script>alert('x')</script> & \"quotes\" </pre></details>"

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("messages", pa.list_(MESSAGE)),
        ("input_ids", pa.list_(pa.int32())),
        ("prompt_start", pa.int32()),
        ("response_start", pa.int32()),
    ]
)


# How to train an exported subset elsewhere.
RECIPE = Recipe(
    model="owner/model",
    revision="abc",
    trust_remote_code=False,
    rank=8,
    alpha=16.0,
    dropout=0.05,
    target_modules="all-linear",
    learning_rate=2e-5,
    decays=True,
    weight_decay=0.01,
    max_grad_norm=None,
    effective_batch=16,
    micro_batch=4,
    epochs=1.5,
    max_tokens=192,
    bf16=True,
    seed=7,
)


def turn(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def write_records(path: Path, conversations, tokenizer) -> list[str]:
    """Write (source, messages) pairs as `prepare` does: tokenised, sorted by id; return the ids."""
    rows = []
    for source, messages in conversations:
        encoded = encode(tokenizer, messages)
        rows.append(
            {
                "id": sha256_json(messages)[:16],
                "source": source,
                "messages": messages,
                "input_ids": list(encoded.input_ids),
                "prompt_start": encoded.prompt_start,
                "response_start": encoded.response_start,
            }
        )
    rows.sort(key=lambda row: row["id"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        if rows:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    return [row["id"] for row in rows]


def question(i: int) -> list[dict[str, str]]:
    """Return the `i`-th conversation of the pool, unless a test has others."""
    return turn(f"Question {i}? " + "why " * (i % 17), f"Answer {i}. {HOSTILE}")


def mixed_conversation(i: int) -> list[dict[str, str]]:
    """Return single exchanges, two of them, and two behind a system turn, by turns."""
    system = [{"role": "system", "content": f"Rule {i}."}] if i % 3 == 1 else []
    return [*system, *(turn(f"First {i}", f"Yes {i}") if i % 3 else []), *question(i)]


def write_artifacts(
    root: Path, tokenizer, *, selector: str = "lead", records: int = 90, conversation=question
) -> Layout:
    """Write everything that the report reads, for a run of `selector`; return the layout."""
    layout = Layout.below(root)
    rng = np.random.default_rng(0)
    sources = ["gsm8k", "code", HOSTILE]
    pool = [(sources[i % 3], conversation(i)) for i in range(records)]
    heldout = [(sources[i % 3], turn(f"Held out {i}?", f"Answer {i}.")) for i in range(12)]
    ids = write_records(layout.pool / "pool.arrow", pool, tokenizer)
    heldout_ids = write_records(layout.pool / "heldout.arrow", heldout, tokenizer)
    by_id = {sha256_json(messages)[:16]: (source, messages) for source, messages in pool}
    pool_sha256 = sha256_file(layout.pool / "pool.arrow")
    lengths = np.array([len(encode(tokenizer, by_id[i][1]).input_ids) for i in ids])
    responses = lengths - np.array([encode(tokenizer, by_id[i][1]).response_start for i in ids])
    _write_pool_manifest(layout, records, pool_sha256)
    benchmarks = (BenchmarkCheck("gsm8k", 1319, 2, 3, 4), BenchmarkCheck(HOSTILE, 164, 0, 0, 0))
    write_check(layout.decontamination, Check("remove", benchmarks, ("arc_easy",)))
    loss = rng.gamma(4, 0.4, records)
    ifd = np.clip(rng.normal(0.7, 0.15, records), 0.05, 1.2)
    write_scores(
        layout.scores,
        Scores(loss, loss / ifd, ifd, rng.normal(size=(records, 4)).astype(np.float32)),
        ids=ids,
        tokens=lengths,
        response_tokens=responses,
        pool_sha256=pool_sha256,
        model_sha256="m" * 64,
        ledger={"offline": {"sequences": 2 * records, "tokens": 9000}},
    )
    scores_sha256 = json.loads((layout.scores / "manifest.json").read_text())["scores_sha256"]
    difficulty = np.where(ifd >= 1, -1, np.digitize(ifd, [0.6, 0.8])).astype(np.int32)
    task = (np.arange(records) % 2).astype(np.int32)
    write_clusters(
        layout.clusters,
        Clusters(difficulty, task, np.array([0.5, 0.7, 0.9]), {}),
        ids=ids,
        ifd=ifd,
        scores_sha256=scores_sha256,
    )
    chosen = _choose(rng, difficulty)
    _write_training(layout, selector, chosen, ids, by_id, difficulty, task, loss, lengths, rng)
    _write_evaluation(layout, heldout_ids, heldout, rng)
    return layout


def _write_pool_manifest(layout: Layout, records: int, pool_sha256: str) -> None:
    part = {"kept": records // 3, "heldout": 4, "rejected": 3, "not_sampled": 1}
    part["read"] = sum(part.values())
    counts = {name: 3 * value for name, value in part.items()}
    counts["by_source"] = dict.fromkeys(("gsm8k", "code", HOSTILE), part)
    counts["rejected_by_reason"] = {"too_long": 6, "duplicate": 3}
    manifest = {
        "schema": 1,
        "model_sha256": "m" * 64,
        "sources_lock_sha256": "a" * 64,
        "pool_sha256": pool_sha256,
        "heldout_sha256": sha256_file(layout.pool / "heldout.arrow"),
        "counts": counts,
        "tokens": {"pool": 9000, "pool_response": 4000, "heldout": 900, "heldout_response": 400},
    }
    write_json(layout.pool / "manifest.json", manifest)
    broken = {"prompt": HOSTILE, "response": "half a surrogate: \ud800"}
    lines = [
        {"reason": "too_long", "line": 7, "index": 0, "detail": "300 tokens", "record": broken},
        {"reason": "too_long", "line": 8, "index": 0, "detail": "301 tokens", "record": {}},
        {"reason": "duplicate", "line": None, "index": 9, "detail": "of line 1", "record": [1]},
    ]
    rows = [json.dumps({"file": "pool.jsonl", "source": "code", **line}) for line in lines]
    (layout.pool / "rejected.jsonl").write_text("\n".join(rows) + "\n")


def _choose(rng, difficulty: np.ndarray) -> list[np.ndarray]:
    """Return the samples of eight rounds, the last of which picks earlier ones again."""
    eligible = rng.permutation(np.flatnonzero(difficulty >= 0))
    rounds = [eligible[4 * i : 4 * i + 4] for i in range(7)]
    return [*rounds, rounds[0]]


def _write_training(layout, selector, chosen, ids, by_id, difficulty, task, loss, lengths, rng):
    utility, uses = loss.copy(), np.zeros(len(ids), dtype=int)
    rounds, samples = [], []
    for number, indices in enumerate(chosen, start=1):
        seen = utility[indices] - 0.05 * rng.random(len(indices))
        before, after = utility[indices].copy(), 0.9 * (seen - 0.1) + 0.1 * utility[indices]
        utility[indices] = after
        uses[indices] += 1
        for i, b, s, a in zip(indices, before, seen, after, strict=True):
            samples.append(
                {
                    "round": number,
                    "step": number,
                    "id": ids[i],
                    "source": by_id[ids[i]][0],
                    "difficulty": int(difficulty[i]),
                    "task": int(task[i]),
                    "utility_before": float(b),
                    "loss_seen": float(s),
                    "loss_change": -0.1,
                    "utility_after": float(a),
                    "uses": int(uses[i]),
                    "tokens": int(lengths[i]),
                }
            )
        rounds.append(_round(number, indices, before, seen, after, lengths, selector, rng))
    layout.train.mkdir(parents=True, exist_ok=True)
    write_jsonl(layout.train / "rounds.jsonl", rounds)
    pd.DataFrame(samples).to_parquet(layout.train / "selection.parquet", index=False)
    tokens = sum(row["tokens"] for row in rounds)
    manifest = {
        "schema": 1,
        "selector": selector,
        "fixed": {},
        "seed": 0,
        "precision": "fp32",
        "budget": 28,
        "pool_size": len(ids),
        "visits": len(samples),
        "distinct": len({row["id"] for row in samples}),
        "rounds": len(rounds),
        "steps": len(rounds),
        "ledger": {
            "offline": {"sequences": 2 * len(ids), "tokens": 9000},
            "selection": {"sequences": 0, "tokens": 0},
            "training": {"sequences": len(samples), "tokens": tokens},
            "evaluation": {"sequences": 6, "tokens": 100},
        },
        "model_sha256": "m" * 64,
        "pool_sha256": json.loads((layout.pool / "manifest.json").read_text())["pool_sha256"],
        "scores_sha256": json.loads((layout.scores / "manifest.json").read_text())["scores_sha256"],
        "clusters_sha256": json.loads((layout.clusters / "manifest.json").read_text())[
            "clusters_sha256"
        ],
        "adapter_sha256": hashlib.sha256(selector.encode()).hexdigest(),
        "selection_sha256": sha256_file(layout.train / "selection.parquet"),
        "rounds_sha256": sha256_file(layout.train / "rounds.jsonl"),
    }
    write_json(layout.train / "manifest.json", manifest)


def _round(number, indices, before, seen, after, lengths, selector, rng) -> dict:
    bandit = selector == "lead"
    weights = rng.random(ARMS)
    probabilities = (0.9 * weights / weights.sum() + 0.1 / ARMS).tolist()
    return {
        "round": number,
        "arm": number % ARMS if bandit else None,
        "probabilities": probabilities if bandit else None,
        "log_weights": np.log(weights).tolist() if bandit else None,
        "eligible": [20, 20, 20] if bandit else None,
        "n_selected": len(indices),
        "steps": 1,
        "eta": 2e-4,
        "grad_sq_norm": 1.0,
        "grad_sq_norm_arm": None if number == 1 else 1.0,
        "grad_sq_norm_prev": None if number == 1 else 1.0,
        "cos": None if number == 1 else 0.5,
        "beta": None if number == 1 else 0.5,
        "loss_change": -0.1,
        "reward_raw": float(np.mean(before - after)),
        "reward": 0.0 if number < 3 else float(rng.uniform(-1, 1)),
        "tokens": int(lengths[indices].sum()),
        "mean_loss": float(seen.mean()),
        "distinct": 4 * min(number, 7),
        "heldout_loss": 1.5 - 0.02 * number if number % 4 == 0 else None,
    }


def _write_evaluation(layout: Layout, ids, heldout, rng) -> None:
    from dataclasses import asdict

    from lead_core.statistics import paired_difference

    by_id = {sha256_json(messages)[:16]: source for source, messages in heldout}
    base = rng.gamma(4, 0.4, len(ids))
    frame = pd.DataFrame(
        {
            "id": ids,
            "source": [by_id[name] for name in ids],
            "base_loss": base,
            "tuned_loss": base - 0.2 + 0.1 * rng.normal(size=len(ids)),
            "response_tokens": np.full(len(ids), 10, dtype=np.int32),
        }
    )
    layout.evaluation.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(layout.evaluation / "heldout.parquet", index=False)
    whole = asdict(paired_difference(frame["base_loss"], frame["tuned_loss"]))
    paired = {"lead_heldout/loss": whole, "gsm8k/exact_match,strict-match": _accuracy()}
    for source, rows in frame.groupby("source"):
        pair = paired_difference(rows["base_loss"], rows["tuned_loss"])
        paired[f"lead_heldout/loss/{source}"] = asdict(pair)
    tasks = {
        "lead_heldout": {
            "base": {"loss": whole["base"], "loss_macro": whole["base"], "bits_per_byte": 0.9},
            "base_stderr": {"loss": 0.05},
            "tuned": {"loss": whole["tuned"], "loss_macro": whole["tuned"], "bits_per_byte": 0.8},
            "tuned_stderr": {"loss": 0.05},
            "n": len(ids),
            "num_fewshot": 0,
            "version": "1",
        },
        "gsm8k": {
            "base": {"exact_match,strict-match": 0.25},
            "base_stderr": {"exact_match,strict-match": 0.05},
            "tuned": {"exact_match,strict-match": 0.5},
            "tuned_stderr": {"exact_match,strict-match": 0.05},
            "n": 8,
            "num_fewshot": 5,
            "version": "3.0",
        },
    }
    manifest = json.loads((layout.train / "manifest.json").read_text())
    results = {
        "schema": 1,
        "inputs": {"adapter_sha256": manifest["adapter_sha256"]},
        "lm_eval": "0.4.13",
        "limit": None,
        "precision": "fp32",
        "tasks": tasks,
        "paired": paired,
        "forwards": {"sequences": 2 * len(ids), "tokens": 2000},
    }
    write_json(layout.evaluation / "results.json", results)


def _accuracy() -> dict:
    return {"base": 0.25, "tuned": 0.5, "difference": 0.25, "low": -0.1, "high": 0.6, "n": 8}

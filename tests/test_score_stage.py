import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from flows.gc import collect_garbage
from flows.stages.score import scoring_key
from lead_core.lock_file import LOCK_FILE, PARTS, write_lock
from lead_core.model import ResolvedRuntime, resolve_runtime
from lead_core.params import load_params
from lead_core.training_state import scores_folder

PARAMS = Path(__file__).parents[1] / "params.yaml"
CPU = ResolvedRuntime("cpu", 1, "fp32")


def key(*changes, model="0" * 64, runtime=CPU):
    return scoring_key(load_params(PARAMS, list(changes)), model, runtime)


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "1" * 64},
        {"runtime": replace(CPU, device="cuda")},
        {"runtime": replace(CPU, threads=2)},
        {"runtime": replace(CPU, precision="bf16")},
    ],
)
def test_finished_batches_of_another_model_or_arithmetic_are_not_taken_over(changed):
    assert key(**changed) != key()


def test_the_attention_counts_as_what_it_comes_to():
    assert key("runtime.attention=sdpa") != key("runtime.attention=auto")
    assert key("runtime.attention=eager") == key("runtime.attention=auto")


def test_what_only_decides_which_batches_there_are_is_left_to_their_own_keys():
    changes = ["score.batch_tokens=64", "score.embedding_depth_fraction=1.0", "seed=5"]
    assert key(*changes) == key()


def test_gc_frees_finished_batches_but_those_that_params_and_lock_ask_for(tmp_path):
    shutil.copy(PARAMS, tmp_path)
    params, model = load_params(PARAMS), "1" * 64
    runtime = resolve_runtime("auto", params.runtime.threads, params.runtime.precision)
    own = scores_folder(tmp_path, scoring_key(params, model, runtime))
    other = scores_folder(tmp_path, scoring_key(params, "2" * 64, runtime))
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "shard.npz").write_bytes(b"x")
        os.utime(folder / "shard.npz", (0, 0))
        os.utime(folder, (0, 0))
    collect = partial(collect_garbage, tmp_path, eval_cache_mb=0, dry_run=False)
    (kept, _) = collect()
    assert kept.startswith(
        "finished batches of scoring are kept, for nobody knows whose they are: "
    )
    assert (own.exists(), other.exists()) == (True, True)
    lock = {part: [] for part in PARTS} | {"schema": 1, "model": {"sha256": model}}
    write_lock(tmp_path / LOCK_FILE, lock)
    (freed, _) = collect()
    assert freed.endswith(
        f".lead_state/scores/{other.name}: state of a scoring that params.yaml no longer asks for"
    )
    assert (own.exists(), other.exists()) == (True, False)

import json

import numpy as np
import pytest

from lead_core import scored_batches as module
from lead_core.chat import Encoded
from lead_core.scored_batches import INDEX, SHARD_SECONDS, ScoredBatch, ScoredBatches, batch_key

HOW = {"pad_id": 2, "embedding_depth": 0.5, "weights": None}
SAMPLES = [Encoded([1, 5, 6, 7], 1, 3), Encoded([1, 8], 0, 1)]


def make(number: int, size: int = 2) -> ScoredBatch:
    rng = np.random.default_rng(number)
    return ScoredBatch(rng.normal(size=size), rng.normal(size=(size, 3)).astype(np.float32))


def filled(folder, count: int = 3) -> ScoredBatches:
    """Keep batches 0, 1, ... of 1, 2, ... samples under the keys "0", "1", ..., each in its shard."""
    kept = ScoredBatches(folder, shard_seconds=0.0)
    for number in range(count):
        kept.keep(str(number), make(number, number + 1))
    return kept


def assert_is(batch: ScoredBatch, number: int) -> None:
    expected = make(number, number + 1)
    for got, wanted in (
        (batch.losses, expected.losses),
        (batch.embeddings, expected.embeddings),
    ):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        assert got.tobytes() == wanted.tobytes()


def shard_of(folder, number: int):
    """Return the file of the batch that was kept as `number`-th."""
    row = json.loads((folder / INDEX).read_text().splitlines()[number])
    return folder / f"{row['shard']}.npz"


def test_what_is_kept_is_found_bit_by_bit_by_a_later_process(tmp_path):
    filled(tmp_path)
    found = dict(ScoredBatches(tmp_path).read(["2", "none", "0"]))
    assert sorted(found) == [0, 2]
    assert_is(found[0], 2)
    assert_is(found[2], 0)


def test_one_shard_holds_what_was_finished_since_the_last(tmp_path, monkeypatch):
    # begun, asked twice, written, asked again; and begun by the next process
    clock = iter([0.0, 1.0, SHARD_SECONDS, SHARD_SECONDS, SHARD_SECONDS + 1, 99.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    kept = ScoredBatches(tmp_path)
    kept.keep("0", make(0, 1))
    assert not list(tmp_path.iterdir())
    kept.keep("1", make(1, 2))
    kept.keep("2", make(2, 3))
    assert len(list(tmp_path.glob("*.npz"))) == 1
    found = dict(ScoredBatches(tmp_path).read(["0", "1", "2"]))
    assert sorted(found) == [0, 1]
    assert_is(found[1], 1)


def test_a_flush_writes_the_rest_and_nothing_twice(tmp_path):
    kept = ScoredBatches(tmp_path)
    kept.flush()
    assert not list(tmp_path.iterdir())
    kept.keep("0", make(0, 1))
    kept.flush()
    kept.flush()
    assert len((tmp_path / INDEX).read_text().splitlines()) == 1


def test_equal_batches_of_one_pass_are_all_found(tmp_path):
    kept = ScoredBatches(tmp_path, shard_seconds=0.0)
    for _ in range(2):
        kept.keep("0", make(0, 1))
    found = list(ScoredBatches(tmp_path).read(["0", "other", "0"]))
    assert [place for place, _ in found] == [0, 2]


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_shard_is_named_and_counts_as_not_there(tmp_path, capsys, damage):
    filled(tmp_path)
    path = shard_of(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(data if damage == "flipped" else data[:-1])
    found = dict(ScoredBatches(tmp_path).read(["0", "1", "2"]))
    assert sorted(found) == [0, 2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"scored batches {path} are damaged (")
    assert line.endswith("): scoring them again")


def test_shards_that_hold_nothing_of_interest_are_not_read(tmp_path, capsys):
    filled(tmp_path)
    shard_of(tmp_path, 1).unlink()
    assert [place for place, _ in ScoredBatches(tmp_path).read(["0", "2"])] == [0, 1]
    assert not capsys.readouterr().err


def test_a_line_that_a_kill_cut_short_costs_its_shard_alone(tmp_path):
    filled(tmp_path)
    index = tmp_path / INDEX
    index.write_bytes(index.read_bytes()[:-9])
    kept = ScoredBatches(tmp_path, shard_seconds=0.0)
    assert [place for place, _ in kept.read(["0", "1", "2"])] == [0, 1]
    kept.keep("2", make(2, 3))
    assert [place for place, _ in kept.read(["0", "1", "2"])] == [0, 1, 2]


@pytest.mark.parametrize(
    ("samples", "how"),
    [
        (SAMPLES[::-1], HOW),
        (SAMPLES[:1], HOW),
        ([Encoded([1, 5, 6, 9], 1, 3), SAMPLES[1]], HOW),
        ([Encoded([1, 5, 6, 7], 0, 3), SAMPLES[1]], HOW),
        ([Encoded([1, 5, 6, 7], 1, 2), SAMPLES[1]], HOW),
        ([Encoded([1, 5, 6], 1, 3), Encoded([7, 1, 8], 0, 1)], HOW),
        (SAMPLES, {**HOW, "pad_id": 0}),
        (SAMPLES, {**HOW, "embedding_depth": None}),
        (SAMPLES, {**HOW, "weights": "0" * 64}),
    ],
)
def test_whatever_a_number_hangs_on_is_in_the_key(samples, how):
    assert batch_key(samples, how) != batch_key(SAMPLES, HOW)


def test_the_key_is_of_the_content_alone():
    arrays = [Encoded(np.array(s.input_ids, np.int32), s.prompt_start, 1) for s in SAMPLES[1:]]
    assert batch_key(arrays, HOW) == batch_key(SAMPLES[1:], HOW)

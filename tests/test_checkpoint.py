import numpy as np
import pytest
import torch

from lead_core.checkpoint import SCHEMA, Checkpoint, CheckpointStore


def make(number: int) -> Checkpoint:
    return Checkpoint(
        number,
        {"visits": number * 10, "rng": {"state": 2**100}},
        {"utility": np.arange(3.0) + number},
        {"parameter/a": torch.full((2,), float(number))},
    )


def filled(folder, count: int = 3) -> CheckpointStore:
    store = CheckpointStore(folder)
    for number in range(1, count + 1):
        store.append("rounds.jsonl", [{"round": number}])
        store.append("selection.jsonl", [{"round": number, "loss": 0.1 * number}])
        store.save(make(number))
    return store


def assert_is(checkpoint: Checkpoint, number: int) -> None:
    assert checkpoint.number == number
    assert checkpoint.values == make(number).values
    np.testing.assert_array_equal(checkpoint.arrays["utility"], make(number).arrays["utility"])
    assert torch.equal(checkpoint.tensors["parameter/a"], make(number).tensors["parameter/a"])


def test_an_empty_store_has_no_checkpoint(tmp_path):
    assert CheckpointStore(tmp_path / "new").load_latest() is None


def test_the_newest_checkpoint_is_read_back_whole(tmp_path):
    filled(tmp_path)
    assert_is(CheckpointStore(tmp_path).load_latest(), 3)


def test_only_the_last_two_checkpoints_are_kept(tmp_path):
    filled(tmp_path, 5)
    names = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert names == ["checkpoint-000004", "checkpoint-000005"]


def test_rows_behind_the_checkpoint_are_cut_off(tmp_path):
    store = filled(tmp_path)
    store.append("rounds.jsonl", [{"round": 4}])
    again = CheckpointStore(tmp_path)
    again.load_latest()
    assert [row["round"] for row in again.read_log("rounds.jsonl")] == [1, 2, 3]
    again.append("rounds.jsonl", [{"round": 4}])
    again.save(make(4))
    assert_is(CheckpointStore(tmp_path).load_latest(), 4)


@pytest.mark.parametrize(
    "name", ["tensors.safetensors", "arrays.npz", "values.json", "checkpoint.json"]
)
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    tmp_path, capsys, name, damage
):
    filled(tmp_path)
    path = tmp_path / "checkpoint-000003" / name
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    else:
        path.unlink()
    assert_is(CheckpointStore(tmp_path).load_latest(), 2)
    assert "checkpoint-000003 is damaged" in capsys.readouterr().err


def test_a_log_that_lost_its_end_falls_back_to_what_it_still_covers(tmp_path, capsys):
    filled(tmp_path)
    log = tmp_path / "rounds.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    again = CheckpointStore(tmp_path)
    assert_is(again.load_latest(), 2)
    assert [row["round"] for row in again.read_log("rounds.jsonl")] == [1, 2]
    assert "rounds.jsonl does not hold" in capsys.readouterr().err


def test_with_every_checkpoint_damaged_training_starts_anew_with_empty_logs(tmp_path, capsys):
    filled(tmp_path)
    for path in tmp_path.glob("checkpoint-*/values.json"):
        path.write_text("{")
    again = CheckpointStore(tmp_path)
    assert again.load_latest() is None
    assert again.read_log("rounds.jsonl") == []
    assert capsys.readouterr().err.count("is damaged") == 2


def test_checkpoints_written_after_a_damaged_one_are_kept_and_found(tmp_path, capsys):
    filled(tmp_path, 5)
    for path in tmp_path.glob("checkpoint-*/values.json"):
        path.write_text("{")
    again = CheckpointStore(tmp_path)
    assert again.load_latest() is None
    again.append("rounds.jsonl", [{"round": 1}])
    again.save(make(1))
    assert_is(CheckpointStore(tmp_path).load_latest(), 1)


def test_scraps_of_unfinished_writes_are_removed(tmp_path):
    filled(tmp_path)
    (tmp_path / ".checkpoint-000004.abc").mkdir()
    (tmp_path / ".work.jsonl.xyz").write_text("half")
    CheckpointStore(tmp_path).load_latest()
    assert not list(tmp_path.glob(".*"))


def test_a_half_written_line_at_the_end_of_a_log_is_no_row(tmp_path):
    store = CheckpointStore(tmp_path)
    store.begin_attempt(0)
    store.note_work(1, "training", 4, 9)
    with (tmp_path / "work.jsonl").open("a") as stream:
        stream.write('{"attempt": 1, "work": 1, "sequ')
    for _start in range(3):
        assert CheckpointStore(tmp_path).begin_attempt(0) == (4, 9)


def test_work_is_lost_only_behind_the_checkpoint_that_the_next_attempt_began_with(tmp_path):
    for work_done, expected in ((0, (0, 0)), (1, (4, 100)), (1, (8, 200)), (3, (8, 200))):
        store = CheckpointStore(tmp_path)
        assert store.begin_attempt(work_done) == expected
        for number in range(work_done + 1, 3):
            store.note_work(number, "training", 4, 100)


def test_work_that_a_damaged_checkpoint_held_is_lost_in_the_end(tmp_path):
    for work_done, pieces in ((0, 4), (4, 1), (2, 0)):  # the third begins with an older state
        store = CheckpointStore(tmp_path)
        lost = store.begin_attempt(work_done)
        for number in range(work_done + 1, work_done + pieces + 1):
            store.note_work(number, "training", 4, 100)
    assert lost == (3 * 4, 3 * 100)


def test_checkpoints_of_another_schema_are_refused_and_training_starts_anew(tmp_path, capsys):
    filled(tmp_path)
    for path in tmp_path.glob("checkpoint-*/checkpoint.json"):
        path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 1'))
    (tmp_path / "work.jsonl").write_text(
        '{"attempt": 1, "rounds_done": 0}\n{"attempt": 1, "round": 1}\n'
    )
    store = CheckpointStore(tmp_path)
    assert store.load_latest() is None
    assert store.begin_attempt(0) == (0, 0)
    assert capsys.readouterr().err.count(f"schema 1, this version reads {SCHEMA}") == 2


def test_nothing_is_pickled(tmp_path):
    filled(tmp_path)
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".npz", ".json", ".jsonl"}
    with pytest.raises(ValueError, match=r"[Oo]bject arrays cannot be saved"):
        CheckpointStore(tmp_path).save(
            Checkpoint(9, {}, {"bad": np.array([object()])}, {"x": torch.zeros(1)})
        )

"""What `lead gc` may remove: found by name and age, and nothing beside it."""

import os
import time

from lead_core.garbage import (
    QUIET_SECONDS,
    remove,
    scraps,
    stale_scores,
    stale_states,
    surplus_answers,
)


def make(path, size=10, age=2 * QUIET_SECONDS):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    then = time.time() - age
    os.utime(path, (then, then))
    os.utime(path.parent, (then, then))
    return path


def names(found):
    return [waste.path.name for waste in found]


def test_only_states_that_nobody_asks_for_and_that_rest_are_stale(tmp_path):
    make(tmp_path / "train-old/work.jsonl", size=7)
    make(tmp_path / "train-wanted/work.jsonl")
    make(tmp_path / "train-at-work/work.jsonl", age=60)
    make(tmp_path / "outbox/events.jsonl")
    [found] = stale_states(tmp_path, {"train-wanted"})
    assert (found.path.name, found.size_bytes) == ("train-old", 7)
    remove(found)
    remove(found)  # gone already
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outbox", "train-at-work", "train-wanted"]


def test_finished_batches_of_the_scoring_that_is_asked_for_stay(tmp_path):
    make(tmp_path / "old/index.jsonl", size=7)
    make(tmp_path / "wanted/index.jsonl")
    make(tmp_path / "at-work/index.jsonl", age=60)
    [found] = stale_scores(tmp_path, {"wanted"})
    assert (found.path.name, found.size_bytes) == ("old", 7)
    assert found.why == "state of a scoring that params.yaml no longer asks for"


def test_of_kept_answers_the_least_recently_used_go_first(tmp_path):
    for number in range(5):
        make(tmp_path / f"task/{number}.json", age=(10 + number) * QUIET_SECONDS)
    assert names(surplus_answers(tmp_path, 30)) == ["3.json", "4.json"]
    assert names(surplus_answers(tmp_path, 50)) == []
    assert names(surplus_answers(tmp_path / "none", 0)) == []
    make(tmp_path / "task/new.json", age=1)
    assert "new.json" not in names(surplus_answers(tmp_path, 0))


def test_scraps_are_what_unfinished_writes_leave_and_no_other_hidden_files(tmp_path):
    make(tmp_path / ".pool.a1b2c3d4/pool.arrow")
    make(tmp_path / "train/.manifest.json.x_y_z_12")
    make(tmp_path / ".gitignore")
    make(tmp_path / "train/.selection.parquet")
    make(tmp_path / ".scores.aaaaaaaa", age=1)
    assert names(scraps(tmp_path)) == [".pool.a1b2c3d4", ".manifest.json.x_y_z_12"]

"""The run to start from: what of it the lock notes, and every way in which it can be another one."""

import shutil
from pathlib import Path

import pytest

from lead_core.comparison.cells import check_no_start
from lead_core.earlier_run import CONTENT, check_start, lock_start, read_start
from lead_core.errors import LeadError
from lead_core.lock import build_lock, check_lock
from lead_core.lock_file import LOCK_FILE, write_lock
from lead_core.params import override, parse_params, read_mapping
from lead_core.preparation import _lock_hash
from lead_core.storage import read_json, write_json, write_text

DEFAULTS = read_mapping(Path(__file__).parents[1] / "params.yaml")
MODEL = "m" * 64
KEY = r"^params\.yaml: grow\.start_from"


def write_run(folder: Path, *, model: str = MODEL) -> Path:
    """Write what the lock looks at of a finished run."""
    manifests = {
        "scores": {"scores_sha256": "s" * 64},
        "clusters": {"scores_sha256": "s" * 64, "clusters_sha256": "c" * 64},
        "cluster_fit": {"clusters_sha256": "c" * 64},
        "train": {"clusters_sha256": "c" * 64, "model_sha256": model},
    }
    for name, manifest in manifests.items():
        write_json(folder / name / "manifest.json", {"schema": 1, **manifest})
    write_text(folder / "train/utilities.parquet", "any bytes")
    return folder


def starting_from(folder: str | None, *more: str):
    return parse_params(override(DEFAULTS, [f"grow.start_from={folder or 'null'}", *more]))


def lock_of(params, workspace):
    return {"model": {"sha256": MODEL}, "start": lock_start(params, workspace, MODEL)}


def test_without_a_start_the_lock_says_null_and_no_stage_reads_it(tmp_path):
    params = starting_from(None)
    assert lock_of(params, tmp_path)["start"] is None
    assert check_start(lock_of(params, tmp_path), params, tmp_path) is None
    assert read_start(params, tmp_path) is None  # there is no lock here at all


def test_the_lock_holds_folder_and_hash_and_any_change_of_the_run_is_named(tmp_path):
    write_run(tmp_path / "first")
    params = starting_from("first")
    lock = lock_of(params, tmp_path)
    assert lock["start"]["folder"] == "first"
    start = check_start(lock, params, tmp_path)
    assert start.sha256 == lock["start"]["sha256"]
    assert start.layout.cluster_fit == tmp_path / "first/cluster_fit"
    for name in CONTENT:
        changed = tmp_path / "first" / name
        before = changed.read_bytes()
        changed.write_bytes(before + b"\n")
        with pytest.raises(LeadError, match=rf"{KEY}: first changed since it was locked; run `lea"):
            check_start(lock, params, tmp_path)
        changed.write_bytes(before)
    shutil.move(tmp_path / "first", tmp_path / "moved")
    moved = lock_of(starting_from("moved"), tmp_path)
    assert moved["start"]["sha256"] == lock["start"]["sha256"]


@pytest.mark.parametrize(
    ("locked", "wanted", "said"),
    [
        ("first", "second", "is second, locked was first"),
        (None, "second", "is second, locked was null"),
        ("first", None, "is null, locked was first"),
    ],
)
def test_another_start_than_the_locked_one_is_refused(tmp_path, locked, wanted, said):
    for name in ("first", "second"):
        write_run(tmp_path / name)
    lock = lock_of(starting_from(locked), tmp_path)
    with pytest.raises(LeadError, match=rf"{KEY} {said}; run `lead lock`$"):
        check_start(lock, starting_from(wanted), tmp_path)


def test_what_is_no_whole_run_of_this_model_is_refused_with_the_next_step(tmp_path):
    def refuse(folder, said):
        with pytest.raises(LeadError, match=KEY + said):
            lock_start(starting_from(folder), tmp_path, MODEL)

    refuse("nowhere", r": nowhere holds no scores/manifest\.json; name a copy of the artifacts")
    write_run(tmp_path / "artifacts")
    refuse(
        "artifacts", r": artifacts is what this run writes; copy it \(`cp -r artifacts FOLDER`\)"
    )
    old = write_run(tmp_path / "old")
    (old / "train/utilities.parquet").unlink()
    refuse("old", r": old holds no train/utilities\.parquet; name a copy .* of this version$")
    mixed = write_run(tmp_path / "mixed")
    manifest = read_json(mixed / "clusters/manifest.json", made_by="")
    write_json(mixed / "clusters/manifest.json", {**manifest, "scores_sha256": "o" * 64})
    refuse("mixed", r": scores, clusters and training in mixed are of different runs; copy")
    write_run(tmp_path / "other", model="o" * 64)
    refuse("other", r": the run in other had another model \(hash oooooooooooo\.\.\., model\.name")


def test_lead_lock_notes_the_start_and_prepares_the_same_pool_with_it(
    tmp_path, tiny_model_folder, monkeypatch
):
    monkeypatch.setenv("LEAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.jsonl").write_text('{"question": "Q?", "answer": "A"}\n')
    settings = (f"model.name={tiny_model_folder}", "data.sources=[a.jsonl]")
    plain = build_lock(starting_from(None, *settings), tmp_path)
    write_run(tmp_path / "first", model=plain["model"]["sha256"])
    params = starting_from("first", *settings)
    lock = build_lock(params, tmp_path)
    assert {**lock, "start": None} == plain
    assert _lock_hash(lock) == _lock_hash(plain)
    check_lock(lock, params, tmp_path)
    write_lock(tmp_path / LOCK_FILE, lock)
    assert read_start(params, tmp_path).sha256 == lock["start"]["sha256"]
    write_text(tmp_path / "first/train/utilities.parquet", "other bytes")
    with pytest.raises(LeadError, match=rf"{KEY}: first changed since it was locked"):
        check_lock(lock, params, tmp_path, parts={"start"})
    check_lock(lock, params, tmp_path, parts={"sources", "model"})


def test_a_comparison_starts_from_the_base_model_alone():
    check_no_start(None)
    with pytest.raises(
        LeadError, match=rf"{KEY} must be null for a comparison, got 'first': its t"
    ):
        check_no_start("first")

import json

import pytest

from lead_core.errors import LeadError
from lead_core.export_folder import MANIFEST, export_folder


def write(path, kind="subset", text="one\n"):
    with export_folder(path, kind, {"form": "messages"}) as folder:
        (folder / "data").mkdir()
        (folder / "data/train.jsonl").write_text(text)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.jsonl")}


def test_the_manifest_names_what_was_written_by_hash(tmp_path):
    write(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["kind"] == "subset"
    assert manifest["form"] == "messages"
    assert list(manifest["files"]) == ["data/train.jsonl"]


def test_an_export_replaces_an_earlier_one_and_an_empty_folder(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    write(tmp_path / "out", text="two\n")
    assert contents(tmp_path / "out") == {"data/train.jsonl": b"two\n"}


def test_an_export_that_fails_leaves_the_one_before(tmp_path):
    write(tmp_path / "out")
    with (
        pytest.raises(RuntimeError),
        export_folder(tmp_path / "out", "subset", {}) as folder,
    ):
        (folder / "train.jsonl").write_text("half")
        raise RuntimeError
    assert contents(tmp_path / "out") == {"data/train.jsonl": b"one\n"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_peoples_folders_and_files_are_refused(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/diary.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LeadError, match=r"notes was not written by `lead export` \(no lead_export"):
        write(tmp_path / "notes")
    with pytest.raises(LeadError, match=r"file is a file; an export is a folder: choose another"):
        write(tmp_path / "file")
    assert (tmp_path / "notes/diary.txt").read_text() == "mine"


def test_what_was_added_or_edited_since_is_not_lost(tmp_path):
    out = tmp_path / "out"
    write(out)
    (out / "trained").mkdir()
    (out / "trained/model.jsonl").write_text("hours of work")
    with pytest.raises(LeadError, match=r"changed since it was exported \(trained/model\.jsonl\)"):
        write(out)
    (out / "data/train.jsonl").write_text("edited")
    with pytest.raises(LeadError, match=r"\(data/train\.jsonl and 1 more\); it would be lost"):
        write(out)


def test_an_export_of_another_kind_is_not_overwritten(tmp_path):
    write(tmp_path / "out")
    with pytest.raises(LeadError, match=r"out holds an export of another kind \(subset\)"):
        write(tmp_path / "out", kind="merged")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        LeadError, match=r"file/out cannot be written \(.*\); choose another folder"
    ):
        write(tmp_path / "file/out")

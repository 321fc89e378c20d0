import json
import subprocess

from lead_core.origin import read_origin, write_origin


def test_an_origin_holds_for_the_very_file_it_was_written_for(tmp_path):
    result = tmp_path / "cell.json"
    result.write_text("{}")
    assert read_origin(result) == {}
    write_origin(result, tmp_path, {"seconds": {"training": 2.0}})
    origin = read_origin(result)
    assert origin["seconds"] == {"training": 2.0}
    assert "torch" in origin["libraries"]
    assert "CPUs" in origin["machine"]
    result.write_text("{ }")  # as a cache brings another one back
    assert read_origin(result) == {}


def test_an_origin_names_the_commit_and_the_files_edited_since(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    git("init")
    (tmp_path / "params.yaml").write_text("a: 1\n")
    git("add", ".")
    git("commit", "-m", "one")
    (tmp_path / "params.yaml").write_text("a: 2\n")
    (tmp_path / "cell.json").write_text("{}")
    write_origin(tmp_path / "cell.json", tmp_path)
    origin = json.loads((tmp_path / "origin.json").read_text())
    assert len(origin["commit"]) == 40
    assert origin["edited"] == ["params.yaml"]

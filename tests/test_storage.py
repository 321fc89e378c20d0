import json

import pytest

from lead_core.errors import LeadError
from lead_core.storage import (
    append_jsonl,
    json_text,
    read_json,
    read_jsonl_log,
    replaced_directory,
    replaced_file,
    sha256_file,
    sha256_json,
    write_bytes,
    write_json,
    write_jsonl,
)


def test_a_failing_write_leaves_the_old_file_and_no_scrap(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError):
        write_bytes(path, "text")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_file_is_replaced_only_when_the_block_succeeds(tmp_path):
    path = tmp_path / "out.jsonl"
    for text in ("first\n", "second\n"):
        with replaced_file(path) as stream:
            stream.write(text)
    with pytest.raises(ZeroDivisionError), replaced_file(path) as stream:
        stream.write("third\n")
        stream.write(str(1 / 0))
    assert path.read_text() == "second\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_directory_is_replaced_only_when_the_block_succeeds(tmp_path):
    path = tmp_path / "out"
    with replaced_directory(path) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(RuntimeError, match="stop"), replaced_directory(path) as folder:
        (folder / "b").write_text("2")
        raise RuntimeError("stop")
    assert [p.name for p in path.iterdir()] == ["a"]
    with replaced_directory(path) as folder:
        (folder / "b").write_text("2")
    assert [p.name for p in path.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_equal_values_give_equal_bytes():
    assert json_text({"b": 1, "a": "ü"}) == json_text({"a": "ü", "b": 1})
    assert sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})


def test_a_missing_or_broken_json_names_the_command_that_makes_it(tmp_path):
    path = tmp_path / "m.json"
    with pytest.raises(LeadError, match="is not there; run `dvc repro` first"):
        read_json(path, made_by="dvc repro")
    path.write_text("{")
    with pytest.raises(LeadError, match=r"is not valid JSON .* run `dvc repro` again"):
        read_json(path, made_by="dvc repro")


def test_jsonl_is_one_value_per_line(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [{"a": "x\ny"}, 2])
    assert (tmp_path / "x.jsonl").read_text() == '{"a": "x\\ny"}\n2\n'


@pytest.mark.parametrize("torn", ['{"n": 1', '{"n": 1, "t": "\u00e4', "\0\0\0", "\n"])
def test_a_torn_line_costs_itself_and_neither_the_next_one_nor_the_log(tmp_path, torn):
    path = tmp_path / "logs" / "x.jsonl"
    append_jsonl(path, {"n": 0})
    with path.open("ab") as stream:
        stream.write(torn.encode()[:-1] if torn.endswith("\u00e4") else torn.encode())
    assert read_jsonl_log(path) == [{"n": 0}]
    append_jsonl(path, {"n": 2})
    append_jsonl(path, {"n": 3})
    assert read_jsonl_log(path) == [{"n": 0}, {"n": 2}, {"n": 3}]


def test_a_log_of_whole_lines_holds_nothing_else(tmp_path):
    for n in range(2):
        append_jsonl(tmp_path / "x.jsonl", {"n": n})
    assert (tmp_path / "x.jsonl").read_bytes() == b'{"n": 0}\n{"n": 1}\n'


def test_a_log_that_is_not_there_has_no_rows(tmp_path):
    assert read_jsonl_log(tmp_path / "x.jsonl") == []


def test_a_files_hash_is_that_of_its_bytes(tmp_path):
    write_bytes(tmp_path / "x", b"abc")
    assert sha256_file(tmp_path / "x").startswith("ba7816bf8f01cfea")


def test_hashing_tells_how_far_it_is_and_comes_to_the_same(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"x" * (5 << 18))
    told = []
    assert sha256_file(path, told.append) == sha256_file(path)
    assert told == [1 << 20, 1 << 18]

"""Reading files as they come: every format, and every way in which real ones are damaged."""

import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from lead_core import readers
from lead_core.errors import LeadError
from lead_core.readers import read_file, text_encoding
from lead_core.records import Reason

ROWS = [{"question": f"Q{i}?", "answer": f"A{i} é\u2028x"} for i in range(5)]


def lines_of(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_file(path, name))


def values(elements):
    return [element.value for element in elements if element.problem is None]


def problems(elements):
    return [(e.line, e.problem.reason, e.problem.detail) for e in elements if e.problem]


@pytest.mark.parametrize(
    ("name", "content", "encoding"),
    [
        ("a.jsonl", b'{"a": 1}\n', "utf-8"),
        ("a.jsonl", b'\xef\xbb\xbf{"a": 1}\n', "utf-8-sig"),
        ("a.json", '{"a": 1}'.encode("utf-16"), "utf-16"),
        ("a.csv.gz", gzip.compress(b"\xef\xbb\xbfa,b\n", mtime=0), "utf-8-sig"),
        ("a.parquet", b"", None),
    ],
)
def test_the_encoding_of_a_file_is_known_from_its_head(tmp_path, name, content, encoding):
    (tmp_path / name).write_bytes(content)
    assert text_encoding(tmp_path / name, name) == encoding


def test_json_lines_are_numbered_and_blank_ones_skipped(tmp_path):
    elements = read(tmp_path, "a.jsonl", '{"a": 1}\n\n  \n{"a": 2}')
    assert [(e.value, e.line) for e in elements] == [({"a": 1}, 1), ({"a": 2}, 4)]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_marks_encodings_and_line_ends_do_not_matter(tmp_path, name, encoding, newline):
    content = lines_of(ROWS).replace("\n", newline).encode(encoding)
    assert values(read(tmp_path, name, content)) == ROWS


def test_a_bad_line_is_reported_with_its_text_and_the_rest_is_read(tmp_path):
    elements = read(tmp_path, "a.jsonl", '{"a": 1}\n{"a": 2,}\n{"a": 3}\n')
    assert values(elements) == [{"a": 1}, {"a": 3}]
    assert elements[1].value == '{"a": 2,}'
    assert problems(elements)[0][:2] == (2, Reason.BAD_JSON)
    assert "not JSON: " in elements[1].problem.detail


def test_bytes_that_are_not_utf8_spoil_only_the_text_that_holds_them(tmp_path):
    elements = read(tmp_path, "a.jsonl", b'{"a": "\xff"}\n{"a": "b"}\n')
    assert values(elements) == [{"a": "\udcff"}, {"a": "b"}]


@pytest.mark.parametrize(
    "line",
    ['{"a": "\0"}', "[" * 100_000, '{"a": ' + "1" * 5000 + "}", "\0\0\0", "{'a': 1}", "nonsense"],
    ids=["raw NUL", "deep", "digits", "NULs", "python", "words"],
)
def test_hostile_lines_are_rejected_not_raised(tmp_path, line):
    elements = read(tmp_path, "a.jsonl", '{"a": 0}\n' + line + '\n{"a": 1}\n')
    assert values(elements) == [{"a": 0}, {"a": 1}]
    assert problems(elements)[0][:2] == (2, Reason.BAD_JSON)


def test_a_mark_inside_of_files_put_together_is_ignored(tmp_path):
    part = b'\xef\xbb\xbf{"a": 1}\n'
    assert values(read(tmp_path, "a.jsonl", part + part)) == [{"a": 1}, {"a": 1}]


def test_a_first_line_that_is_a_list_does_not_make_lines_an_array(tmp_path):
    assert values(read(tmp_path, "a.jsonl", '[1]\n{"a": 1}\n{"a": 2}\n')) == [
        [1],
        {"a": 1},
        {"a": 2},
    ]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_json_array_is_read_whatever_its_name(tmp_path, name, indent):
    assert values(read(tmp_path, name, json.dumps(ROWS, indent=indent))) == ROWS


def test_elements_of_an_array_know_their_line(tmp_path):
    elements = read(tmp_path, "a.json", '[\n {"a": 1},\n\n {"a":\n 2}, {"a": 3}\n]\n')
    assert [e.line for e in elements] == [2, 4, 5]


def test_an_array_larger_than_a_block_is_read_piece_by_piece(tmp_path):
    rows = [{"text": "é\n" * 1000, "n": i} for i in range(2000)] + [{"text": "x" * 3_000_000}]
    elements = read(tmp_path, "a.json", json.dumps(rows, indent=1))
    assert values(elements) == rows
    assert elements[1].line == 6


def test_an_array_cut_off_in_the_middle_keeps_what_is_whole(tmp_path):
    text = json.dumps(ROWS, indent=1)
    cut = text[: text.index("A3")]
    elements = read(tmp_path, "a.json", cut)
    assert values(elements) == ROWS[:3]
    assert problems(elements) == [
        (14, Reason.CUT_OFF, "the file ends inside this element; nothing after this was read")
    ]
    assert elements[-1].value == cut[cut.index('{\n  "question": "Q3') :]


@pytest.mark.parametrize(
    ("text", "whole", "detail"),
    [
        ('[{"a": 1}, {"a" 2}, {"a": 3}]', 1, "not JSON: Expecting ':' delimiter"),
        ('[{"a": 1} {"a": 2}]', 1, "expected a comma or the end of the array"),
        ('[{"a": 1}', 1, "the file ends before the array does"),
        ('[\n{"a": 1}\n]{"a": 2}', 1, "there is text after the end of the array"),
        ('[{"a": 1}, 23', 1, "the file ends inside this element"),
        ("[", 0, "the file ends before the array does"),
    ],
)
def test_what_is_wrong_with_an_array_is_told_once(tmp_path, text, whole, detail):
    elements = read(tmp_path, "a.json", text)
    assert len(values(elements)) == whole
    [(_, reason, found)] = problems(elements)
    assert reason == Reason.CUT_OFF
    assert found.startswith(detail)
    assert found.endswith("nothing after this was read")


def test_a_comma_behind_the_last_element_is_forgiven(tmp_path):
    assert values(read(tmp_path, "a.json", '[{"a": 1},\n]')) == [{"a": 1}]


def test_a_json_file_may_hold_one_indented_object_after_the_other(tmp_path):
    text = "\n".join(json.dumps(row, indent=2) for row in ROWS)
    elements = read(tmp_path, "a.json", text)
    assert values(elements) == ROWS
    assert [e.line for e in elements] == [1, 5, 9, 13, 17]


records = st.lists(
    st.dictionaries(
        st.text(max_size=5),
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False)
        | st.text(max_size=20)
        | st.lists(st.text(max_size=5), max_size=3),
        max_size=4,
    ),
    min_size=1,
    max_size=8,
)
layouts = st.fixed_dictionaries(
    {
        "array": st.booleans(),
        "indent": st.sampled_from([None, 0, 3]),
        "ascii": st.booleans(),
        "newline": st.sampled_from(["\n", "\r\n"]),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
        "suffix": st.sampled_from(["", ".gz", ".zst"]),
    }
)


def packed(content, suffix):
    if suffix == ".gz":
        return gzip.compress(content)
    return zstandard.compress(content) if suffix == ".zst" else content


@settings(max_examples=200, deadline=None)
@given(rows=records, layout=layouts)
def test_any_records_written_as_json_read_back(tmp_path_factory, rows, layout):
    if layout["array"]:
        text = json.dumps(rows, indent=layout["indent"], ensure_ascii=layout["ascii"])
    else:
        text = "".join(json.dumps(row, ensure_ascii=layout["ascii"]) + "\n" for row in rows)
    content = text.replace("\n", layout["newline"]).encode(layout["encoding"], "surrogatepass")
    name = ("a.json" if layout["array"] else "a.jsonl") + layout["suffix"]
    path = tmp_path_factory.mktemp("read") / name
    path.write_bytes(packed(content, layout["suffix"]))
    assert values(read_file(path, name)) == rows


@settings(max_examples=200, deadline=None)
@given(rows=records, share=st.floats(0, 1), indent=st.sampled_from([None, 1]))
def test_any_cut_of_an_array_keeps_a_prefix_and_reports_the_rest(
    tmp_path_factory, rows, share, indent
):
    text = json.dumps(rows, indent=indent)
    cut = text[: max(1, int(share * len(text)))]
    path = tmp_path_factory.mktemp("cut") / "a.json"
    path.write_text(cut)
    elements = list(read_file(path, "a.json"))
    whole = values(elements)
    assert whole == rows[: len(whole)]
    if cut == text:
        assert whole == rows
        assert not problems(elements)
    else:
        [(_, reason, _)] = problems(elements)
        assert reason == Reason.CUT_OFF
        assert elements[-1].value == "" or cut.endswith(elements[-1].value)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(min_size=1, max_size=60),
    st.sampled_from(["json", "jsonl", "csv", "json.gz", "csv.zst"]),
)
def test_any_bytes_are_read_or_refused_never_an_exception(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"a.{suffix}"
    path.write_bytes(content)
    try:
        elements = list(read_file(path, path.name))
    except LeadError as error:
        assert str(error).startswith(path.name)
        assert "\n" not in str(error)
    else:
        assert all("\n" not in e.problem.detail for e in elements if e.problem)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_that_is_cut_keeps_the_whole_lines(tmp_path, suffix):
    noise = random.Random(0)
    rows = [{"n": i, "noise": noise.getrandbits(300)} for i in range(50_000)]
    content = packed(lines_of(rows).encode(), suffix)
    elements = read(tmp_path, f"a.jsonl{suffix}", content[: len(content) // 2])
    whole = values(elements)
    assert len(whole) > 5000
    assert whole == rows[: len(whole)]
    [(_, reason, detail)] = problems(elements)
    assert reason == Reason.CUT_OFF
    assert "damaged or cut off" in detail


def test_all_frames_of_a_zst_file_are_read(tmp_path):
    frames = b"".join(zstandard.compress(lines_of([row]).encode()) for row in ROWS)
    assert values(read(tmp_path, "a.jsonl.zst", frames)) == ROWS


def test_csv_rows_are_text_with_the_line_they_start_on(tmp_path):
    text = 'question,answer\r\n"What, ""now""?","two\r\nlines"\r\n\r\nQ2,\r\n'
    elements = read(tmp_path, "a.csv", "\ufeff" + text)
    assert [(e.value, e.line) for e in elements] == [
        ({"question": 'What, "now"?', "answer": "two\r\nlines"}, 2),
        ({"question": "Q2", "answer": ""}, 5),
    ]


def test_csv_rows_that_do_not_fit_are_reported_with_their_text(tmp_path):
    elements = read(tmp_path, "a.csv", 'q,a\n1,2,3\n"x"y,2\n1\ngood,row\n"open,2\n3,4\n')
    assert values(elements) == [{"q": "good", "a": "row"}]
    assert problems(elements) == [
        (2, Reason.BAD_CSV, "the row has 3 cells, the header 2"),
        (3, Reason.BAD_CSV, "not valid CSV: ',' expected after '\"'"),
        (4, Reason.BAD_CSV, "the row has 1 cells, the header 2"),
        (6, Reason.BAD_CSV, "not valid CSV: unexpected end of data"),
    ]
    assert elements[-1].value == '"open,2\n3,4\n'


def test_csv_cells_may_be_long(tmp_path):
    assert values(read(tmp_path, "a.csv", "q,a\n1," + "x" * 200_000)) == [
        {"q": "1", "a": "x" * 200_000}
    ]


def test_two_csv_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(LeadError, match=r"a\.csv: two columns are called 'q'; rename one"):
        read(tmp_path, "a.csv", "q,q\n1,2\n")


def test_parquet_rows_are_read_with_their_nested_values(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}], "n": None},
        {"messages": None, "n": 1},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    elements = list(read_file(tmp_path / "a.parquet", "a.parquet"))
    assert [(e.value, e.line) for e in elements] == [(row, None) for row in rows]


def test_bad_text_in_parquet_spoils_only_its_row(tmp_path):
    texts = pa.array([b"good", b"b\xffd", b"fine"]).cast(pa.binary())
    strings = pa.Array.from_buffers(pa.string(), 3, texts.buffers())
    pq.write_table(pa.table({"q": strings, "n": [1, 2, 3]}), tmp_path / "a.parquet")
    elements = list(read_file(tmp_path / "a.parquet", "a.parquet"))
    assert values(elements) == [{"q": "good", "n": 1}, {"q": "fine", "n": 3}]
    assert problems(elements) == [(None, Reason.ENCODING, "q is not valid UTF-8")]
    assert elements[1].value == {"q": "b\\xffd", "n": 2}


def test_a_cut_parquet_file_is_refused_in_one_line(tmp_path):
    pq.write_table(pa.table({"q": ["a"] * 100}), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    with pytest.raises(
        LeadError, match=r"^a\.parquet is not a whole Parquet file \(.*\); write or copy"
    ):
        read(tmp_path, "a.parquet", content[:-20])


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_an_empty_file_is_an_error(tmp_path, name, content):
    content = gzip.compress(content) if name.endswith("gz") else content
    with pytest.raises(
        LeadError, match=f"^{name} holds no records; remove it from params.yaml or fill"
    ):
        read(tmp_path, name, content)


def test_a_missing_file_a_directory_and_an_unreadable_one_are_told_apart(tmp_path):
    with pytest.raises(LeadError, match=r"^a\.jsonl: no such file; check its entry"):
        list(read_file(tmp_path / "a.jsonl", "a.jsonl"))
    with pytest.raises(LeadError, match=r"^d is a directory; name its files, as in d/\*\.jsonl"):
        list(read_file(tmp_path, "d"))
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    with pytest.raises(
        LeadError, match=r"^loop\.jsonl cannot be read \(.*\); check its permissions"
    ):
        list(read_file(loop, "loop.jsonl"))


@pytest.mark.parametrize("name", ["a.txt", "a", "a.gz", "a.parquet.gz", "a.jsonl.bz2"])
def test_a_name_that_tells_no_format_is_refused_with_the_known_ones(tmp_path, name):
    with pytest.raises(
        LeadError, match=r"format is not known by this name; expected one of \.jsonl, "
    ):
        read(tmp_path, name, "{}")


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_reading_tells_how_many_of_the_files_bytes_it_has_read(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(readers, "_BLOCK_BYTES", 10_000)
    rng = random.Random(0)
    rows = [{"question": f"Q{i}?", "answer": rng.randbytes(30).hex()} for i in range(3000)]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(packed(lines_of(rows).encode(), suffix))
    told = []
    assert len(list(read_file(path, path.name, told.append))) == len(rows)
    assert len(told) > 3
    assert sum(told) == path.stat().st_size


def test_reading_parquet_tells_of_bytes_in_proportion_to_its_rows(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"question": [str(i) for i in range(2500)]}), path)
    told = []
    list(read_file(path, "a.parquet", told.append))
    assert len(told) == 3
    assert sum(told) == pytest.approx(path.stat().st_size, abs=3)

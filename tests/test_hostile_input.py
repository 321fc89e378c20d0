"""Broken and hostile files: each record is read, or refused with one line that says why.

What single formats do with damage is in test_readers.py, what single records are refused for in
test_records.py; here whole files go the way that `lead run prepare` and `lead doctor` send them.
"""

import gzip
import json
import os
import re
import time
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pool import rejected

from lead_core import readers
from lead_core.errors import LeadError
from lead_core.params import SourceParams, load_params
from lead_core.preparation import prepare_pool
from lead_core.readers import read_file
from lead_core.records import Reason, Rejection, convert, unfold
from lead_core.sources import resolve_files

COUNTED = re.compile(r"(\d+)\s+odd\s+or\s+broken\s+files\s+and\s+(\d+)\s+refused\s+whole")
GOOD = '{"prompt": "2 + 2?", "response": "4"}'
TURNS = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]}'


def deep(levels, inner='"x"'):
    return "[" * levels + inner + "]" * levels


def packed_zip(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        archive.writestr("a.jsonl", GOOD)
    return (folder / "packed.zip").read_bytes()


def parquet(rows, folder: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(rows), folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


def turns(*pairs):
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in pairs]})


# name of the file: (its content, what becomes of each record in order)
CASES = {
    # --- whole and odd, and read all the same ---
    "plain.jsonl": (GOOD, ["ok"]),
    "byte-order-mark.jsonl": (b"\xef\xbb\xbf" + GOOD.encode(), ["ok"]),
    "two-marks.jsonl": ("\ufeff" + GOOD + "\n\ufeff" + TURNS, ["ok", "ok"]),
    "carriage-returns.jsonl": (f"{GOOD}\r\n{TURNS}\r\n", ["ok", "ok"]),
    "utf-16.jsonl": (f"{GOOD}\n{TURNS}\n".encode("utf-16"), ["ok", "ok"]),
    "utf-16-without-mark.jsonl": (GOOD.encode("utf-16-be"), ["ok"]),
    "utf-32.json": (f"[{GOOD}]".encode("utf-32"), ["ok"]),
    "no-last-newline.jsonl": (f"{GOOD}\n{GOOD}", ["ok", "ok"]),
    "blank-lines.jsonl": (f"\n\n{GOOD}\n \t\n", ["ok"]),
    "separators.jsonl": ('{"prompt": "a\u2028b\u0085c", "response": "d"}', ["ok"]),
    "escaped-pair.jsonl": ('{"prompt": "\\ud83d\\ude42", "response": "a"}', ["ok"]),
    "text-of-every-script.jsonl": ('{"prompt": "مرحبا 你好 🙂 \u202e", "response": "ش"}', ["ok"]),
    "array.jsonl": (f"[{GOOD}, {GOOD}]", ["ok", "ok"]),
    "lines.json": (f"{GOOD}\n{GOOD}\n", ["ok", "ok"]),
    "trailing-comma.json": (f"[{GOOD},]", ["ok"]),
    "members.jsonl.gz": (gzip.compress(GOOD.encode() + b"\n") * 2, ["ok", "ok"]),
    "frames.jsonl.zst": (zstandard.compress(GOOD.encode() + b"\n") * 2, ["ok", "ok"]),
    "extra-keys.jsonl": ('{"prompt": "a", "response": "b", "score": NaN, "x": [Infinity]}', ["ok"]),
    "huge-number-beside.jsonl": ('{"prompt": "a", "response": "b", "n": 1e400}', ["ok"]),
    "wanted.jsonl": ('{"prompt": "a", "completion": "b", "label": true}', ["ok"]),
    # --- cut off ---
    "cut-array.json": (f'[{GOOD}, {GOOD}, {{"prompt": "a', ["ok", "ok", "cut_off"]),
    "cut-between.json": (f"[{GOOD},", ["ok", "cut_off"]),
    "cut-number.json": (f"[{GOOD}, 12", ["ok", "cut_off"]),
    "cut-line.jsonl": (f'{GOOD}\n{{"prompt": "a', ["ok", "bad_json"]),
    "cut-escape.json": (f'[{GOOD}, {{"prompt": "\\u12', ["ok", "cut_off"]),
    "cut.jsonl.gz": (gzip.compress(f"{GOOD}\n".encode())[:-9], ["ok", "cut_off"]),
    "cut-row.csv": ('prompt,response\n"a","b"\n"c","d', ["ok", "bad_csv"]),
    "garbage-behind.jsonl.gz": (gzip.compress(GOOD.encode()) + b"garbage", ["ok", "cut_off"]),
    "missing-comma.json": (f"[{GOOD} {GOOD}]", ["ok", "cut_off"]),
    "text-behind.json": (f"[{GOOD}] and more", ["ok", "cut_off"]),
    # --- not JSON, not CSV ---
    "python-dict.jsonl": ("{'prompt': 'a', 'response': 'b'}", ["bad_json"]),
    "page-of-errors.json": ("<html><body>404 Not Found</body></html>", ["cut_off"]),
    "noise.jsonl": (bytes(range(128, 256)) * 4, ["bad_json"]),
    "zeros.jsonl": (b"\0" * 4096, ["bad_json"]),
    "tabs.csv": ("prompt\tresponse\na\tb\n", ["unknown_format"]),
    "ragged.csv": ("prompt,response\na,b\na,b,c\na\n", ["ok", "bad_csv", "bad_csv"]),
    "lost-quote.csv": ('prompt,response\n"a"b,c\nd,e\n', ["bad_csv", "ok"]),
    "words.jsonl": ("hello\nworld\n", ["bad_json", "bad_json"]),
    "scalars.jsonl": ('1\n"a"\nnull\n[2]\n', ["unknown_format"] * 4),
    "deep.jsonl": (f"{GOOD}\n{deep(100_000)}\n{GOOD}", ["ok", "bad_json", "ok"]),
    "deep-within-reach.jsonl": (
        f'{{"prompt": "a", "response": {deep(800, "NaN")}}}\n{GOOD}',
        ["bad_json", "ok"],
    ),
    "deep-in-array.json": (f"[{deep(500)}, {GOOD}]", ["bad_json", "ok"]),
    "digits.jsonl": ('{"prompt": "a", "response": ' + "9" * 5000 + "}", ["bad_json"]),
    # --- text that is no text ---
    "not-utf-8.jsonl": (
        b'{"prompt": "\xff\xfe", "response": "a"}\n' + GOOD.encode(),
        "encoding ok",
    ),
    "latin-1.jsonl": ('{"prompt": "caf\xe9", "response": "a"}'.encode("latin-1"), ["encoding"]),
    "half-a-pair.jsonl": ('{"prompt": "a", "response": "\\ud800"}', ["encoding"]),
    "half-a-pair-as-key.jsonl": ('{"\\udfff": 1}', ["unknown_format"]),
    "nul-escaped.jsonl": ('{"prompt": "a\\u0000", "response": "b"}', ["encoding"]),
    "nul-raw.jsonl": (b'{"prompt": "a\0", "response": "b"}', ["bad_json"]),
    "nul.csv": (b"prompt,response\na\0,b\n", ["encoding"]),
    # --- wrong kinds of values ---
    "numbers.jsonl": ('{"prompt": 1, "response": 2}', ["not_text"]),
    "nan.jsonl": ('{"prompt": "a", "response": NaN}', ["not_text"]),
    "lists.jsonl": ('{"prompt": ["a"], "response": "b"}', ["not_text"]),
    "booleans.jsonl": ('{"prompt": true, "response": "b"}', ["not_text"]),
    "nulls.jsonl": ('{"prompt": null, "response": null}', ["unknown_format"]),
    "no-keys.jsonl": ("{}", ["unknown_format"]),
    "empty-text.jsonl": ('{"prompt": "a", "response": ""}', ["no_response"]),
    "blank-prompt.jsonl": ('{"prompt": " \\n", "response": "b"}', ["empty_prompt"]),
    "zero-width-response.jsonl": ('{"prompt": "a", "response": "\\u200b"}', ["no_response"]),
    "zero-width-prompt.jsonl": ('{"prompt": "\\ufeff \\u2060", "response": "b"}', ["empty_prompt"]),
    "filler-response.jsonl": ('{"prompt": "a", "response": "\\u3164 \\u2800"}', ["no_response"]),
    "image-parts.jsonl": ('{"messages": [{"role": "user", "content": [{}]}]}', ["not_text"]),
    # --- conversations out of order ---
    "assistant-first.jsonl": (turns(("assistant", "a"), ("user", "b")), ["bad_roles"]),
    "twice-the-user.jsonl": (turns(("user", "a"), ("user", "b")), ["bad_roles"]),
    "system-late.jsonl": (turns(("user", "a"), ("system", "b")), ["bad_roles"]),
    "unanswered.jsonl": (turns(("user", "a")), ["no_response"]),
    "role-is-a-list.jsonl": ('{"messages": [{"role": [], "content": "a"}]}', ["bad_roles"]),
    "no-turns.jsonl": ('{"messages": []}', ["empty_prompt"]),
    "tool-turn.jsonl": (turns(("user", "a"), ("tool", "b"), ("assistant", "c")), ["tool_call"]),
    "tools-defined.jsonl": ('{"prompt": "a", "response": "b", "tools": "[1]"}', ["tool_call"]),
    # --- another kind of training ---
    "chosen.jsonl": ('{"prompt": "a", "chosen": "b", "rejected": "c"}', ["preference"]),
    "chosen-turns.jsonl": ('{"chosen": [{"role": "user"}], "rejected": []}', ["preference"]),
    "two-responses.jsonl": ('{"prompt": "a", "response_0": "b", "response_1": "c"}', "no_response"),
    "unwanted.jsonl": ('{"prompt": "a", "completion": "b", "label": false}', ["preference"]),
    "ranked.jsonl": ('{"instruction": "a", "completions": ["b", "c"]}', ["no_response"]),
    "pretraining.jsonl": ('{"text": "Once upon a time"}', ["unknown_format"]),
}

# name of the file: (how to make it, the one line that refuses it)
REFUSED = {
    "empty.jsonl": (b"", "holds no records; remove it from params.yaml or fill it"),
    "blank.json": (b" \n\n", "holds no records; remove it"),
    "mark-alone.jsonl": (b"\xef\xbb\xbf", "holds no records; remove it"),
    "empty-array.json": (b"[]", "holds no records; remove it"),
    "header-alone.csv": (b"prompt,response\n", "holds no records; remove it"),
    "empty.jsonl.gz": (gzip.compress(b""), "holds no records; remove it"),
    "same-column-twice.csv": (b"prompt,prompt\na,b\n", "two columns are called 'prompt'; rename"),
    "unpacked-name.jsonl": (gzip.compress(GOOD.encode()), "holds no text but gzip (.gz)"),
    "zst-as.json": (zstandard.compress(GOOD.encode()), "holds no text but Zstandard (.zst)"),
    "parquet-as.csv": (lambda folder: parquet([{"a": 1}], folder), "holds no text but Parquet"),
    "archive.jsonl": (packed_zip, "holds no text but a ZIP archive, which has to be unpacked"),
    "text-as.parquet": (GOOD.encode(), "is not a whole Parquet file ("),
    "half.parquet": (
        lambda folder: parquet([{"prompt": "a", "response": "b"}] * 9, folder)[:200],
        "is not a whole Parquet file (",
    ),
    "unknown.txt": (GOOD.encode(), "the format is not known by this name; expected one of "),
    "without-suffix": (GOOD.encode(), "the format is not known by this name; expected one of "),
}


def test_pages_that_count_the_corpus_count_right():
    root = Path(__file__).parents[1]
    pages = [root / "README.md", *sorted(root.glob("docs/*.md"))]
    told = {
        page.name: [int(number) for pair in COUNTED.findall(page.read_text()) for number in pair]
        for page in pages
    }
    said = {name: numbers for name, numbers in told.items() if numbers}
    assert "operations.md" in said
    assert set(map(tuple, said.values())) == {(len(CASES), len(REFUSED))}


def write(folder: Path, name: str, content) -> Path:
    path = folder / name
    made = content(folder) if callable(content) else content
    path.write_bytes(made.encode("utf-8", "surrogatepass") if isinstance(made, str) else made)
    return path


def outcomes(path: Path) -> list[str]:
    """What becomes of each record, after checking that every refusal is one printable line."""
    found = []
    for element in read_file(path, path.name):
        for value in unfold(element.value):
            result = element.problem or convert(value)
            if isinstance(result, Rejection):
                assert "\n" not in result.detail
                result.detail.encode()
            found.append(result.reason.value if isinstance(result, Rejection) else "ok")
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_record_is_read_or_refused_with_its_reason(tmp_path, name):
    content, expected = CASES[name]
    assert outcomes(write(tmp_path, name, content)) == listed(expected)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_a_source_is_refused_in_one_line(tmp_path, name):
    content, message = REFUSED[name]
    path = write(tmp_path, name, content)
    with pytest.raises(LeadError) as error:
        outcomes(path)
    assert str(error.value).startswith(name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_of_the_whole_corpus_is_lost_on_its_way_into_a_pool(tmp_path, tiny_tokenizer):
    """One pool of all files: each record is kept, or lies in rejected.jsonl with its file."""
    (tmp_path / "corpus").mkdir()
    for name, (content, _) in CASES.items():
        write(tmp_path / "corpus", name, content)
    counts = prepare_pool(
        sources=[SourceParams(uri="corpus/*", name="corpus", limit=None, local=None)],
        limit=None,
        max_tokens=200,
        heldout_per_source=0,
        benchmarks=None,
        remove_contaminated=True,
        dirt=None,
        seed=0,
        tokenizer=tiny_tokenizer,
        lock={"model": {"sha256": "m"}, "sources": [{}]},
        workspace=tmp_path,
        out=tmp_path / "pool",
    )
    rows = rejected(tmp_path)
    expected = [one for _, wanted in CASES.values() for one in listed(wanted)]
    assert counts.read == len(expected)
    assert counts.kept + len(rows) == counts.read
    assert counts.rejected == len(rows)
    found = Counter(row["reason"] for row in rows)
    del found["duplicate"]  # the same good record in many files
    assert found == Counter(reason for reason in expected if reason != "ok")
    for row in rows:
        assert row["file"].removeprefix("corpus/") in CASES


def listed(wanted):
    return wanted.split() if isinstance(wanted, str) else wanted


# --- what must not fill memory or hang ---


def peak_megabytes(work) -> float:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


@pytest.fixture
def small_limits(monkeypatch):
    """The limits of the readers in small: what takes gigabytes with theirs takes a megabyte."""
    monkeypatch.setattr(readers, "_LONGEST_RECORD", 1 << 16)
    monkeypatch.setattr(readers, "_BOMB_BYTES", 1 << 23)
    monkeypatch.setattr(readers, "_BLOCK_BYTES", 1 << 14)


@pytest.mark.parametrize(
    ("name", "around", "expected"),
    [
        ("line.jsonl", "{0}\n{1}\n{0}", ["ok", "too_long", "ok"]),
        ("last-line.jsonl", "{0}\n{1}", ["ok", "too_long"]),
        ("element.json", "[{0}, {1}, {0}]", ["ok", "cut_off"]),
        ("cell.csv", "prompt,response\na,b\nc,{1}\nd,e\n", ["ok", "bad_csv", "ok"]),
        ("cells.csv", "prompt,response\na,b\n,{1}\nd,e\n", ["ok", "too_long", "ok"]),
    ],
)
def test_an_endless_record_is_reported_and_what_is_around_it_read(
    tmp_path, small_limits, name, around, expected
):
    start, repeated = {"cell.csv": ("", "x"), "cells.csv": ("", "x,")}.get(
        name, ('{"prompt": "', "x")
    )
    endless = start + repeated * 4_000_000
    path = write(tmp_path, name, around.replace("{0}", GOOD).replace("{1}", endless))
    assert outcomes(path) == expected
    assert peak_megabytes(lambda: outcomes(path)) < 3


def test_an_endless_row_of_short_lines_is_reported_and_what_follows_is_read(tmp_path, small_limits):
    text = 'prompt,response\na,b\nc,"' + "x\n" * 40_000 + "d,e\n"
    elements = list(read_file(write(tmp_path, "lines.csv", text), "lines.csv"))
    assert [(e.line, e.problem.reason if e.problem else None) for e in elements[:3]] == [
        (2, None),
        (3, Reason.TOO_LONG),
        (3 + len(elements[1].value.splitlines()), Reason.BAD_CSV),
    ]
    assert elements[-1].value == {"prompt": "d", "response": "e"}


def test_a_long_row_of_parquet_is_reported_and_many_long_ones_are_read_in_parts(
    tmp_path, small_limits, monkeypatch
):
    monkeypatch.setattr(readers, "_PARQUET_BYTES", 1 << 20)
    rows = [{"prompt": str(number), "response": "é" * 25_000} for number in range(300)]
    rows[7]["response"] = "é" * 40_000
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", use_dictionary=False)
    assert outcomes(tmp_path / "a.parquet") == ["ok"] * 7 + ["too_long"] + ["ok"] * 292

    def read_and_forget() -> None:
        for _ in read_file(tmp_path / "a.parquet", "a.parquet"):
            pass

    assert peak_megabytes(read_and_forget) < 5


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("line", [b"", b"\n"], ids=["one line", "blank lines"])
def test_a_bomb_is_read_no_further_than_text_could_reach(tmp_path, small_limits, suffix, line):
    content = GOOD.encode() + b"\n" + (b"0" * 200_000 + line) * 200
    pack = gzip.compress if suffix == ".gz" else zstandard.compress
    path = write(tmp_path, f"bomb.jsonl{suffix}", pack(content))
    found = outcomes(path)
    assert found[0] == "ok"
    assert found[-1] == "cut_off"
    *_, last = read_file(path, path.name)
    assert last.problem.detail.startswith("it unpacks to more than 500 times its size")


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path):
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    endless = tmp_path / "endless.jsonl"
    endless.symlink_to("/dev/zero")
    began = time.monotonic()
    for path in (pipe, endless):
        for look in (lambda: outcomes(path), lambda: resolve_files(path.name, tmp_path)):  # noqa: B023
            with pytest.raises(LeadError, match=r"is a pipe or a device; expected a regular file"):
                look()
    assert time.monotonic() - began < 1


# --- params.yaml ---

PARAMS = Path(__file__).parents[1] / "params.yaml"
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(24)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "stands for more than 100,000 values; do without aliases of aliases"),
        ("seed: &a [*a]\n", "stands for more than 100,000 values"),
        ("seed: " + "[" * 5000, "is not valid YAML: "),
        ("seed: 2024-13-45\n", "is not valid YAML: month must be in 1..12"),
        ("seed: !!bool perhaps\n", "is not valid YAML: "),
        ("seed: !!timestamp x\n", "is not valid YAML: "),
        ("seed: !!python/object/apply:os.system [echo]\n", "is not valid YAML: "),
        ("seed: 0b_\n", "is not valid YAML: "),
        ("seed: \0\n", "is not valid YAML: "),
        ("? [a]\n: b\n", "is not valid YAML: "),
        ("seed: " + "9" * 5000 + "\n", "is not valid YAML: "),
    ],
    ids=[
        "laughs",
        "loop",
        "deep",
        "month",
        "bool",
        "time",
        "python",
        "bits",
        "NUL",
        "key",
        "digits",
    ],
)
def test_a_hostile_params_file_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(LeadError) as error:
        load_params(path)
    assert str(error.value).startswith(f"params.yaml {message}")
    assert "\n" not in str(error.value)


@settings(max_examples=150, deadline=None)
@given(
    at=st.integers(0, 3000),
    cut=st.integers(0, 200),
    put=st.text(alphabet="[]{}:,-&*!?|>'\"%@`# \n\tabc019.\0", max_size=12),
)
def test_any_edit_of_the_params_file_is_read_or_refused(tmp_path_factory, at, cut, put):
    text = PARAMS.read_text()
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(text[:at] + put + text[at + cut :])
    try:
        load_params(path)
    except LeadError as error:
        assert all(line.startswith("params.yaml") for line in str(error).splitlines())


@settings(max_examples=150, deadline=None)
@given(value=st.text(max_size=20))
def test_any_value_on_the_command_line_is_read_or_refused(value):
    try:
        load_params(PARAMS, [f"train.learning_rate={value}"])
    except LeadError as error:
        assert str(error).startswith(("params.yaml", "--set"))

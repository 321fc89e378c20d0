"""What a URI names, and reading it to a stream of records."""

import gzip
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lead_core.errors import LeadError, TransientError
from lead_core.sources import (
    HubDataset,
    docstring_packages,
    is_remote,
    parse_hub_uri,
    read_source,
    redact,
    resolve_files,
)
from lead_core.storage import sha256_file

ROWS = [{"question": f"Q{i}?", "answer": f"A{i}"} for i in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def read(uri, workspace, *, name=None, locked=None):
    return list(read_source(str(uri), name=name, workspace=workspace, locked=locked))


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "workspace"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a.jsonl").write_text(LINES)
    (folder / "data" / "b.json.gz").write_bytes(gzip.compress(json.dumps(ROWS, indent=1).encode()))
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "data" / "c.parquet")
    return folder


def test_a_glob_is_read_in_the_order_of_names_each_file_a_source(workspace):
    records = read("data/*", workspace)
    assert [record.value for record in records] == ROWS * 3
    places = [(r.source, r.file, r.line, r.index) for r in records]
    assert places[1] == ("a", "data/a.jsonl", 2, 1)
    assert places[4] == ("b", "data/b.json.gz", 6, 1)
    assert places[7] == ("c", "data/c.parquet", None, 1)
    assert records[1].place == "data/a.jsonl:2"
    assert records[7].place == "data/c.parquet, record 1"


def test_an_element_with_instances_is_as_many_records_in_one_place(workspace):
    instances = [{"input": str(i), "output": str(2 * i)} for i in range(2)]
    rows = [{"instruction": "Double.", "instances": instances}, ROWS[0]]
    (workspace / "tasks.json").write_text(json.dumps(rows))
    records = read("tasks.json", workspace)
    assert [record.value.get("output") for record in records] == ["0", "2", None]
    assert [record.index for record in records] == [0, 0, 1]


def test_a_given_name_stands_for_all_files(workspace):
    assert {record.source for record in read("data/*", workspace, name="qa")} == {"qa"}


def test_paths_are_told_relative_to_the_workspace_where_they_can_be(workspace):
    (workspace.parent / "out.jsonl").write_text(LINES)
    inside = workspace / "data" / "a.jsonl"
    outside = workspace.parent / "out.jsonl"
    for uri, label in [
        ("./data//a.jsonl", "data/a.jsonl"),
        (inside, "data/a.jsonl"),
        (f"file://{inside}", "data/a.jsonl"),
        ("../out.jsonl", "../out.jsonl"),
        (outside, str(outside)),
    ]:
        assert {record.file for record in read(uri, workspace)} == {label}


def test_a_file_name_with_brackets_is_no_glob(workspace):
    (workspace / "data" / "x[1].jsonl").write_text(LINES)
    assert read("data/x[1].jsonl", workspace)[0].source == "x[1]"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("data/nope.jsonl", "data/nope.jsonl: no such file (looked in "),
        ("data/*.csv", "data/*.csv: no file matches (looked in "),
        ("data", "data is a directory; name its files, as in data/*.jsonl"),
        ("data/notes.txt", "data/notes.txt: the format is not known by this name; expected one of"),
        ("nope://x/a.jsonl", "nope://x/a.jsonl: Protocol not known: nope"),
        ("s3://bucket/a.jsonl", "s3://bucket/a.jsonl: Install s3fs to access S3; pip install"),
        ("memory://nope.jsonl", "memory://nope.jsonl: no such file; check its entry"),
        ("memory://nope/*.jsonl", "memory://nope/*.jsonl: nothing matches; check its entry"),
        ("hf://owner/name", "hf://owner/name: expected hf://owner/name?split=train"),
        (
            "hf://owner/name?split=a&token=b",
            "hf://owner/name?split=a&token=b: expected hf://owner/",
        ),
        ("hf://a/b/c?split=train", "hf://a/b/c?split=train: expected hf://owner/name?split=train"),
        (
            "hf:///nope?split=train",
            "hf:///nope?split=train: no such folder /nope; check its entry",
        ),
        ("docstrings://", "docstrings://: expected packages, as in docstrings://stdlib,numpy"),
        (
            "docstrings://nope_x",
            "docstrings://nope_x: package nope_x is not installed here; install",
        ),
    ],
)
def test_what_is_not_there_is_told_in_one_line_with_the_next_step(workspace, uri, message):
    (workspace / "data" / "notes.txt").write_text("x")
    with pytest.raises(LeadError) as error:
        read(uri, workspace)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_fsspec_url_is_read_from_a_copy_in_the_cache(workspace):
    store = fsspec.filesystem("memory")
    store.pipe("/sources-test/a.jsonl", LINES.encode())
    store.pipe("/sources-test/b.jsonl.gz", gzip.compress(LINES.encode()))
    records = read("memory://sources-test/*", workspace)
    assert [record.value for record in records] == ROWS * 2
    assert [records[0].source, records[3].source] == ["a", "b"]
    assert records[3].file == "memory:///sources-test/b.jsonl.gz"
    copies = sorted((workspace.parent / "cache" / "sources").iterdir())
    assert [copy.name for copy in copies] == sorted(sha256_file(copy) for copy in copies)


def test_with_a_lock_remote_records_come_from_the_cache_and_only_as_locked(workspace):
    store = fsspec.filesystem("memory")
    uri = "memory://sources-test/locked.jsonl"
    store.pipe("/sources-test/locked.jsonl", LINES.encode())
    [file] = resolve_files(uri, workspace)
    locked = {"files": [{"path": file.label, "sha256": file.path.name, "bytes": 1}]}
    store.pipe("/sources-test/locked.jsonl", b'{"question": "new", "answer": "new"}')
    assert [record.value for record in read(uri, workspace, locked=locked)] == ROWS
    file.path.unlink()
    with pytest.raises(LeadError, match="changed since it was locked; run `lead lock`"):
        read(uri, workspace, locked=locked)


class Server(BaseHTTPRequestHandler):
    """Serves one file, refuses one, fails on one."""

    def do_GET(self):
        status = {"/a.jsonl": 200, "/secret.jsonl": 403, "/broken.jsonl": 500}.get(
            self.path.partition("?")[0], 404
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(LINES)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(LINES.encode())

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_http_files_are_read_and_their_secrets_never_shown(workspace, server):
    records = read(f"http://user:pass@{server}/a.jsonl?token=secret", workspace)
    assert [record.value for record in records] == ROWS
    assert {record.file for record in records} == {f"http://{server}/a.jsonl"}


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("secret.jsonl", LeadError, "access refused; check your credentials for this store"),
        ("nope.jsonl", LeadError, "no such file; check its entry"),
        ("broken.jsonl", TransientError, "could not be read (ClientResponseError); try again"),
    ],
)
def test_a_failing_server_is_told_from_a_mistake(workspace, server, path, kind, message):
    with pytest.raises(kind) as error:
        read(f"http://user:pass@{server}/{path}?token=secret", workspace)
    assert type(error.value) is kind
    assert str(error.value).startswith(f"http://{server}/{path}: {message}")


def test_a_server_that_is_not_there_may_be_there_later(workspace):
    with pytest.raises(TransientError, match=r"^http://127\.0\.0\.1:9/a\.jsonl: could not be read"):
        read("http://127.0.0.1:9/a.jsonl", workspace)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:pw@host:8/a/b.jsonl?sig=1#x", "https://host:8/a/b.jsonl"),
        ("s3://key:secret@bucket/a.jsonl", "s3://bucket/a.jsonl"),
        ("zip://a.jsonl::https://me:p@w@host/x.zip", "zip://a.jsonl::https://host/x.zip"),
        ("data/what?.jsonl", "data/what?.jsonl"),
        ("hf://owner/name?split=train", "hf://owner/name?split=train"),
    ],
)
def test_what_may_be_a_secret_is_cut_from_a_url(uri, shown):
    assert redact(uri) == shown


@given(st.text(alphabet="ab/.*-", max_size=10), st.from_regex(r"[a-z0-9]{12}", fullmatch=True))
def test_no_secret_survives(path, secret):
    shown = redact(f"https://{secret}:{secret}@host/{path}?{secret}={secret}#{secret}")
    assert secret not in shown


def test_kinds_of_uris_are_told_apart():
    assert [
        uri for uri in ("a/b.json", "file:///a", "hf://a/b", "docstrings://a") if is_remote(uri)
    ] == []
    assert is_remote("s3://a/b")
    assert docstring_packages("docstrings://stdlib, numpy,") == ["stdlib", "numpy"]
    whole = parse_hub_uri("hf://owner/name?split=train[:10%]&config=main&revision=v1")
    assert whole == HubDataset("owner/name", "train[:10%]", "main", "v1")
    assert not whole.is_local
    assert parse_hub_uri("hf:///data/set/?split=test") == HubDataset(
        "/data/set", "test", None, None
    )


@pytest.fixture
def dataset_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))


def test_a_dataset_folder_is_read_as_from_the_hub(workspace, dataset_cache):
    folder = workspace / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text(LINES)
    (folder / "test.jsonl").write_text(json.dumps({"question": "T", "answer": "t"}) + "\n")
    records = read(f"hf://{folder}?split=train[:2]", workspace)
    assert [record.value for record in records] == ROWS[:2]
    assert {(r.source, r.file, r.line) for r in records} == {("set", f"hf://{folder}", None)}
    with pytest.raises(
        LeadError, match=r'Unknown split "nope"\. Should be one of \[.*\].; check its entry'
    ):
        read(f"hf://{folder}?split=nope", workspace)


def test_a_dataset_file_that_cannot_be_read_is_told_in_one_line(workspace, dataset_cache):
    folder = workspace / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"question": \n{nope')
    with pytest.raises(LeadError, match=r"JSON parse error.*check its entry"):
        read(f"hf://{folder}?split=train", workspace)


def test_a_hub_that_does_not_answer_may_answer_later(workspace):
    with pytest.raises(TransientError, match=r"^hf://no/such\?split=train: the hub did not answer"):
        read("hf://no/such?split=train", workspace)


def test_mined_records_have_packages_as_sources(workspace, monkeypatch):
    package = workspace / "mined_here"
    package.mkdir()
    code = '    """Return twice the value of its argument."""\n    return 2 * value\n'
    (package / "__init__.py").write_text(f"def double(value):\n{code}")
    monkeypatch.syspath_prepend(workspace)
    [record] = read("docstrings://mined_here", workspace)
    assert (record.source, record.place) == ("mined_here", "mined_here/__init__.py:1")
    assert record.value["response"] == "Return twice the value of its argument."
    assert record.value["function"] == "mined_here.double"

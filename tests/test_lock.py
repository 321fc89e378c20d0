"""The lock: what it holds, that it changes exactly when something behind a name does."""

import json
import platform
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import fsspec
import pytest
from toy_benchmarks import write_benchmarks

from lead_core.errors import LeadError, TransientError
from lead_core.lock import build_lock, check_lock
from lead_core.lock_file import LOCK_FILE, read_lock, write_lock
from lead_core.params import override, parse_params, read_mapping
from lead_core.storage import sha256_file

DEFAULTS = read_mapping(Path(__file__).parents[1] / "params.yaml")
LINE = '{"question": "Q?", "answer": "A"}\n'
NO_BENCHMARKS = '{"schema": 1, "model": {}, "sources": []}'
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "workspace"
    (folder / "data").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / "data" / f"{name}.jsonl").write_text(LINE)
    return folder


@pytest.fixture
def params_of(tiny_model_folder):
    def params_of(*sources, model=tiny_model_folder, scoring_model="null"):
        mapping = override(DEFAULTS, [f"model.name={model}", f"score.model={scoring_model}"])
        mapping["data"]["sources"] = list(sources)
        return parse_params(mapping)

    return params_of


def test_the_lock_names_every_file_with_hash_and_size(workspace, params_of):
    lock = build_lock(params_of({"uri": "data/*.jsonl", "name": "qa"}), workspace)
    expected = [
        {
            "path": f"data/{name}.jsonl",
            "sha256": sha256_file(workspace / f"data/{name}.jsonl"),
            "bytes": 34,
        }
        for name in ("a", "b")
    ]
    assert lock["schema"] == 1
    assert lock["sources"] == [{"uri": "data/*.jsonl", "name": "qa", "files": expected}]
    assert len(lock["model"]["sha256"]) == 64
    check_lock(lock, params_of({"uri": "data/*.jsonl", "name": "qa"}), workspace)


def test_packages_are_locked_by_version(workspace, params_of):
    params = params_of("docstrings://stdlib,numpy,sklearn")
    lock = build_lock(params, workspace)
    assert lock["sources"][0]["packages"] == {
        "stdlib": platform.python_version(),
        "numpy": version("numpy"),
        "sklearn": version("scikit-learn"),
    }
    check_lock(lock, params, workspace)
    lock["sources"][0]["packages"]["numpy"] = "1.0"
    with pytest.raises(
        LeadError, match=r"^docstrings://numpy: version .* is installed, 1\.0 was locked"
    ):
        check_lock(lock, params, workspace)


def test_writing_an_equal_lock_leaves_the_file_untouched(workspace, params_of):
    path = workspace / LOCK_FILE
    params = params_of("data/*.jsonl")
    assert write_lock(path, build_lock(params, workspace))
    before = path.stat()
    assert not write_lock(path, build_lock(params, workspace))
    assert path.stat() == before
    assert read_lock(path) == build_lock(params, workspace)
    (workspace / "data/a.jsonl").write_text(LINE * 2)
    assert write_lock(path, build_lock(params, workspace))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: (data / "a.jsonl").write_text(LINE.upper()),
            "data/a.jsonl changed since",
        ),
        (lambda data: (data / "b.jsonl").unlink(), "data/b.jsonl is gone since"),
        (lambda data: (data / "c.jsonl").write_text(LINE), "data/c.jsonl is new since"),
    ],
)
def test_a_change_behind_a_glob_is_named_with_the_next_step(workspace, params_of, change, message):
    params = params_of("data/*.jsonl")
    lock = build_lock(params, workspace)
    change(workspace / "data")
    with pytest.raises(LeadError) as error:
        check_lock(lock, params, workspace)
    assert str(error.value) == f"{message} it was locked; run `lead lock`"
    check_lock(lock, params, workspace, parts={"model"})


def test_other_sources_than_the_locked_ones_are_refused(workspace, params_of):
    lock = build_lock(params_of("data/a.jsonl"), workspace)
    with pytest.raises(
        LeadError, match=r"not what was locked \(first difference: data/b\.jsonl\); run"
    ):
        check_lock(lock, params_of("data/b.jsonl"), workspace)
    with pytest.raises(LeadError, match=r"first difference: their number or order"):
        check_lock(lock, params_of("data/a.jsonl", "data/a.jsonl"), workspace)


def checking(params, *against, tasks=("lead_heldout",)):
    """Return `params` with other benchmarks to check and tasks to evaluate."""
    mapping = params.model_dump(mode="json")
    mapping["data"]["decontaminate"]["against"] = list(against)
    mapping["evaluate"]["tasks"] = list(tasks)
    return parse_params(mapping)


def test_benchmarks_are_locked_and_checked_like_sources(workspace, params_of):
    (workspace / "quiz.jsonl").write_text(LINE)
    quiz = {"uri": "quiz.jsonl", "name": "gsm8k"}
    params = checking(params_of("data/a.jsonl"), quiz, "auto", tasks=["gsm8k_cot"])
    lock = build_lock(params, workspace)
    assert [(b["uri"], b["name"]) for b in lock["benchmarks"]] == [("quiz.jsonl", "gsm8k")]
    assert lock["benchmarks"][0]["files"][0]["sha256"] == sha256_file(workspace / "quiz.jsonl")
    check_lock(lock, params, workspace)
    (workspace / "quiz.jsonl").write_text(LINE * 2)
    with pytest.raises(LeadError, match=r"^quiz\.jsonl changed since it was locked; run"):
        check_lock(lock, params, workspace)
    check_lock(lock, params, workspace, parts={"sources", "model"})
    with pytest.raises(
        LeadError,
        match=r"^what data\.decontaminate\.against comes to is not what was locked \(first",
    ):
        check_lock(lock, params_of("data/a.jsonl"), workspace)


def test_the_shipped_settings_check_against_nothing_as_long_as_only_our_task_is_evaluated(
    workspace, params_of
):
    assert build_lock(params_of("data/a.jsonl"), workspace)["benchmarks"] == []


def test_a_benchmark_that_cannot_be_had_is_an_error_with_the_ways_out(workspace, params_of):
    params = checking(params_of("data/a.jsonl"), "auto", tasks=["gsm8k"])
    with pytest.raises(TransientError) as error:
        build_lock(params, workspace)
    assert str(error.value) == (
        "data.decontaminate: the pool cannot be checked against gsm8k: "
        "hf://openai/gsm8k?config=main&split=test: the hub did not answer; try again with a network, "
        "or name a full commit in &revision= to work from the local cache; or name a copy as "
        "{uri: FILE, name: gsm8k} in data.decontaminate.against, or set data.decontaminate to null to "
        "train on an unchecked pool"
    )
    with pytest.raises(
        LeadError, match=r"^nope\.jsonl: no such file .*; check its entry in params"
    ):
        build_lock(checking(params, "nope.jsonl"), workspace)


def test_a_check_that_is_switched_off_locks_no_benchmarks(workspace, params_of):
    mapping = checking(params_of("data/a.jsonl"), "auto", tasks=["gsm8k"]).model_dump(mode="json")
    mapping["data"]["decontaminate"] = None
    params = parse_params(mapping)
    lock = build_lock(params, workspace)
    assert lock["benchmarks"] == []
    check_lock(lock, params, workspace)


def test_another_model_or_changed_weights_are_refused(
    workspace, params_of, tiny_model_folder, tmp_path
):
    copy = tmp_path / "model"
    shutil.copytree(tiny_model_folder, copy)
    params = params_of("data/a.jsonl", model=copy)
    lock = build_lock(params, workspace)
    with pytest.raises(LeadError, match=r"is not the locked one: it was .*; run `lead lock`"):
        check_lock(lock, params_of("data/a.jsonl"), workspace)
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    with pytest.raises(
        LeadError, match=r"is not the locked one: its files changed; run `lead lock`"
    ):
        check_lock(lock, params, workspace, parts={"model"})
    check_lock(lock, params, workspace, parts={"sources"})


def test_the_scoring_model_is_locked_beside_the_model(
    workspace, params_of, tiny_model_folder, tmp_path
):
    assert build_lock(params_of("data/a.jsonl"), workspace)["scoring_model"] is None
    copy = tmp_path / "small"
    shutil.copytree(tiny_model_folder, copy)
    params = params_of("data/a.jsonl", scoring_model=copy)
    lock = build_lock(params, workspace)
    assert lock["scoring_model"] == {**lock["model"], "name": str(copy)}
    check_lock(lock, params, workspace)
    with pytest.raises(
        LeadError,
        match=rf"^score\.model null is not the locked one: it was {copy}; run `lead lock`$",
    ):
        check_lock(lock, params_of("data/a.jsonl"), workspace)
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    with pytest.raises(
        LeadError, match=rf"^score\.model {copy} is not the locked one: its files changed; run"
    ):
        check_lock(lock, params, workspace, parts={"scoring_model"})
    check_lock(lock, params, workspace, parts={"sources", "model"})


def test_a_scoring_model_that_is_not_there_is_told_by_its_own_key(workspace, params_of):
    with pytest.raises(LeadError, match=r"^score\.model\.name: no folder \./gone; give a folder, "):
        build_lock(params_of("data/a.jsonl", scoring_model="./gone"), workspace)


def test_the_lock_holds_no_path_of_this_machine_for_files_inside(workspace, params_of):
    lock = build_lock(params_of(str(workspace / "data" / "a.jsonl")), workspace)
    assert lock["sources"][0]["files"][0]["path"] == "data/a.jsonl"


def test_remote_files_are_locked_by_content_and_stages_read_the_locked_copy(workspace, params_of):
    store = fsspec.filesystem("memory")
    store.pipe("/lock-test/a.jsonl", LINE.encode())
    params = params_of("memory://lock-test/*.jsonl")
    lock = build_lock(params, workspace)
    [file] = lock["sources"][0]["files"]
    assert file["path"] == "memory:///lock-test/a.jsonl"
    assert file["bytes"] == len(LINE)
    store.pipe("/lock-test/a.jsonl", LINE.encode() * 2)
    check_lock(lock, params, workspace)
    assert build_lock(params, workspace) != lock


@pytest.fixture
def server(workspace):
    handler = partial(QuietHandler, directory=workspace / "data")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_the_query_of_a_url_never_gets_into_the_lock(workspace, params_of, server):
    lock = build_lock(params_of(f"http://{server}/a.jsonl?v=secret"), workspace)
    assert lock["sources"][0]["uri"] == f"http://{server}/a.jsonl"
    assert lock["sources"][0]["files"][0]["path"] == f"http://{server}/a.jsonl"
    assert "secret" not in json.dumps(lock)


def test_a_hub_data_set_is_locked_by_commit(workspace, params_of):
    params = params_of(f"hf://owner/name?split=train&revision={COMMIT}")
    lock = build_lock(params, workspace)
    assert lock["sources"][0]["hub"] == {"commit": COMMIT}
    check_lock(lock, params, workspace)
    with pytest.raises(
        TransientError, match=r"hub did not answer; try again with a network, or name a"
    ):
        build_lock(params_of("hf://owner/name?split=train"), workspace)


def test_a_local_data_set_folder_is_locked_by_its_files(workspace, params_of):
    params = params_of(f"hf://{workspace / 'data'}?split=train")
    lock = build_lock(params, workspace)
    assert [file["path"] for file in lock["sources"][0]["files"]] == [
        "data/a.jsonl",
        "data/b.jsonl",
    ]
    (workspace / "data/b.jsonl").write_text(LINE * 2)
    with pytest.raises(LeadError, match=r"^data/b\.jsonl changed"):
        check_lock(lock, params, workspace)
    with pytest.raises(LeadError, match=r"no such folder, or it is empty"):
        build_lock(params_of("hf:///nope?split=train"), workspace)


@pytest.mark.parametrize(
    "text", ["{}", "[]", NO_BENCHMARKS, '{"schema": 2, "model": {}, "sources": []}']
)
def test_a_file_that_is_no_lock_is_told(tmp_path, text):
    (tmp_path / LOCK_FILE).write_text(text)
    with pytest.raises(
        LeadError, match=r"^sources\.lock\.json: not a lock of this version; run `lead lo"
    ):
        read_lock(tmp_path / LOCK_FILE)


def test_a_missing_lock_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(LeadError, match="is not there; run `lead lock` first"):
        read_lock(tmp_path / LOCK_FILE)


def test_the_files_that_evaluation_reads_are_locked_by_hash_and_no_other_part_moves(
    workspace, params_of
):
    before = build_lock(params_of("data/a.jsonl"), workspace)
    assert before["evaluation"] == []
    write_benchmarks(workspace / "benchmarks")
    params = params_of("data/a.jsonl")
    evaluate = params.evaluate.model_copy(update={"data_dir": "benchmarks"})
    params = params.model_copy(update={"evaluate": evaluate})
    lock = build_lock(params, workspace)
    assert {**lock, "evaluation": []} == before
    assert [file["path"] for file in lock["evaluation"]][:2] == [
        "benchmarks/gsm8k_test.jsonl",
        "benchmarks/gsm8k_train.jsonl",
    ]
    check_lock(lock, params, workspace)
    with (workspace / "benchmarks/mmlu/test.jsonl").open("a") as stream:
        stream.write("\n")
    (workspace / "benchmarks/tydiqa/train.jsonl").unlink()
    check_lock(lock, params, workspace, parts={"sources", "model"})
    with pytest.raises(
        LeadError, match=r"^benchmarks/mmlu/test\.jsonl changed since it was locked"
    ):
        check_lock(lock, params, workspace, parts={"evaluation"})
    shutil.rmtree(workspace / "benchmarks")
    with pytest.raises(LeadError, match=r"^evaluate\.data_dir: no folder .*benchmarks; put the"):
        build_lock(params, workspace)


def test_with_a_folder_of_benchmarks_the_pool_is_checked_against_its_files(workspace, params_of):
    write_benchmarks(workspace / "benchmarks")
    mapping = checking(params_of("data/a.jsonl"), "auto").model_dump(mode="json")
    mapping["evaluate"].update(
        data_dir="benchmarks", tasks=["gsm8k_cot", {"task": "mmlu", "num_fewshot": 5}]
    )
    params = parse_params(mapping)
    lock = build_lock(params, workspace)
    assert [(b["name"], b["files"][0]["path"]) for b in lock["benchmarks"]] == [
        ("gsm8k", "benchmarks/gsm8k_test.jsonl"),
        ("mmlu", "benchmarks/mmlu/test.jsonl"),
    ]
    check_lock(lock, params, workspace)
    (workspace / "benchmarks/gsm8k_test.jsonl").unlink()
    with pytest.raises(LeadError, match=r"cannot be checked against gsm8k: benchmarks/gsm8k_test"):
        build_lock(params, workspace)

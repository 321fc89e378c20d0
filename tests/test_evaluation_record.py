"""What is kept of an evaluation says where it is from, and only what belongs together is one table."""

import json
from pathlib import Path

import pytest
from conftest import make_tokenizer
from toy_artifacts import write_artifacts

from lead_core.errors import LeadError
from lead_core.evaluation_record import describe_evaluation, main, read_evaluations
from lead_core.params import load_params
from lead_core.storage import read_json, write_json

ROOT = Path(__file__).parents[1]
LOCK = {"evaluation": [{"path": "../data/mmlu/test.jsonl", "sha256": "f" * 64, "bytes": 7}]}
SETTINGS = ["seed=0", "data.local_copies=../data", "evaluate.data_dir=../data"]


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """A finished run of `random`; not to be changed."""
    root = tmp_path_factory.mktemp("run") / "artifacts"
    return write_artifacts(root, make_tokenizer(), selector="random")


@pytest.fixture
def record(layout):
    return describe_evaluation(layout, params("random"), LOCK)


def params(selector, *more):
    return load_params(ROOT / "params.yaml", [*SETTINGS, f"select.selector={selector}", *more])


def keep(folder, record, selector, loss):
    """Write `record` as that of another training by `selector` with the held-out `loss`."""
    other = json.loads(json.dumps(record))
    other["training"]["selector"] = selector
    other["results"]["tasks"]["lead_heldout"]["tuned"]["loss"] = loss
    write_json(folder / f"{selector}.json", other)
    return other


def test_a_record_has_all_figures_and_what_they_depend_on_but_no_place_of_a_machine(layout, record):
    assert record["results"] == read_json(layout.evaluation / "results.json", made_by="test")
    assert record["training"] == read_json(layout.train / "manifest.json", made_by="test")
    assert record["benchmark_files"] == {"mmlu/test.jsonl": "f" * 64}
    assert record["decontamination"]["benchmarks"][0]["verbatim"] == 3
    assert record["settings"]["evaluate"]["batch_size"] == 8
    assert not {"compare", "report", "tracking"} & set(record["settings"])
    assert "../data" not in json.dumps(record)


def test_the_record_is_of_the_comparison_that_its_training_is_of(layout, record):
    same = describe_evaluation(layout, params("random", "evaluate.limit=3"), LOCK)
    other = describe_evaluation(layout, params("random", "train.learning_rate=0.5"), LOCK)
    assert same["comparison"] == record["comparison"] != other["comparison"]


def test_parameters_of_another_run_are_refused(layout):
    with pytest.raises(
        LeadError, match=r"select\.selector is lead, the training is of random; run"
    ):
        describe_evaluation(layout, params("lead"), LOCK)
    with pytest.raises(LeadError, match=r"seed is 3, the training is of 0; run `lead run` first"):
        describe_evaluation(layout, params("random", "seed=3"), LOCK)


def test_the_command_keeps_the_run_of_this_folder_under_its_selectors_name(
    layout, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(layout.pool.parents[1])
    text = (ROOT / "params.yaml").read_text().replace("selector: informative", "selector: random")
    Path("params.yaml").write_text(text)
    parts = {"schema": 1, "sources": [], "model": {}, "benchmarks": [], "evaluation": []}
    parts |= {"start": None, "scoring_model": None}
    Path("sources.lock.json").write_text(json.dumps(parts))
    main(tmp_path)
    assert capsys.readouterr().out == f"written: {tmp_path / 'random.json'}\n"
    kept = read_json(tmp_path / "random.json", made_by="test")
    assert kept["origin"]["command"] == "make benchmarks DATA=FOLDER"
    assert "torch" in kept["origin"]["libraries"]
    assert kept["benchmark_files"] == {}


def test_records_of_one_comparison_come_in_the_order_of_their_losses(tmp_path, record):
    for selector, loss in (("lead", 1.5), ("random", 1.4), ("stratified", 1.45)):
        keep(tmp_path, record, selector, loss)
    found = [record["training"]["selector"] for record in read_evaluations(tmp_path)]
    assert found == ["random", "stratified", "lead"]


def test_records_that_do_not_belong_together_are_refused(tmp_path, record):
    keep(tmp_path, record, "lead", 1.5)
    other = keep(tmp_path, record, "random", 1.4)
    other["results"]["tasks"]["gsm8k"]["base"]["exact_match,strict-match"] = 0.5
    other["comparison"] = "another"
    write_json(tmp_path / "random.json", other)
    reason = (
        r"random\.json and lead\.json are of different runs \(comparison, base model's row\); run"
    )
    with pytest.raises(LeadError, match=reason):
        read_evaluations(tmp_path)


def test_a_record_under_another_name_is_refused(tmp_path, record):
    keep(tmp_path, record, "lead", 1.5)
    (tmp_path / "lead.json").rename(tmp_path / "random.json")
    with pytest.raises(LeadError, match=r"random\.json is not what its name says; run `make"):
        read_evaluations(tmp_path)

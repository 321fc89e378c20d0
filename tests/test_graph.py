from pathlib import Path

import pytest
from dvc.repo import Repo

from flows.graph import plan_run, stage_order
from lead_core.errors import LeadError

REPOSITORY = Path(__file__).parents[1]
GRAPH = """
stages:
  last: {cmd: cp middle last, deps: [middle], outs: [last], params: [k.n]}
  middle: {cmd: cp first middle, deps: [first], outs: [middle]}
  aside: {cmd: touch aside, outs: [aside]}
  first: {cmd: cp source first, deps: [source], outs: [first]}
"""
OTHER_GRAPH = "stages:\n  cell: {cmd: cp ../first cell, deps: [../first], outs: [cell]}\n"


@pytest.fixture
def workspace(tmp_path):
    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "dvc.yaml").write_text(OTHER_GRAPH)
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "params.yaml").write_text("k: {n: 1}\n")
    (tmp_path / "source").write_text("1")
    return tmp_path


def reproduce(workspace):
    with Repo(str(workspace)) as repo:
        repo.reproduce()


def test_the_projects_own_stages_come_in_the_order_of_the_method():
    stages = ("prepare", "score", "cluster", "train", "evaluate", "report")
    assert stage_order(REPOSITORY) == stages


def test_every_stage_comes_after_what_it_needs_and_comparisons_stay_out(workspace):
    assert stage_order(workspace) == ("aside", "first", "middle", "last")


def test_targets_bring_what_they_need_and_nothing_else(workspace):
    assert stage_order(workspace, ["middle"]) == ("first", "middle")


def test_an_unknown_target_is_refused_with_the_known_ones(workspace):
    with pytest.raises(LeadError, match=r"no stage train; it has last, middle, aside, first"):
        stage_order(workspace, ["train"])


def test_a_dvc_yaml_that_cannot_be_read_is_one_line(workspace):
    (workspace / "dvc.yaml").write_text("stages: [")
    with pytest.raises(LeadError, match=r"^DVC cannot use .*dvc\.yaml.*$"):
        stage_order(workspace)


def test_a_folder_that_is_no_dvc_repository_is_one_line(tmp_path):
    with pytest.raises(LeadError, match="not inside of a DVC repository"):
        stage_order(tmp_path)


def test_nothing_is_planned_after_a_run_and_what_an_edit_touches_after_an_edit(
    workspace, monkeypatch
):
    monkeypatch.chdir(workspace)
    reproduce(workspace)
    monkeypatch.chdir(workspace / "compare")  # DVC names stages relative to the working directory
    assert {plan.stage: plan.reasons for plan in plan_run(workspace)} == {
        "aside": (),
        "first": (),
        "middle": (),
        "last": (),
    }
    (workspace / "params.yaml").write_text("k: {n: 2}\n")
    (workspace / "first").write_text("touched by hand")
    reasons = {plan.stage: plan.reasons for plan in plan_run(workspace)}
    assert reasons == {
        "aside": (),
        "first": (f"{Path('..', 'first')} modified",),
        "middle": (f"{Path('..', 'first')} modified", "follows first"),
        "last": (f"{Path('..', 'params.yaml')}:k.n modified", "follows middle"),
    }


def test_a_dependency_known_to_change_makes_its_stage_and_the_followers_stale(
    workspace, monkeypatch
):
    monkeypatch.chdir(workspace)
    reproduce(workspace)
    reasons = {plan.stage: plan.reasons for plan in plan_run(workspace, outdated=["source"])}
    assert reasons["first"] == ("source is outdated",)
    assert reasons["last"] == ("follows middle",)
    assert reasons["aside"] == ()

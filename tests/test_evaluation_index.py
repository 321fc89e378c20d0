"""Names of tasks looked up in an index of our own making, in every form that lm-eval has."""

import textwrap

import pytest
from lm_eval.tasks import TaskManager

from lead_core import evaluation_index
from lead_core.errors import LeadError
from lead_core.evaluation_index import ResolvedTask, resolve_tasks

FILES = {
    "base.yaml": """
        task: sums
        tag: arithmetic
        dataset_path: owner/sums
        output_type: generate_until
    """,
    "codes.yaml": """
        include: base.yaml
        task: codes
        tag: [arithmetic, programs]
        dataset_path: owner/codes
        unsafe_code: true
    """,
    "local.yaml": """
        task: local
        dataset_path: json
        output_type: generate_until
    """,
    "inner.yaml": """
        group: inner
        task: [local, {task: inline, dataset_path: owner/inline}]
    """,
    "outer.yaml": """
        group: outer
        task:
          - inner
          - programs
          - {task: sums, dataset_path: owner/other}
          - {group: written_here, task: [sums_again]}
    """,
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


def test_a_task_a_tag_and_a_group_resolve_to_the_tasks_and_data_behind_them(folder):
    assert resolve_tasks(["sums", "arithmetic", "local", "outer", "sums"], folders=[folder]) == (
        ResolvedTask("sums", "task", ("sums",), ("owner/sums",), runs_code=False),
        ResolvedTask(
            "arithmetic", "tag", ("codes", "sums"), ("owner/codes", "owner/sums"), runs_code=True
        ),
        ResolvedTask("local", "task", ("local",), (), runs_code=False),
        ResolvedTask(
            "outer",
            "group",
            ("local", "inline", "codes", "sums", "sums_again"),
            ("owner/codes", "owner/inline", "owner/other"),
            runs_code=True,
        ),
    )


def test_our_own_task_needs_no_index_of_lm_evals(monkeypatch):
    monkeypatch.setattr(evaluation_index, "stock_tasks", None)
    [task] = resolve_tasks(["lead_heldout"])
    assert (task.kind, task.datasets, task.runs_code) == ("task", (), False)


def test_benchmarks_are_looked_up_in_their_own_folders(monkeypatch):
    monkeypatch.setattr(evaluation_index, "stock_tasks", None)
    mmlu, cot, tydiqa = resolve_tasks(["mmlu", "gsm8k_cot", "tydiqa_goldp"])
    assert (mmlu.kind, len(mmlu.leaves), mmlu.datasets) == ("group", 57, ("cais/mmlu",))
    assert (cot.kind, cot.datasets) == ("task", ("openai/gsm8k",))
    assert (tydiqa.kind, len(tydiqa.leaves)) == ("tag", 9)


def test_a_tag_of_which_only_a_part_is_near_is_looked_up_in_the_whole_index(folder, monkeypatch):
    stock = TaskManager(include_path=str(folder), include_defaults=False)
    monkeypatch.setattr(evaluation_index, "stock_tasks", lambda: stock)
    with pytest.raises(LeadError, match="'chain_of_thought', which is no lm-eval task"):
        resolve_tasks(["chain_of_thought"])


def test_an_unknown_name_is_told_with_those_that_are_close(folder, monkeypatch):
    stock = TaskManager(include_path=str(folder), include_defaults=False)
    monkeypatch.setattr(evaluation_index, "stock_tasks", lambda: stock)
    assert resolve_tasks(["lead_heldout", "sums"])[1].name == "sums"
    with pytest.raises(
        LeadError, match=r"evaluate\.tasks names 'arithmetics', .* did you mean arit"
    ):
        resolve_tasks(["sums", "arithmetics"])

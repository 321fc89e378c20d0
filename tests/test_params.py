from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lead_core.errors import LeadError, ProblemsError
from lead_core.params import (
    Params,
    TaskParams,
    differences,
    effective_params,
    flatten,
    load_params,
    parse_params,
    with_fixed,
)

PARAMS = Path(__file__).parents[1] / "params.yaml"


def problems(*overrides: str) -> str:
    with pytest.raises(LeadError) as caught:
        load_params(PARAMS, overrides)
    return str(caught.value)


def test_the_shipped_params_are_valid():
    assert load_params(PARAMS).select.selector


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bandit.exploration=1.5", "params.yaml: bandit.exploration must be in (0, 1], got 1.5"),
        ("utility.smoothing=1", "params.yaml: utility.smoothing must be in [0, 1), got 1"),
        ("train.learning_rate=0", "params.yaml: train.learning_rate must be > 0, got 0"),
        (
            "utility.drift=some",
            "params.yaml: utility.drift must be one of 'none' or 'cluster', got 'some'",
        ),
        (
            "select.budget_samples=5",
            "params.yaml: select: set exactly one of budget_fraction and budget_samples, "
            "null the other",
        ),
        (
            "select.max_uses=2.5",
            "params.yaml: select.max_uses must be a whole number, got 2.5",
        ),
        (
            "select.selector=best",
            "params.yaml: select.selector must be one of full, idu, ifd, informative, "
            "informative-longest, informative-random, iterative, lead, lead-no-bandit, "
            "lead-no-loss-change, lead-no-smoothing, lead-no-task, lead-paper, longest, loss, "
            "random, random-ifd, stratified, got 'best'",
        ),
        ("seed=many", "params.yaml: seed must be a whole number, got 'many'"),
        (
            "train.weight_decay=.inf",
            "params.yaml: train.weight_decay must be a finite number, got inf",
        ),
        ("data.sources=a.jsonl", "params.yaml: data.sources must be a list, got 'a.jsonl'"),
        (
            "data.decontaminate.against=['docstrings://numpy']",
            "params.yaml: data.decontaminate.against must name rows (entry 0), got 'docstrings://numpy'",
        ),
        (
            "data.decontaminate.min_words=20",
            "params.yaml: data.decontaminate must have edited_ngram_words <= min_words <= ngram_words, "
            "got 5, 20, 13",
        ),
        ("evaluate.limit=0", "params.yaml: evaluate.limit must be >= 1, got 0"),
        (
            "evaluate.tasks=[gsm8k, {task: mmlu, limit: 0}]",
            "params.yaml: evaluate.tasks.1.limit must be >= 1, got 0",
        ),
        (
            "evaluate.tasks=[gsm8k, {task: mmlu, shots: 5}]",
            "params.yaml: evaluate.tasks.1.shots is not a known key; see docs/parameters.md for the "
            "known ones",
        ),
        ("evaluate.tasks=[gsm8k, {limit: 5}]", "params.yaml: evaluate.tasks.1.task is missing"),
        ("train.lora=3", "params.yaml: train.lora must be a section of keys, got 3"),
        ("nothing.here=1", "--set nothing.here=1: params.yaml has no section nothing"),
        ("train.nothing=1", "--set train.nothing=1: params.yaml has no key train.nothing"),
        ("train.learning_rate", "--set train.learning_rate: expected section.key=value"),
    ],
)
def test_a_bad_value_is_explained(override, message):
    assert problems(override) == message


def test_all_problems_are_reported_together():
    text = problems("bandit.exploration=2", "train.effective_batch=0", "seed=-1")
    assert len(text.splitlines()) == 3


def test_an_unknown_and_a_missing_key_are_named(tmp_path):
    content = yaml.safe_load(PARAMS.read_text())
    content["bandit"]["exploratoin"] = content["bandit"].pop("exploration")
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ProblemsError) as caught:
        load_params(path)
    assert sorted(caught.value.problems) == [
        "bandit.exploration is missing",
        "bandit.exploratoin is not a known key; see docs/parameters.md for the known ones",
    ]


def test_a_number_that_yaml_reads_as_text_is_still_a_number():
    """`dvc repro -S` writes 1e-05, which YAML 1.1 reads as a string."""
    assert load_params(PARAMS, ["train.learning_rate='1e-05'"]).train.learning_rate == 1e-5


def test_a_source_may_be_a_plain_string_or_a_mapping():
    params = load_params(PARAMS, ["data.sources=[a.jsonl, {uri: b.jsonl, limit: 3}]"])
    assert [(s.uri, s.limit) for s in params.data.sources] == [("a.jsonl", None), ("b.jsonl", 3)]


def test_the_scoring_model_may_be_a_plain_string_or_a_mapping():
    def model(text):
        return load_params(PARAMS, [f"score.model={text}"]).scoring_model.model_dump()

    as_usual = {"name": "o/small", "revision": None, "trust_remote_code": False}
    assert model("o/small") == model("{name: o/small}") == as_usual
    assert model("{name: o/small, revision: v1}") == {**as_usual, "revision": "v1"}
    assert model("null") == load_params(PARAMS).model.model_dump()


@pytest.mark.parametrize("selector", ["lead", "lead-paper", "lead-no-bandit", "idu", "loss"])
def test_a_rule_that_starts_from_the_trained_models_losses_is_refused_with_anothers(selector):
    assert problems("score.model=o/small", f"select.selector={selector}") == (
        f"params.yaml: select.selector: score.model scores with o/small, but {selector} starts from "
        "the trained model's own losses; use one of full, ifd, informative, "
        "informative-longest, informative-random, iterative, longest, random, random-ifd, stratified, "
        "or set score.model to null"
    )


def test_what_to_check_against_may_be_a_word_a_path_or_a_mapping():
    def against(text):
        params = load_params(PARAMS, [f"data.decontaminate.against={text}"])
        return [(b.uri, b.name, b.fields) for b in params.data.decontaminate.against]

    assert against("auto") == against("[auto]") == [("auto", None, None)]
    assert against("[a.jsonl, {uri: b.csv, name: arc_easy, fields: [stem]}]") == [
        ("a.jsonl", None, None),
        ("b.csv", "arc_easy", ("stem",)),
    ]
    text = problems("data.decontaminate.against=['https://a:b@host/x.jsonl']")
    assert text.startswith(
        "params.yaml: data.decontaminate.against must not hold credentials (entry 0)"
    )
    assert "a:b" not in text


def test_a_task_may_be_a_name_or_a_mapping():
    params = load_params(PARAMS, ["evaluate.tasks=[gsm8k, {task: mmlu, num_fewshot: 5, limit: 9}]"])
    assert [(t.task, t.num_fewshot, t.limit) for t in params.evaluate.tasks] == [
        ("gsm8k", None, None),
        ("mmlu", 5, 9),
    ]
    assert params.evaluate.tasks[0] == TaskParams.named("gsm8k")


@pytest.mark.parametrize(
    "uri",
    ["https://me:pw@host/a.jsonl", "https://host/a?X-Amz-Signature=abc", "s3://b/a?token=t&x=1"],
)
def test_a_source_with_credentials_is_refused_without_repeating_them(uri):
    text = problems(f"data.sources=['{uri}']")
    assert text.startswith("params.yaml: data.sources must not hold credentials (entry 0)")
    assert uri not in text


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a@b.jsonl", "https://host/a?version=2", "hf://o/n?split=a"]
)
def test_a_source_without_credentials_is_not_taken_for_one(uri):
    assert load_params(PARAMS, [f"data.sources=['{uri}']"]).data.sources[0].uri == uri


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("- 1", "must hold a mapping of sections, got list"),
        ("x: !!python/object/apply:os.system [ls]", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_params_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(LeadError, match=message) as caught:
        load_params(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_says_where_to_run():
    with pytest.raises(LeadError, match="run inside a LEAD workspace"):
        load_params(Path("/nowhere/params.yaml"))


def test_flattened_params_have_dotted_names():
    flat = flatten(load_params(PARAMS))
    assert flat["train.lora.rank"] == yaml.safe_load(PARAMS.read_text())["train"]["lora"]["rank"]


def test_the_differences_of_two_params_are_told_by_key():
    before = load_params(PARAMS, ["train.lora.rank=4", "select.max_rounds=null"])
    after = load_params(PARAMS, ["train.lora.rank=8", "select.max_rounds=3"])
    assert differences(before, after) == [
        "select.max_rounds: None -> 3",
        "train.lora.rank: 4 -> 8",
    ]
    assert differences(before, before) == []


def test_fixed_values_replace_those_of_the_file_and_leave_the_rest():
    params = load_params(PARAMS, ["utility.smoothing=0.3"])
    fixed = with_fixed(params, {"utility.smoothing": 0, "train.lora.rank": 3})
    assert differences(params, fixed) == [
        "utility.smoothing: 0.3 -> 0.0",
        f"train.lora.rank: {params.train.lora.rank} -> 3",
    ]
    assert params.utility.smoothing == 0.3
    assert with_fixed(params, {}) == params


@pytest.mark.parametrize(
    ("fixes", "message"),
    [
        ({"utility.smooth": 0}, "lead fixes utility.smooth: params.yaml has no key utility.smooth"),
        ({"util.smoothing": 0}, "lead fixes util.smoothing: params.yaml has no section util"),
        (
            {"utility.smoothing": 1.5},
            "params.yaml with select.selector lead: utility.smoothing must be in [0, 1), got 1.5",
        ),
    ],
)
def test_a_fixed_value_that_cannot_be_is_explained(fixes, message):
    with pytest.raises(LeadError) as caught:
        with_fixed(load_params(PARAMS, ["select.selector=lead"]), fixes)
    assert str(caught.value) == message


def test_what_a_selector_fixes_is_told_where_it_changes_something():
    given = load_params(PARAMS, ["select.selector=lead-no-smoothing", "utility.smoothing=0.1"])
    effective, changes = effective_params(given)
    assert effective.utility.smoothing == 0
    assert changes == ["select.selector lead-no-smoothing fixes utility.smoothing: 0.1 -> 0.0"]
    assert effective_params(effective) == (effective, [])


def test_a_selector_that_fixes_nothing_leaves_the_params_as_they_are():
    given = load_params(PARAMS, ["select.selector=random"])
    assert effective_params(given) == (given, [])


def test_lead_paper_tells_each_value_of_the_published_rule_that_it_changes():
    given = load_params(
        PARAMS,
        ["select.selector=lead-paper", "bandit.step_size=1.0", "utility.loss_change=displacement"],
    )
    effective, changes = effective_params(given)
    assert "select.selector lead-paper fixes bandit.step_size: 1.0 -> 0.1" in changes
    assert (
        "select.selector lead-paper fixes utility.loss_change: 'displacement' -> 'paper'" in changes
    )
    assert effective.train == given.train


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(section=st.sampled_from(sorted(Params.model_fields)), value=anything)
@settings(max_examples=200, deadline=None)
def test_no_section_content_ever_causes_more_than_a_lead_error(section, value):
    content = yaml.safe_load(PARAMS.read_text())
    content[section] = value
    try:
        parse_params(content)
    except ProblemsError as error:
        assert all(problem.startswith(section) for problem in error.problems)

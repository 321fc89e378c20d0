import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lead_core.errors import LeadError
from lead_core.tracking_names import (
    MAX_PARAM,
    first_line,
    flatten_params,
    legal_name,
    legal_tags,
    metric_name,
    redact,
)


@pytest.mark.parametrize(
    ("task", "metric", "expected"),
    [
        ("hellaswag", "acc,none", "eval/hellaswag/acc"),
        ("hellaswag", "acc_stderr,none", "eval/hellaswag/acc_stderr"),
        ("gsm8k", "exact_match,strict-match", "eval/gsm8k/exact_match.strict-match"),
        ("gsm8k", "exact_match,flexible-extract", "eval/gsm8k/exact_match.flexible-extract"),
        ("humaneval", "pass@1,create_test", "eval/humaneval/pass_1.create_test"),
        ("plain", "loss", "eval/plain/loss"),
    ],
)
def test_metrics_of_lm_eval_get_names_without_comma_or_the_filter_none(task, metric, expected):
    assert metric_name(task, metric) == expected


def test_a_metric_name_may_have_another_prefix():
    assert metric_name("mmlu", "acc,none", prefix="base") == "base/mmlu/acc"


@settings(deadline=None)  # the first example pays for the import
@given(st.text(max_size=300))
def test_every_text_becomes_a_name_that_mlflow_accepts(text):
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    _validate_metric_name(legal_name(text))
    _validate_param_name(legal_name(text))


def test_nested_params_become_section_dot_key_with_json_values():
    params = {"train": {"lora": {"rank": 8}, "lr": 2e-4, "decay": None}, "tasks": ["a", "b"]}
    assert flatten_params({**params, "name": "lead", "on": True}) == {
        "train.lora.rank": "8",
        "train.lr": "0.0002",
        "train.decay": "null",
        "tasks": '["a", "b"]',
        "name": "lead",
        "on": "true",
    }


def test_two_params_that_differ_beyond_the_limit_still_differ():
    one, two = (flatten_params({"sources": "x" * MAX_PARAM + end})["sources"] for end in "ab")
    assert len(one) <= MAX_PARAM
    assert one != two
    assert re.fullmatch(r"x+\.\.\. \(sha256 [0-9a-f]{64}\)", one)


def test_passwords_are_cut_out_of_uris_params_and_tags():
    secret = "https://user:p@ss@host:5000/path"
    assert redact(f"cannot reach {secret} now") == "cannot reach https://***@host:5000/path now"
    assert flatten_params({"tracking": {"uri": secret}})["tracking.uri"].startswith("https://***@")
    assert legal_tags({"source": secret, "none": None}) == {"source": "https://***@host:5000/path"}


def test_an_error_is_told_in_one_line_with_its_kind_unless_it_is_our_own():
    assert first_line(ValueError("bad\nworse")) == "ValueError: bad"
    assert first_line(LeadError("train.lr must be positive")) == "train.lr must be positive"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_the_query_of_a_url_is_redacted_as_well():
    assert redact("['https://h/a.jsonl?X-Sig=s', 2]") == "['https://h/a.jsonl?***', 2]"
    assert redact("what is this? nothing") == "what is this? nothing"

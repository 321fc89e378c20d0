import re
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.params_file import edit_params
from lead_core.errors import LeadError
from lead_core.params import load_params

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path):
    return Path(shutil.copy(REPOSITORY / "params.yaml", tmp_path / "params.yaml"))


def changed_lines(before, after):
    assert len(before.splitlines()) == len(after.splitlines())
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    return [(old.strip(), new.strip()) for old, new in pairs if old != new]


def test_one_value_changes_and_every_other_character_stays(path):
    old = load_params(path).train.lora.rank
    text = path.read_text().replace(f"  rank: {old}", f"  rank: {old}   # of the adapters")
    path.write_text(text)
    assert edit_params(path, ["train.lora.rank=7"]) == [f"train.lora.rank: {old} -> 7"]
    assert changed_lines(text, path.read_text()) == [
        (f"rank: {old}   # of the adapters", "rank: 7   # of the adapters")
    ]


def test_a_number_that_yaml_takes_for_text_is_written_as_a_number(path):
    old = load_params(path).train.learning_rate
    changes = edit_params(path, ["train.learning_rate=1e-5"])
    assert changes == [f"train.learning_rate: {old} -> 1e-05"]
    assert yaml.safe_load(path.read_text())["train"]["learning_rate"] == 1e-5


def test_several_values_are_set_together(path):
    edit_params(path, ["select.budget_fraction=null", "select.budget_samples=40", "seed=3"])
    params = load_params(path)
    assert (params.select.budget_fraction, params.select.budget_samples) == (None, 40)
    assert params.seed == 3


def test_a_list_in_block_form_stays_in_block_form_and_comments_around_it_stay(path):
    text = path.read_text().replace("  sources:\n", "  sources:  # where from\n")
    path.write_text(text.replace("\n  max_tokens:", "\n  # and how long\n  max_tokens:", 1))
    edit_params(path, ["data.sources=[a/*.jsonl, {uri: b.json, limit: 5}]", "data.limit=700"])
    assert (
        "  sources:  # where from\n    - a/*.jsonl\n    - {uri: b.json, limit: 5}\n"
        "  limit: 700\n  # and how long\n"
    ) in path.read_text()


def test_a_section_comes_changes_and_goes_whole(path):
    text = path.read_text()
    settings = (
        "{samples: 10, epochs: 2, rank: 4, alpha: 8, learning_rate: 1e-4, effective_batch: 4}"
    )
    [change] = edit_params(path, [f"score.warmup={settings}", "score.warmup.epochs=3"])
    assert change.startswith("score.warmup: None -> {'samples': 10, 'epochs': 3, 'rank': 4, ")
    warmup = load_params(path).score.warmup
    assert (warmup.epochs, warmup.learning_rate) == (3, 1e-4)
    assert edit_params(path, ["score.warmup.rank=5"]) == ["score.warmup.rank: 4 -> 5"]
    [change] = edit_params(path, ["score.warmup.samples=1", "score.warmup=null"])
    assert change.endswith(" -> None")
    assert path.read_text() == text


def test_a_value_that_was_left_empty_can_be_set(path):
    path.write_text(path.read_text().replace("  uri: null", "  uri:"))
    edit_params(path, ["tracking.uri=http://127.0.0.1:5000"])
    assert load_params(path).tracking.uri == "http://127.0.0.1:5000"


def test_the_last_value_of_the_file_keeps_what_follows(path):
    text = path.read_text()
    edit_params(path, ["tracking.experiment=other"])
    assert changed_lines(text, path.read_text()) == [("experiment: lead", "experiment: other")]


def test_setting_what_is_already_there_leaves_the_file_alone(path):
    before = path.stat()
    assert edit_params(path, ["seed=0"]) == []
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bandit.exploration=1.5", r"params.yaml: bandit.exploration must be in \(0, 1\], got 1.5"),
        ("train.nonsense=1", "params.yaml has no key train.nonsense"),
        ("select.budget_samples=4", "set exactly one of budget_fraction and budget_samples"),
        ("seed", "expected section.key=value"),
    ],
)
def test_an_invalid_value_is_refused_and_nothing_is_written(path, override, message):
    text = path.read_text()
    with pytest.raises(LeadError, match=message):
        edit_params(path, ["seed=9", override])
    assert path.read_text() == text


def test_a_layout_that_cannot_be_edited_safely_is_refused(path):
    text = path.read_text().replace("  exploration: ", "  exploration: &rate ")
    path.write_text(re.sub("step_size: .*", "step_size: *rate", text))
    with pytest.raises(LeadError, match="edit the file by hand"):
        edit_params(path, ["bandit.exploration=0.5"])
    assert "&rate" in path.read_text()


@settings(max_examples=40)
@given(name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_text_survives_being_written(tmp_path_factory, name):
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    shutil.copy(REPOSITORY / "params.yaml", path)
    quoted = yaml.safe_dump(name, default_style='"', width=10**9).strip()
    edit_params(path, [f"model.name={quoted}"])
    assert load_params(path).model.name == name

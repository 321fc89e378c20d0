from functools import partial

import numpy as np
import pytest
import torch
from conftest import make_model
from test_rounds import make_samples
from test_scoring import FP32, HEADER, KilledError, assert_equal_bits, count_and_stop

from lead_core.errors import LeadError
from lead_core.ledger import CostLedger, count_forwards
from lead_core.model import ResponseLoss, decoder_of
from lead_core.scored_batches import ScoredBatches
from lead_core.scoring import response_losses, score_pool
from lead_core.warmup import WarmupSettings, warm_up

SETTINGS = WarmupSettings(
    samples=5, epochs=3, rank=4, alpha=8, learning_rate=0.01, effective_batch=2
)


def score(settings=None, *, seed=0, kept=None, forwards=None):
    """Score a toy pool as the stage does; return the scores, the ledger and the pool.

    forwards: how many there are before it is killed, if it is.
    """
    torch.set_num_threads(1)
    pool = make_samples(12)
    loss, ledger = ResponseLoss(make_model(), FP32), CostLedger()
    count_and_stop(loss.causal_lm, ledger, forwards)
    train = settings and partial(
        warm_up, loss, pool, settings=settings, micro_batch_tokens=100, pad_id=2, seed=seed
    )
    with ledger.charged_to("offline"):
        scores = score_pool(
            loss,
            pool,
            header=HEADER,
            pad_id=2,
            batch_tokens=100,
            depth_fraction=0.5,
            warm_up=train,
            kept=kept,
        )
    return scores, ledger, pool


def test_utilities_and_embeddings_stay_those_of_theta_0_and_ifd_is_the_warmed_models():
    cold, _, _ = score()
    warm, _, _ = score(SETTINGS)
    assert warm.loss.tobytes() == cold.loss.tobytes()
    assert warm.embeddings.tobytes() == cold.embeddings.tobytes()
    assert not np.isclose(warm.ifd, cold.ifd).any()
    assert not np.isclose(warm.response_loss, cold.response_loss).any()


def test_ifd_is_the_ratio_of_two_losses_of_the_warmed_model():
    torch.set_num_threads(1)
    loss, pool = ResponseLoss(make_model(), FP32), make_samples(12)
    warm_up(loss, pool, np.zeros(12), settings=SETTINGS, micro_batch_tokens=100, pad_id=2, seed=0)
    assert not loss.training
    above = response_losses(loss, pool, pad_id=2, batch_tokens=100)
    scores, _, _ = score(SETTINGS)
    np.testing.assert_array_equal(scores.ifd, above / scores.response_loss)


def test_three_forwards_per_record_and_every_warm_up_step_are_charged_to_offline():
    _, ledger, pool = score(SETTINGS)
    cold, _ = score()[1:]
    trained = SETTINGS.epochs * SETTINGS.samples
    assert ledger.sequences["offline"] == 3 * len(pool) + trained
    assert sum(ledger.sequences.values()) == ledger.sequences["offline"]
    tokens = sum(len(sample.input_ids) for sample in pool)
    extra = ledger.tokens["offline"] - cold.tokens["offline"] - tokens
    lengths = sorted(len(sample.input_ids) for sample in pool)
    assert SETTINGS.epochs * sum(lengths[:5]) <= extra <= SETTINGS.epochs * sum(lengths[-5:])


def test_killed_behind_its_warm_up_scoring_trains_again_and_goes_on_where_it_was(tmp_path):
    expected, whole, pool = score(SETTINGS)
    kept = ScoredBatches(tmp_path, shard_seconds=0.0)
    with pytest.raises(KilledError):
        score(SETTINGS, kept=kept, forwards=18)
    kept = ScoredBatches(tmp_path)
    scores, ledger, _ = score(SETTINGS, kept=kept)
    assert_equal_bits(scores, expected)
    assert 2 * len(pool) > kept.sequences > len(pool)  # half of the second pass, too
    ledger.add("offline", kept.sequences, kept.tokens)
    assert ledger.as_dict() == whole.as_dict()


def test_the_seed_fixes_every_bit_and_another_one_draws_other_records():
    one, again, other = (score(SETTINGS, seed=seed)[0] for seed in (3, 3, 4))
    assert one.ifd.tobytes() == again.ifd.tobytes()
    assert one.ifd.tobytes() != other.ifd.tobytes()


def test_the_warmed_model_has_learnt_what_it_was_trained_on():
    torch.set_num_threads(1)
    loss, pool = ResponseLoss(make_model(), FP32), make_samples(12)
    before = response_losses(loss, pool, pad_id=2, batch_tokens=100)
    settings = WarmupSettings(100, 6, 4, 8, 0.01, 4)  # more than there are: all of them
    warm_up(loss, pool, before, settings=settings, micro_batch_tokens=100, pad_id=2, seed=0)
    after = response_losses(loss, pool, pad_id=2, batch_tokens=100)
    assert after.mean() < before.mean()


def test_a_record_whose_loss_is_no_number_is_never_trained_on():
    torch.set_num_threads(1)
    loss, ledger, pool = ResponseLoss(make_model(), FP32), CostLedger(), make_samples(6)
    count_forwards(decoder_of(loss.causal_lm), ledger)
    losses = np.array([np.nan, 2.0, 1.0, np.inf, np.nan, np.nan])
    with ledger.charged_to("offline"):
        warm_up(loss, pool, losses, settings=SETTINGS, micro_batch_tokens=100, pad_id=2, seed=0)
    expected = sum(len(pool[i].input_ids) for i in (1, 2))
    assert ledger.tokens["offline"] == SETTINGS.epochs * expected


def test_a_warm_up_that_runs_away_is_told_in_one_line():
    wild = WarmupSettings(5, 50, 4, 8, 1e30, 2)
    with pytest.raises(
        LeadError, match=r"^score\.warmup: a (loss|gradient) of step \d+ is not a finite"
    ) as e:
        score(wild)
    assert len(str(e.value).splitlines()) == 1

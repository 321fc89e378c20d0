import numpy as np
import pytest
import torch
from conftest import make_model
from test_rounds import make_samples

from lead_core.chat import Encoded
from lead_core.ledger import CostLedger, count_forwards
from lead_core.model import (
    ResolvedRuntime,
    ResponseLoss,
    decoder_of,
    group_by_tokens,
    layer_output,
    make_batch,
)
from lead_core.scoring import (
    NON_FINITE,
    NOT_BELOW_ONE,
    Scores,
    difficulty,
    response_losses,
    score_pool,
)

FP32 = ResolvedRuntime("cpu", 1, "fp32")
HEADER = [1, 5, 6]


def direct_loss(model, ids, start):
    """Mean cross-entropy of ids[start:], from full logits."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    targets = torch.tensor(ids[start:])
    return float(torch.nn.functional.cross_entropy(logits[start - 1 : -1], targets))


@pytest.fixture
def scored():
    torch.set_num_threads(1)
    model, samples = make_model(), make_samples(12)
    loss, ledger = ResponseLoss(model, FP32), CostLedger()
    count_forwards(decoder_of(model), ledger)
    with ledger.charged_to("offline"):
        scores = score_pool(
            loss, samples, header=HEADER, pad_id=2, batch_tokens=100, depth_fraction=0.5
        )
    return model, samples, scores, ledger


def test_losses_agree_with_full_logits_one_sample_at_a_time(scored):
    _, samples, scores, _ = scored
    model = make_model()
    for sample, given, alone in zip(samples, scores.loss, scores.response_loss, strict=True):
        assert given == pytest.approx(
            direct_loss(model, sample.input_ids, sample.response_start), rel=1e-5
        )
        bare = [*HEADER, *sample.input_ids[sample.response_start :]]
        assert alone == pytest.approx(direct_loss(model, bare, len(HEADER)), rel=1e-5)
    assert scores.ifd.tolist() == (scores.loss / scores.response_loss).tolist()


def test_every_record_is_forwarded_twice_and_counted(scored):
    _, samples, _, ledger = scored
    assert ledger.sequences["offline"] == 2 * len(samples)
    prompt_tokens = sum(s.response_start for s in samples)
    tokens = sum(len(s.input_ids) for s in samples)
    assert ledger.tokens["offline"] == 2 * tokens - prompt_tokens + len(samples) * len(HEADER)


def test_the_embedding_is_the_mean_hidden_state_of_the_user_tokens(scored):
    _, samples, scores, _ = scored
    model, sample = make_model(), samples[3]
    with torch.inference_mode(), layer_output(model, 0.5) as hidden:
        model(input_ids=torch.tensor([sample.input_ids]))
    expected = hidden[0][0, sample.prompt_start : sample.response_start].mean(0)
    np.testing.assert_allclose(scores.embeddings[3], expected, rtol=1e-4, atol=1e-6)


def test_ifd_is_the_ratio_of_mean_losses_and_bad_ones_are_set_aside_with_their_reason():
    loss = np.array([1.0, 3.0, 2.0, 1.0, 1.0, np.nan])
    response_loss = np.array([2.0, 2.0, 2.0, 0.0, np.inf, 2.0])
    ifd = difficulty(loss, response_loss)
    assert ifd[:5].tolist() == [0.5, 1.5, 1.0, np.inf, 0.0]
    scores = Scores(loss, response_loss, ifd, np.empty((6, 0)))
    assert scores.set_aside() == [None, NOT_BELOW_ONE, NOT_BELOW_ONE, *[NON_FINITE] * 3]


def test_losses_do_not_depend_on_batching():
    torch.set_num_threads(1)
    loss, samples = ResponseLoss(make_model(), FP32), make_samples(9)
    one = response_losses(loss, samples, pad_id=2, batch_tokens=1)
    many = response_losses(loss, samples, pad_id=2, batch_tokens=10_000)
    np.testing.assert_allclose(one, many, rtol=1e-5)


def test_scoring_leaves_the_training_mode_and_random_state_alone():
    loss = ResponseLoss(make_model(), FP32)
    loss.train()
    before = torch.get_rng_state()
    response_losses(loss, make_samples(3), pad_id=2, batch_tokens=100)
    assert loss.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_head_that_scales_its_logits_is_not_split_off():
    model = make_model()
    plain = ResponseLoss(model, FP32)
    assert plain._split
    inner = model.forward

    def scaled(*args, **kwargs):
        output = inner(*args, **kwargs)
        output.logits = output.logits * 0.5
        return output

    model.forward = scaled
    careful = ResponseLoss(model, FP32)
    assert not careful._split
    batch = make_batch(make_samples(2), pad_id=2)
    with torch.inference_mode():
        assert not torch.allclose(plain(batch), careful(batch))


def test_batches_stay_within_the_limit_and_hold_every_sample_once():
    lengths = np.array([5, 90, 17, 17, 200, 3])
    batches = group_by_tokens(lengths, 100)
    assert sorted(np.concatenate(batches).tolist()) == list(range(6))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= 100


def test_padding_is_never_a_target():
    short, long = Encoded([1, 3, 4], 0, 1), Encoded([1, 3, 4, 5, 6], 0, 3)
    batch = make_batch([short, long], pad_id=2)
    assert batch.targets.tolist() == [3, 4, 5, 6]
    assert batch.positions.tolist() == [0, 1, 2, 3]
    assert batch.rows.tolist() == [0, 0, 1, 1]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]

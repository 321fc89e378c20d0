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
from lead_core.scored_batches import ScoredBatches
from lead_core.scoring import (
    NON_FINITE,
    NOT_BELOW_ONE,
    NOT_SCORED_TEMPLATE,
    NOT_SCORED_TOO_LONG,
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


def test_records_that_were_left_out_have_a_place_and_a_reason_and_no_scores():
    two = np.array([1.0, 2.0])
    scores = Scores(two, 2 * two, np.array([0.5, 1.5]), np.ones((2, 3), np.float32))
    scores = scores.with_left_out({0: NOT_SCORED_TOO_LONG, 2: NOT_SCORED_TEMPLATE})
    assert scores.set_aside() == [NOT_SCORED_TOO_LONG, None, NOT_SCORED_TEMPLATE, NOT_BELOW_ONE]
    np.testing.assert_array_equal(scores.loss, [np.nan, 1, np.nan, 2])
    np.testing.assert_array_equal(np.isnan(scores.embeddings).all(axis=1), [1, 0, 1, 0])
    assert scores.embeddings.dtype == np.float32


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


class KilledError(Exception):
    """Stands for a kill, which leaves as little done as this."""


def count_and_stop(model, ledger, forwards):
    """Count the forwards of `model`; instead of one more than `forwards` comes a `KilledError`."""
    seen = []

    def before(*_):
        if len(seen) == forwards:
            raise KilledError
        seen.append(1)

    decoder_of(model).register_forward_pre_hook(before)
    count_forwards(decoder_of(model), ledger)
    return seen


def score_kept(folder, *, forwards=None, samples=None, **changes):
    """Score a toy pool with every batch kept in a shard of its own, or until it is killed.

    Returns the scores, the ledger as the stage writes it, and how many forwards there were.
    """
    torch.set_num_threads(1)
    model, ledger = make_model(), CostLedger()
    loss, kept = ResponseLoss(model, FP32), ScoredBatches(folder, shard_seconds=0.0)
    seen = count_and_stop(model, ledger, forwards)
    settings = {"header": HEADER, "pad_id": 2, "batch_tokens": 100, "depth_fraction": 0.5}
    with ledger.charged_to("offline"):
        scores = score_pool(loss, samples or make_samples(12), **settings | changes, kept=kept)
    ledger.add("offline", kept.sequences, kept.tokens)
    return scores, ledger.as_dict(), len(seen)


def assert_equal_bits(one, other):
    for name in ("loss", "response_loss", "ifd", "embeddings"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_killed_after_any_number_of_batches_scoring_goes_on_to_the_same_bits_and_ledger(
    scored, tmp_path
):
    *_, whole, uncounted = scored
    expected, ledger, batches = score_kept(tmp_path / "whole")
    assert_equal_bits(expected, whole)
    assert ledger == uncounted.as_dict()
    assert batches > 6
    for killed_after in range(batches):
        folder = tmp_path / str(killed_after)
        with pytest.raises(KilledError):
            score_kept(folder, forwards=killed_after)
        scores, spent, forwards = score_kept(folder)
        assert_equal_bits(scores, expected)
        assert spent == ledger
        assert forwards == batches - killed_after


def test_scoring_that_is_killed_again_and_again_ends(tmp_path):
    expected, ledger, batches = score_kept(tmp_path / "whole")
    for _ in range(batches - 1):
        with pytest.raises(KilledError):
            score_kept(tmp_path / "killed", forwards=1)
    scores, spent, forwards = score_kept(tmp_path / "killed")
    assert_equal_bits(scores, expected)
    assert (spent, forwards) == (ledger, 1)


def test_of_a_finished_scoring_nothing_is_forwarded_again(tmp_path):
    expected, ledger, _ = score_kept(tmp_path)
    scores, spent, forwards = score_kept(tmp_path)
    assert_equal_bits(scores, expected)
    assert (spent, forwards) == (ledger, 0)


def test_only_batches_with_the_same_samples_and_settings_are_taken_over(tmp_path):
    _, _, batches = score_kept(tmp_path)
    others = [
        Encoded([*s.input_ids[:-1], 9], s.prompt_start, s.response_start) for s in make_samples(12)
    ]
    assert score_kept(tmp_path, samples=others)[2] == batches
    assert score_kept(tmp_path, pad_id=0)[2] == batches
    with_prompt = score_kept(tmp_path, header=[1, 5, 7])[2]  # of the prompts' pass nothing changes
    assert 0 < with_prompt < batches
    assert score_kept(tmp_path, depth_fraction=1.0)[2] == batches - with_prompt


def test_a_changed_record_costs_the_batches_that_it_is_in(tmp_path):
    samples = make_samples(12)
    _, _, batches = score_kept(tmp_path / "old", samples=samples)
    ids = [*samples[4].input_ids]
    samples[4] = Encoded([*ids[:-1], 9], samples[4].prompt_start, samples[4].response_start)
    expected, _, _ = score_kept(tmp_path / "new", samples=samples)
    scores, _, forwards = score_kept(tmp_path / "old", samples=samples)
    assert_equal_bits(scores, expected)
    assert forwards == 2 < batches


def test_a_damaged_shard_is_scored_again(tmp_path, capsys):
    expected, ledger, _ = score_kept(tmp_path)
    path = sorted(tmp_path.glob("*.npz"))[3]
    path.write_bytes(path.read_bytes()[:-1])
    scores, spent, forwards = score_kept(tmp_path)
    assert_equal_bits(scores, expected)
    assert (spent, forwards) == (ledger, 1)
    assert f"scored batches {path} are damaged" in capsys.readouterr().err


def test_progress_starts_where_scoring_was(tmp_path, monkeypatch):
    from contextlib import contextmanager

    from lead_core import scoring

    shown = []

    @contextmanager
    def progress(total, label, unit, *, start):
        shown.append([label, total, start])
        yield type("Bar", (), {"advance": lambda _, n: shown[-1].append(n)})()

    monkeypatch.setattr(scoring, "progress", progress)
    with pytest.raises(KilledError):
        score_kept(tmp_path, forwards=2)
    (_, total, start, *advanced), killed = shown[0], len(shown)
    assert (killed, start) == (1, 0)
    score_kept(tmp_path)
    (label, same_total, begun, *rest) = shown[1]
    assert (label, same_total, begun) == ("scoring", total, sum(advanced))
    assert begun + sum(rest) == total
    assert shown[2][0] == "scoring responses"
    assert shown[2][2] == 0


def test_a_model_trained_otherwise_takes_nothing_over(tmp_path):
    """Of the passes behind a warm-up: the one before it is of the model as it was loaded."""

    def trained_by(change):
        def warm_up(loss):
            with torch.no_grad():
                next(loss.parameters()).add_(change)

        return warm_up

    def forwards_after(change):
        torch.set_num_threads(1)
        model, kept = make_model(), ScoredBatches(tmp_path)
        loss, ledger = ResponseLoss(model, FP32), CostLedger()
        seen = count_and_stop(model, ledger, None)
        warm_up = trained_by(change)
        with ledger.charged_to("offline"):
            score_pool(
                loss,
                make_samples(12),
                header=HEADER,
                pad_id=2,
                batch_tokens=100,
                depth_fraction=0.5,
                warm_up=lambda _: warm_up(loss),
                kept=kept,
            )
        return len(seen)

    batches = forwards_after(0.25)
    assert forwards_after(0.25) == 0
    assert 0 < forwards_after(0.5) < batches

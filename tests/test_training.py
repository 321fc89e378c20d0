import numpy as np
import pytest
import torch
from conftest import make_model
from test_rounds import make_samples

from lead_core.errors import LeadError
from lead_core.gradients import RoundGradient, RoundGradientMeter, flat
from lead_core.ledger import CostLedger, count_forwards
from lead_core.model import ResolvedRuntime, ResponseLoss, add_adapter, decoder_of
from lead_core.step_result import StepResult
from lead_core.training import (
    OptimizerSettings,
    Trainer,
    blamed_samples,
    check_update,
    explain_skip,
)
from lead_core.utility import GradientSummary


def make_trainer(*, micro_batch_tokens=10_000, loss_mean="sample", max_grad_norm=None, rate=1e-2):
    torch.set_num_threads(1)
    model = add_adapter(
        make_model(), rank=2, alpha=4, dropout=0.0, target_modules="all-linear", seed=0
    )
    with torch.no_grad():  # a fresh adapter's B is zero, which hides half of the gradient
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    loss = ResponseLoss(model, ResolvedRuntime("cpu", 1, "fp32"))
    ledger = CostLedger()
    count_forwards(decoder_of(model), ledger)
    trainer = Trainer(
        loss,
        OptimizerSettings(rate, 0.5, 2, 0.0, max_grad_norm),
        loss_mean=loss_mean,
        micro_batch_tokens=micro_batch_tokens,
        pad_id=2,
    )
    return trainer, ledger


def step(trainer, ledger, samples):
    meter = RoundGradientMeter(trainer.parameters, 1, 1)
    with ledger.charged_to("training"):
        result = trainer.step(samples, meter)
    return result, meter.trace.total


def reference_gradient(samples, loss_mean):
    """The objective written out with the model's own logits, one sample at a time."""
    trainer, _ = make_trainer()
    model = trainer.loss.causal_lm
    with CostLedger().charged_to("training"):
        per_token = []
        for sample in samples:
            ids = torch.tensor([sample.input_ids])
            logits = model.get_base_model().lm_head(
                model.get_base_model().model.forward(ids).last_hidden_state
            )[0]
            targets = ids[0, sample.response_start :]
            predicted = logits[sample.response_start - 1 : -1]
            per_token.append(
                torch.nn.functional.cross_entropy(predicted, targets, reduction="none")
            )
    if loss_mean == "sample":
        objective = torch.stack([losses.mean() for losses in per_token]).mean()
    else:
        objective = torch.cat(per_token).mean()
    objective.backward()
    losses = np.array([losses.mean().item() for losses in per_token])
    return losses, flat([p.grad for p in trainer.parameters])


@pytest.mark.parametrize("loss_mean", ["sample", "token"])
@pytest.mark.parametrize("micro_batch_tokens", [16, 70, 10_000])
def test_losses_and_gradient_do_not_depend_on_how_the_batch_is_cut(loss_mean, micro_batch_tokens):
    samples = make_samples(7)
    trainer, ledger = make_trainer(micro_batch_tokens=micro_batch_tokens, loss_mean=loss_mean)
    result, gradient = step(trainer, ledger, samples)
    losses, expected = reference_gradient(samples, loss_mean)
    np.testing.assert_allclose(result.losses, losses, rtol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    assert ledger.sequences["training"] == 7
    assert ledger.tokens["training"] == sum(len(s.input_ids) for s in samples)


def test_the_gradient_is_read_before_clipping():
    samples = make_samples(4)
    free, ledger = make_trainer()
    _, expected = step(free, ledger, samples)
    clipped, ledger = make_trainer(max_grad_norm=1e-6)
    _, gradient = step(clipped, ledger, samples)
    torch.testing.assert_close(gradient, expected)


def test_the_learning_rate_falls_every_so_many_steps():
    trainer, ledger = make_trainer()
    rates = [step(trainer, ledger, make_samples(2))[0].learning_rate for _ in range(5)]
    assert rates == [1e-2, 1e-2, 5e-3, 5e-3, 2.5e-3]


def test_training_lowers_the_loss_of_what_it_trains_on():
    trainer, ledger = make_trainer(rate=3e-2)
    losses = [step(trainer, ledger, make_samples(4))[0].losses.mean() for _ in range(6)]
    assert losses[-1] < losses[0] - 0.05


def test_a_restored_trainer_goes_on_as_if_nothing_had_happened():
    trainer, ledger = make_trainer()
    for _ in range(3):
        step(trainer, ledger, make_samples(3))
    saved = {name: value.clone() for name, value in trainer.tensors().items()}
    step(trainer, ledger, make_samples(3))
    other, other_ledger = make_trainer()
    other.restore(saved, 3)
    step(other, other_ledger, make_samples(3))
    assert torch.equal(flat(trainer.parameters), flat(other.parameters))
    assert other.learning_rate_at(other.steps_done) == trainer.learning_rate_at(4)


def poisoned(trainer, at):
    """Make the parameter's gradient infinite in the `at`-th backward pass, from 1."""
    calls = iter(range(1, 1000))
    trainer.parameters[0].register_hook(
        lambda gradient: gradient * (float("inf") if next(calls) == at else 1.0)
    )


def test_a_gradient_that_is_not_finite_leaves_model_and_optimizer_as_they_were():
    trainer, ledger = make_trainer(max_grad_norm=1.0)
    poisoned(trainer, at=2)
    step(trainer, ledger, make_samples(3))
    before = trainer.tensors()
    result, total = step(trainer, ledger, make_samples(3))
    after = trainer.tensors()
    assert (result.skipped, result.learning_rate) == ("gradient", 0.0)
    assert np.isfinite(result.losses).all()
    assert not total.any()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert trainer.steps_done == 2
    assert step(trainer, ledger, make_samples(3))[0].skipped is None


def test_a_loss_that_is_not_finite_makes_no_update():
    trainer, ledger = make_trainer()
    before = flat(trainer.parameters)
    with torch.no_grad():
        trainer.parameters[0].fill_(float("nan"))
    result, _ = step(trainer, ledger, make_samples(3))
    assert result.skipped == "loss"
    assert torch.equal(flat(trainer.parameters[1:]), before[trainer.parameters[0].numel() :])


def test_the_mean_gradient_of_a_round_is_over_the_updates_alone():
    samples = make_samples(4)
    alone, ledger = make_trainer()
    _, expected = step(alone, ledger, samples)
    trainer, ledger = make_trainer()
    poisoned(trainer, at=1)
    meter = RoundGradientMeter(trainer.parameters, 2, 1)
    with ledger.charged_to("training"):
        trainer.step(samples, meter)
        trainer.step(samples, meter)
    assert (meter.trace.steps, meter.trace.skipped) == (2, 1)
    torch.testing.assert_close(meter.trace.total, expected)


def test_a_skipped_step_names_its_round_and_the_samples_to_blame():
    ids = np.array(list("abcdefg"))
    step = StepResult(np.array([1.0, np.nan, np.inf, 2, 3, 4, 5]), np.ones(7), 0.0, "loss")
    assert blamed_samples(step, ids) == ["b", "c"]
    assert explain_skip(step, ids, 4) == "round 4: the loss of b, c is not a finite number"
    step = StepResult(np.ones(7), np.ones(7), 0.0, "gradient")  # a sum: nobody can be told apart
    assert explain_skip(step, ids, 4) == (
        "round 4: the gradient of a, b, c, d, e and others is not a finite number"
    )


def test_a_round_that_leads_out_of_the_finite_numbers_is_an_error():
    gradient = RoundGradient(GradientSummary(1.0, np.zeros(2)), np.array([np.inf]))
    with pytest.raises(LeadError, match="round 3: the adapter is no longer made of finite numbers"):
        check_update(gradient, 3)

"""Training against Hugging Face's `Trainer` on a toy model: same losses, exact arithmetic."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import make_model
from test_bench_scoring import make_records

from lead_core.bench.attention import AttentionResult, measure_attention
from lead_core.bench.our_training import OurSide, TrainingSettings
from lead_core.bench.spread import Spread
from lead_core.bench.training import TrainingResult, measure_training
from lead_core.gradients import flat
from lead_core.model import ResolvedRuntime, add_adapter
from lead_core.training import OptimizerSettings

FP32 = ResolvedRuntime("cpu", 1, "fp32")


def settings(max_grad_norm=1.0) -> TrainingSettings:
    return TrainingSettings(
        optimizer=OptimizerSettings(1e-2, 1.0, 1, 0.0, max_grad_norm),
        effective_batch=4,
        micro_batch_tokens=64,
        sketch_size=64,
        pad_id=2,
    )


def make_adapted(attention="eager"):
    torch.set_num_threads(1)
    model = make_model()
    model.set_attn_implementation(attention)
    return add_adapter(model, rank=2, alpha=4, dropout=0.0, target_modules="all-linear", seed=0)


@pytest.mark.parametrize(
    ("precision", "tolerance", "max_grad_norm"), [("fp32", 1e-5, 0.05), ("bf16", 2e-2, None)]
)
def test_both_trainers_see_the_same_losses_step_after_step(
    tiny_tokenizer, precision, tolerance, max_grad_norm
):
    result = measure_training(
        make_adapted,
        tiny_tokenizer,
        make_records(tiny_tokenizer, 12),
        settings(max_grad_norm),
        micro_batches=(2, 4),
        runtime=ResolvedRuntime("cpu", 1, precision),
        repetitions=1,
    )
    assert list(result.seconds) == ["ours", "trainer-2", "trainer-4"]
    assert all(len(losses) == 3 for losses in result.losses.values())
    for side in ("trainer-2", "trainer-4"):
        assert result.loss_difference(side) < tolerance
    # accelerate's state is the process's own: other trainers must still find it as they need it
    assert Accelerator(cpu=True, mixed_precision="no").mixed_precision == "no"


def test_every_repetition_starts_from_the_same_adapters(tiny_tokenizer):
    model, records = make_adapted(), make_records(tiny_tokenizer, 8)
    start = flat([p for p in model.parameters() if p.requires_grad])
    side = OurSide(model, records.samples, settings(), runtime=FP32)
    side.train()
    first = side.losses
    assert not torch.equal(flat([p for p in model.parameters() if p.requires_grad]), start)
    side.train()
    assert side.losses[0] == first[0]


def test_tokens_per_second_and_ratios_are_exact():
    result = TrainingResult(
        samples=4,
        tokens=120,
        effective_batch=4,
        precision="fp32",
        seconds={"ours": (2.0, 3.0, 4.0), "trainer-2": (3.0, 3.0, 6.0)},
        losses={"ours": (1.0, 0.5), "trainer-2": (1.25, 0.5)},
    )
    assert result.tokens_per_second("ours") == Spread(40.0, 30.0, 60.0)
    assert result.speed_up("trainer-2") == Spread(1.5, 1.0, 1.5)
    assert result.loss_difference("trainer-2") == 0.25
    assert [figure.name for figure in result.figures()] == [
        "ours",
        "Trainer, micro-batches of 2",
        "ours over Trainer, micro-batches of 2",
        "ours and Trainer, micro-batches of 2, losses",
    ]


def test_attention_is_measured_with_both_implementations(tiny_tokenizer):
    asked = []

    def make(attention):
        asked.append(attention)
        return make_adapted(attention)

    records = make_records(tiny_tokenizer, 4)
    result = measure_attention(make, records, settings(), runtime=FP32, repetitions=2)
    assert asked == ["eager", "sdpa"] == list(result.seconds)
    assert result.longest == max(len(sample.input_ids) for sample in records.samples)
    exact = AttentionResult(60, 30, {"eager": (2.0, 3.0), "sdpa": (3.0, 6.0)})
    assert exact.speed_up == Spread(1.75, 1.5, 2.0)
    assert np.isclose(exact.tokens_per_second("eager").median, 25.0)

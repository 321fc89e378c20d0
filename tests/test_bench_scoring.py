"""The offline pass against the authors' way, on a toy model: same losses, exact arithmetic."""

import numpy as np
import pytest
import torch
from conftest import make_model
from test_bench_flops import TOY
from test_scoring import direct_loss

from lead_core.bench.authors_scoring import score_as_the_authors
from lead_core.bench.flops import forward_flops
from lead_core.bench.records import BenchRecords
from lead_core.bench.scoring import ScoringResult, measure_scoring
from lead_core.bench.spread import Spread
from lead_core.chat import assistant_header, encode
from lead_core.model import ResolvedRuntime


def make_records(tokenizer, n: int) -> BenchRecords:
    conversations = tuple(
        [
            {"role": "user", "content": f"question {i}" + "?" * (i % 3)},
            {"role": "assistant", "content": f"answer {i * i}"},
        ]
        for i in range(n)
    )
    return BenchRecords(conversations, tuple(encode(tokenizer, m) for m in conversations))


@pytest.mark.parametrize("third_forward", [False, True])
def test_the_authors_way_finds_the_losses_that_full_logits_give(tiny_tokenizer, third_forward):
    torch.set_num_threads(1)
    model, records = make_model(), make_records(tiny_tokenizer, 4)
    header = assistant_header(tiny_tokenizer)
    scores = score_as_the_authors(
        model,
        tiny_tokenizer,
        records.conversations,
        header=header,
        runtime=ResolvedRuntime("cpu", 1, "fp32"),
        third_forward=third_forward,
    )
    for i, sample in enumerate(records.samples):
        ids, start = list(sample.input_ids), sample.response_start
        assert scores.loss[i] == pytest.approx(direct_loss(model, ids, start), rel=1e-5)
        alone = [*header, *ids[start:]]
        assert scores.response_loss[i] == pytest.approx(
            direct_loss(model, alone, len(header)), rel=1e-5
        )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_ways_agree_and_what_is_counted_is_both_forwards(tiny_tokenizer, precision):
    torch.set_num_threads(1)
    records, model = make_records(tiny_tokenizer, 6), make_model()
    forwards = []
    as_released = make_model()
    as_released.register_forward_hook(lambda *_: forwards.append(1))
    result = measure_scoring(
        model,
        tiny_tokenizer,
        records,
        runtime=ResolvedRuntime("cpu", 1, precision),
        batch_tokens=64,
        depth_fraction=0.5,
        roof=1e9,
        repetitions=2,
        as_released=as_released,
    )
    assert len(forwards) == 3 * (1 + 2 * 6)  # a warm-up of one record, then all of them twice
    header = len(assistant_header(tiny_tokenizer))
    expected = 0
    for sample in records.samples:
        length = len(sample.input_ids)
        response = length - sample.response_start
        expected += forward_flops(TOY, length, response)
        expected += forward_flops(TOY, header + response, response)
    assert result.flops == expected
    assert (result.records, result.tokens) == (6, sum(len(s.input_ids) for s in records.samples))
    assert {name: len(seconds) for name, seconds in result.seconds.items()} == {
        "ours": 2,
        "authors": 2,
        "released": 2,
    }
    assert result.released_loss_difference < 1e-5
    if precision == "fp32":
        assert result.loss_difference < 1e-5
        assert result.bf16_loss_difference is None
    else:
        assert result.loss_difference < 0.05
        assert 0 < result.bf16_loss_difference < 0.05
        assert 0 < result.bf16_ifd_difference < 0.05


def test_ratios_and_the_share_of_the_roof_are_exact():
    result = ScoringResult(
        records=12,
        tokens=100,
        precision="bf16",
        flops=600,
        roof=400.0,
        seconds={
            "ours": (2.0, 3.0, 4.0),
            "authors": (8.0, 9.0, 12.0),
            "released": (14.0, 15.0, 32.0),
        },
        loss_difference=0.01,
        released_loss_difference=0.001,
        bf16_loss_difference=0.02,
        bf16_ifd_difference=0.03,
    )
    assert result.samples_per_second("ours") == Spread(4.0, 3.0, 6.0)
    assert result.speed_up("authors") == Spread(3.0, 3.0, 4.0)
    assert result.speed_up("released") == Spread(7.0, 5.0, 8.0)
    assert result.share_of_roof == Spread(50.0, 37.5, 75.0)
    verdicts = {f.name: f.target.is_met(f.value.median) for f in result.figures() if f.target}
    assert verdicts == {
        "ours over the authors'": False,
        "ours, share of matmul roof": False,
        "ours over the authors' as released": True,
    }
    assert np.isclose(result.figures()[-1].value, 0.03)

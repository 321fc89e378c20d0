"""Operation counts, by hand for the toy model and by torch's own counter for the rest."""

from dataclasses import replace

import pytest
import torch
from conftest import make_model
from torch.utils.flop_counter import FlopCounterMode

from lead_core.bench import cost_ratio as curve
from lead_core.bench.cost_model import (
    A100,
    MISTRAL_7B,
    PAPER_LIKE,
    POOLS,
    SMOLLM2_135M,
    Workload,
    cost_table,
    estimate_cost,
    offline_flops,
    scoring_table,
    training_flops,
)
from lead_core.bench.cost_ratio import cost_ratio, ratio_table
from lead_core.bench.flops import ModelShape, forward_flops, shape_of, total_forward_flops
from lead_core.bench.matmul import MatmulResult, measure_matmul
from lead_core.bench.spread import Spread
from lead_core.chat import Encoded
from lead_core.model import add_adapter

# hidden 16, 2 heads of 8 with 1 for keys and values, 32 in between, 2 layers, 259 tokens
TOY = ModelShape(
    matrices=((16, 8, 4), (16, 16, 4), (16, 32, 4), (32, 16, 2)),
    layers=2,
    attention_width=16,
    hidden=16,
    vocabulary=259,
)


def test_the_shape_is_read_off_the_models_own_layers():
    assert shape_of(make_model()) == TOY
    assert TOY.decoder_weights == 2 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32)


def test_adapters_are_part_of_the_decoder():
    adapted = add_adapter(
        make_model(), rank=2, alpha=4, dropout=0.0, target_modules="all-linear", seed=0
    )
    # per layer and rank: q 32, k 24, v 24, o 32, gate 48, up 48, down 48
    assert shape_of(adapted).decoder_weights == TOY.decoder_weights + 2 * 2 * 256


def test_a_forward_is_counted_as_by_hand():
    # weights 2 x 4608 x 10, attention 2 x 2 x 2 layers x 16 x 55 pairs, head 2 x 16 x 259 x 3
    assert forward_flops(TOY, 10, 3) == 92_160 + 7_040 + 24_864
    samples = [Encoded(range(10), 0, 7), Encoded(range(1), 0, 0)]
    assert total_forward_flops(TOY, samples) == 124_064 + (9_216 + 128 + 8_288)


def test_torch_counts_the_same_but_for_the_masked_half_of_attention():
    model, n = make_model(), 12
    model.set_attn_implementation("eager")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.arange(n)[None], attention_mask=torch.ones(1, n, dtype=torch.long))
    masked = 4 * 2 * 16 * (n * n - n * (n + 1) // 2)
    rotary = counter.get_total_flops() - forward_flops(TOY, n, n) - masked
    assert 0 <= rotary <= 2 * 4 * n  # the angles of rotary positions: a product of 4 x 1 by 1 x n


def test_throughput_is_operations_over_the_seconds_of_all_products():
    result = MatmulResult(8, 1, 6_000_000_000, {"fp32": (2.0, 3.0, 1.0)})
    assert result.throughput("fp32") == Spread(3e9, 2e9, 6e9)
    assert [(f.name, f.value.median, f.unit) for f in result.figures()] == [
        ("fp32, 8 rows", 3.0, "GFLOP/s")
    ]


def test_every_product_of_the_model_is_measured_in_both_precisions():
    result = measure_matmul(TOY, rows=8, calls=2, repetitions=3, device="cpu")
    assert result.flops == 2 * 8 * (TOY.decoder_weights + 16 * 259)
    assert {name: len(seconds) for name, seconds in result.seconds.items()} == {
        "fp32": 3,
        "bf16": 3,
    }
    assert min(min(seconds) for seconds in result.seconds.values()) > 0


WORK = Workload(
    tokens=10, response_tokens=3, header_tokens=2, budget_fraction=0.5, rank=2, rounds=3
)


def test_the_cost_model_adds_up_as_by_hand():
    alone = 2 * 4608 * 5 + 2 * 2 * 2 * 16 * 15 + 24_864
    assert offline_flops(TOY, WORK) == 124_064 + alone
    # backwards the same again, attention twice; adapters of 2 x 512 weights three times
    assert training_flops(TOY, WORK) == 2 * 124_064 + 7_040 + 3 * 2 * 1024 * 10
    cost = estimate_cost(TOY, WORK, 100)
    assert cost.iterative_selection == 3 * 100 * 124_064
    assert cost.lead == 100 * offline_flops(TOY, WORK) + 50 * training_flops(TOY, WORK)
    assert cost.iterative == cost.lead + cost.iterative_selection


def test_seconds_and_dollars_follow_from_the_processor():
    assert A100.seconds(312e12 * 0.4 * 60) == pytest.approx(60)
    assert A100.dollars(1800) == pytest.approx(1.0)


def test_the_table_in_the_documentation_is_the_one_that_is_computed(pytestconfig):
    page = (pytestconfig.rootpath / "docs" / "performance.md").read_text()
    assert MISTRAL_7B.decoder_weights + 2 * MISTRAL_7B.head_weights == 7_241_465_856
    assert cost_table(MISTRAL_7B, PAPER_LIKE, A100, POOLS) in page
    assert SMOLLM2_135M.decoder_weights + SMOLLM2_135M.head_weights == 134_479_872
    assert scoring_table(MISTRAL_7B, SMOLLM2_135M, PAPER_LIKE, A100, POOLS) in page


def test_the_reference_takes_longer_with_every_round_and_with_less_training():
    cost = estimate_cost(TOY, WORK, 100)
    assert cost_ratio(TOY, WORK, 100) == cost.iterative / cost.lead
    forward = 124_064
    lead = offline_flops(TOY, WORK) + 0.5 * training_flops(TOY, WORK)
    for rounds in (1, 4):
        ratio = cost_ratio(TOY, replace(WORK, rounds=rounds), 100)
        assert ratio == pytest.approx(1 + rounds * forward / lead)
    table = ratio_table(TOY, WORK, (100, 1000), (1, 4), 50).splitlines()
    assert table[0] == (
        "| pool | 50.0% of it: 1 rounds | 50.0% of it: 4 rounds "
        "| 50 samples: 1 rounds | 50 samples: 4 rounds |"
    )
    share, fixed = table[2].split(" | ")[1:3], table[2].removesuffix(" |").split(" | ")[3:]
    assert share == fixed  # half of 100 is 50
    assert table[3].split(" | ")[1:3] == share
    assert float(table[3].removesuffix(" |").split(" | ")[-1]) > float(fixed[-1])


def test_the_curve_in_the_documentation_is_the_one_that_is_computed(pytestconfig):
    page = (pytestconfig.rootpath / "docs" / "performance.md").read_text()
    assert (
        ratio_table(MISTRAL_7B, PAPER_LIKE, curve.POOLS, curve.ROUNDS, curve.FIXED_BUDGET) in page
    )
    computed = cost_ratio(SMOLLM2_135M, curve.REFERENCE_BENCHMARK, 2000)
    assert f"the same formula says {computed:.1f}" in " ".join(page.split())

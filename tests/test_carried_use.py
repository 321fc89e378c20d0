"""A training that starts from an earlier one: its adapter, its utilities, its use counts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_method_version import PAD, ROOT, RUNTIME, TOY, make_inputs

from flows.stages.train import build_loop, training_limits
from lead_core.carried_use import read_carried, write_utilities
from lead_core.errors import LeadError
from lead_core.loop_state import init_loop
from lead_core.params import effective_params, load_params
from lead_core.rounds import Interrupted
from lead_core.scoring import response_losses
from lead_core.selectors import get_selector


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("toy"))


def loop_of(inputs, folder, selector="lead", *more):
    """Return a toy loop for a budget of 12, its model and its reports."""
    wanted = [*TOY, f"select.selector={selector}", "select.budget_samples=12"]
    wanted += ["select.budget_fraction=null", *more]
    params, _ = effective_params(load_params(ROOT / "params.yaml", wanted))
    whole = get_selector(selector).whole_pool
    loss = inputs.pool.view.loss
    limits = training_limits(params, loss, whole_pool=whole, carried=inputs.carried)
    loop, model, _ = build_loop(params, inputs, RUNTIME, folder, limits)
    reports = []
    return replace(loop, on_round=reports.append), model, reports


@pytest.fixture(scope="module")
def first(inputs, tmp_path_factory):
    """What a training left behind: its folder, its last state, and its losses after it."""
    folder = tmp_path_factory.mktemp("first")
    loop, model, _ = loop_of(inputs, folder / "state")
    last = loop.run()
    model.save_pretrained(folder / "adapter")
    write_utilities(folder, inputs.pool.ids, inputs.pool.view, last.selection)
    return folder, last.selection, losses_of(loop, inputs)


def losses_of(loop, inputs):
    with loop.ledger.charged_to("evaluation"):
        samples = inputs.pool.encoded(range(8))
        return response_losses(loop.trainer.loss, samples, pad_id=PAD, batch_tokens=64)


def continuing(inputs, folder):
    carried = read_carried(folder, inputs.pool.ids, inputs.pool.view.loss)
    return replace(inputs, adapter=folder / "adapter", carried=carried)


def test_utilities_and_uses_come_back_as_they_were_whatever_the_order_of_the_pool(inputs, first):
    folder, selection, _ = first
    ids, loss = np.asarray(list(inputs.pool.ids)), inputs.pool.view.loss
    order = np.random.default_rng(0).permutation(len(ids))[:60]  # and without some of its records
    carried = read_carried(folder, ids[order], loss[order])
    np.testing.assert_array_equal(carried.utility, selection.utility[order])
    np.testing.assert_array_equal(carried.uses, selection.uses[order])
    strangers = read_carried(folder, np.array(["new one", "new two"]), np.array([1.0, np.nan]))
    np.testing.assert_array_equal(strangers.utility, [1.0, np.nan])
    assert strangers.uses.tolist() == [0, 0]


def test_the_state_to_begin_with_has_the_carried_use_and_a_fresh_bandit(inputs, first):
    carried = continuing(inputs, first[0]).carried
    state = init_loop(inputs.pool.view, carried)
    assert state.selection.distinct == carried.count_used(inputs.pool.view.loss) == 12
    assert not state.selection.bandit.log_weights.any()
    assert (state.round, state.visits) == (0, 0)
    state.selection.utility[:] = 0  # what rounds write does not reach what was carried
    assert carried.utility.any()


def test_the_model_begins_as_the_earlier_training_left_it(inputs, first, tmp_path):
    folder, _, losses = first
    loop, _, _ = loop_of(continuing(inputs, folder), tmp_path)
    np.testing.assert_array_equal(losses_of(loop, inputs), losses)
    assert all(p.requires_grad for p in loop.trainer.parameters)


@pytest.mark.parametrize("selector", ["lead", "informative", "random"])
def test_the_budget_is_of_new_samples_and_no_use_is_forgotten(inputs, first, tmp_path, selector):
    """Also over three trainings, the last of which sees the first only through the second."""
    given, used = continuing(inputs, first[0]), 12
    for night in ("second", "third"):
        before = given.carried.uses.copy()
        loop, model, reports = loop_of(given, tmp_path / night / "state", selector)
        last = loop.run()
        picks = [sample for report in reports for sample in report.samples]
        assert last.selection.distinct == used + 12
        gained = last.selection.uses - before
        assert gained.sum() == len(picks) == last.visits
        assert last.selection.uses.max() <= 2  # of TOY: select.max_uses
        counted = dict(zip(inputs.pool.ids, last.selection.uses, strict=True))
        assert {s["id"]: s["uses"] for s in picks} == {s["id"]: counted[s["id"]] for s in picks}
        model.save_pretrained(tmp_path / night / "adapter")
        write_utilities(tmp_path / night, inputs.pool.ids, inputs.pool.view, last.selection)
        given, used = continuing(inputs, tmp_path / night), used + 12
        np.testing.assert_array_equal(given.carried.uses, last.selection.uses)


def test_full_is_an_epoch_over_the_whole_pool_from_any_start(inputs, first, tmp_path):
    loop, _, reports = loop_of(continuing(inputs, first[0]), tmp_path, "full")
    assert loop.run().visits == 72
    assert sum(len(report.samples) for report in reports) == 72


def test_a_stopped_training_goes_on_with_the_carried_use(inputs, first, tmp_path):
    given = continuing(inputs, first[0])
    whole, model, _ = loop_of(given, tmp_path / "whole")
    expected = whole.run()
    calls = iter(range(100))
    part, _, _ = loop_of(given, tmp_path / "part")
    with pytest.raises(Interrupted):
        replace(part, stop_requested=lambda: next(calls) >= 3).run()
    again, after, _ = loop_of(given, tmp_path / "part")
    np.testing.assert_array_equal(again.run().selection.utility, expected.selection.utility)
    for one, other in zip(model.parameters(), after.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.lora.rank=3", r"train\.lora\.rank must be that of .* adapter, 2, got 3; set it so"),
        ("train.lora.alpha=8", r"train\.lora\.alpha must be that of .*, 4\.0, got 8\.0; set"),
        ("train.lora.dropout=0.5", r"train\.lora\.dropout must be that of .*, 0\.0, got 0\.5; set"),
        (
            "train.lora.target_modules=[q_proj]",
            r"target_modules must be that of .*down_proj, .*, \.\.\. \(14 modules\), got q_proj; set",
        ),
    ],
)
def test_an_adapter_of_other_settings_is_one_line(inputs, first, tmp_path, change, said):
    with pytest.raises(LeadError, match=said):
        loop_of(continuing(inputs, first[0]), tmp_path, "lead", change)

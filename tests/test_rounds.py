"""The loop on a tiny model: the record can be recomputed by hand, forwards are what was trained."""

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_model, make_tokenizer

from lead_core.chat import encode
from lead_core.checkpoint import CheckpointStore
from lead_core.errors import LeadError
from lead_core.ledger import CostLedger, count_forwards
from lead_core.model import ResolvedRuntime, ResponseLoss, add_adapter, decoder_of
from lead_core.rounds import Interrupted, Limits, Pool, RoundLoop, UtilitySettings
from lead_core.scoring import response_losses
from lead_core.selectors import SELECTORS, PoolView, SelectionSettings, get_selector
from lead_core.training import OptimizerSettings, Trainer

UTILITY = UtilitySettings(
    smoothing=0.1,
    loss_change="displacement",
    charge_whole_round=False,
    drift=False,
    drift_prior_samples=8.0,
    sketch_size=256,
    snapshots=16,
)


def make_samples(n: int):
    tokenizer = make_tokenizer()
    words = ["alpha", "beta", "gamma", "delta", "omega"]
    return [
        encode(
            tokenizer,
            [
                {"role": "user", "content": f"say {words[i % 5]} {i}"},
                {"role": "assistant", "content": f"{words[(i * 3) % 5]} {i * i}"},
            ],
        )
        for i in range(n)
    ]


def make_loop(folder, *, selector="lead", n=48, seed=0, dropout=0.0, stop=lambda: False, **changes):
    samples = make_samples(n)
    model = make_model()
    runtime = ResolvedRuntime("cpu", 1, "fp32")
    torch.set_num_threads(1)
    peft = add_adapter(
        model, rank=2, alpha=4, dropout=dropout, target_modules="all-linear", seed=seed
    )
    loss = ResponseLoss(peft, runtime)
    ledger = CostLedger()
    count_forwards(decoder_of(peft), ledger)
    trainer = Trainer(
        loss,
        OptimizerSettings(5e-3, 0.9, 2, 0.0, 1.0),
        loss_mean="sample",
        micro_batch_tokens=128,
        pad_id=2,
    )
    rng = np.random.default_rng(0)
    with ledger.charged_to("offline"):
        offline = response_losses(loss, samples, pad_id=2, batch_tokens=256)
    difficulty = rng.integers(0, 3, n).astype(np.int32)
    difficulty[:4] = -1
    pool = Pool(
        ids=np.array([f"{i:016x}" for i in range(n)]),
        sources=np.array(["even" if i % 2 else "odd" for i in range(n)]),
        view=PoolView(difficulty, rng.integers(0, 2, n).astype(np.int32), offline, np.full(n, 0.5)),
        encoded=lambda indices: [samples[i] for i in indices],
    )
    reports = []
    fields = {
        "trainer": trainer,
        "pool": pool,
        "selector": get_selector(selector),
        "settings": SelectionSettings(0.1, 0.5, 0.3, 4, 3),
        "utility": UTILITY,
        "limits": Limits(distinct=24, visits=30, rounds=None),
        "effective_batch": 4,
        "seed": seed,
        "ledger": ledger,
        "store": CheckpointStore(folder),
        "checkpoint_every": 1,
        "measure": lambda chosen: response_losses(loss, chosen, pad_id=2, batch_tokens=256),
        "monitor": lambda number: None,
        "on_start": lambda: None,
        "on_round": reports.append,
        "stop_requested": stop,
        **changes,
    }
    return RoundLoop(**fields), reports


def adapter_of(loop):
    return [p.detach().clone() for p in loop.trainer.parameters]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", sorted(set(SELECTORS) - {"iterative"}))
def test_after_the_offline_pass_only_trained_samples_are_forwarded(tmp_path, name):
    loop, _ = make_loop(tmp_path, selector=name)
    offline = loop.ledger.as_dict()["offline"]["sequences"]
    state = loop.run()
    ledger = loop.ledger.as_dict()
    assert ledger["offline"]["sequences"] == offline == 48
    assert ledger["selection"] == {"sequences": 0, "tokens": 0}
    assert ledger["training"]["sequences"] == state.visits == state.selection.uses.sum()


def test_the_iterative_reference_pays_a_full_pass_per_round(tmp_path):
    loop, reports = make_loop(tmp_path, selector="iterative", limits=Limits(24, 24, 3))
    loop.run()
    assert len(reports) == 3
    # 44 records have an arm; none is used up within 3 rounds of max_uses 3
    assert loop.ledger.as_dict()["selection"]["sequences"] == 3 * 44


def test_the_iterative_reference_sees_the_true_loss(tmp_path):
    loop, reports = make_loop(tmp_path, selector="iterative")
    loop.run()
    for report in reports:
        for row in report.samples:
            if (
                row["step"] == report.samples[0]["step"]
            ):  # first step of the round: nothing moved yet
                assert row["utility_before"] == pytest.approx(row["loss_seen"], abs=1e-5)


def test_a_forward_that_no_column_accounts_for_is_an_error(tmp_path):
    loop, _ = make_loop(tmp_path)
    with pytest.raises(RuntimeError, match="no ledger column"):
        loop.measure(make_samples(1))


@pytest.mark.parametrize("loss_change", ["displacement", "paper", "none"])
def test_every_decision_can_be_recomputed_from_the_record(tmp_path, loss_change):
    loop, reports = make_loop(tmp_path, utility=replace(UTILITY, loss_change=loss_change))
    loop.run()
    utility = dict(zip(loop.pool.ids, loop.pool.view.loss, strict=True))
    uses: dict[str, int] = {}
    log_weights = np.zeros(3)
    rewards: list[float] = []
    for report in reports:
        row = report.round
        weights = np.where(np.array(row["eligible"]) > 0, np.exp(log_weights), 0)
        k = np.count_nonzero(row["eligible"])
        expected = 0.9 * weights / weights.sum() + 0.1 / k * (weights > 0)
        np.testing.assert_allclose(row["probabilities"], expected, rtol=1e-9)
        drops = []
        for sample in report.samples:
            assert sample["difficulty"] == row["arm"]
            assert sample["utility_before"] == utility[sample["id"]]
            after = (
                0.9 * (sample["loss_seen"] + sample["loss_change"]) + 0.1 * sample["utility_before"]
            )
            assert sample["utility_after"] == pytest.approx(after, rel=1e-12)
            drops.append(sample["utility_before"] - sample["utility_after"])
            utility[sample["id"]] = sample["utility_after"]
            uses[sample["id"]] = uses.get(sample["id"], 0) + 1
            assert sample["uses"] == uses[sample["id"]]
        assert row["reward_raw"] == pytest.approx(np.mean(drops), rel=1e-12)
        distinct = set(rewards)
        if len(distinct) < 2:
            assert row["reward"] == 0
        else:
            low, high = min(distinct), max(distinct)
            share = 2 * (row["reward_raw"] - low) / (high - low) - 1
            assert row["reward"] == pytest.approx(np.clip(share, -1, 1))
        rewards.append(row["reward_raw"])
        log_weights[row["arm"]] += 0.5 / k * row["reward"] / row["probabilities"][row["arm"]]
    assert sum(uses.values()) == sum(row.round["n_selected"] for row in reports)


def test_gradient_figures_in_the_record_chain_from_round_to_round(tmp_path):
    loop, reports = make_loop(tmp_path, utility=replace(UTILITY, loss_change="paper"))
    loop.run()
    last_of_arm: dict[int, float] = {}
    for number, report in enumerate(reports):
        row = report.round
        if number:
            assert row["grad_sq_norm_prev"] == reports[number - 1].round["grad_sq_norm"]
            assert row["grad_sq_norm_arm"] == last_of_arm.get(row["arm"])
        if row["beta"] not in (None, 0.0):
            d_k, d_p, c, b = (
                row[k] for k in ("grad_sq_norm_arm", "grad_sq_norm_prev", "cos", "beta")
            )
            bracket = b**2 * d_k + (1 - b) ** 2 * d_p + 2 * b * (1 - b) * np.sqrt(d_k * d_p) * c
            assert row["loss_change"] == pytest.approx(-row["eta"] * bracket)
        last_of_arm[row["arm"]] = row["grad_sq_norm"]
    assert any(report.round["beta"] not in (None, 0.0) for report in reports)


def test_the_loss_seen_is_the_loss_before_the_update(tmp_path):
    loop, reports = make_loop(tmp_path, limits=Limits(24, 4, None))
    loop.run()
    for row in reports[0].samples:
        assert row["loss_seen"] == pytest.approx(row["utility_before"], abs=1e-5)


@pytest.mark.parametrize("selector", ["lead", "stratified"])
def test_stopping_at_any_step_and_rerunning_gives_the_same_bits(tmp_path, selector):
    whole, expected = make_loop(tmp_path / "whole", selector=selector, dropout=0.2)
    whole.run()
    reference = adapter_of(whole)
    for stop_at in (1, 3, 6):
        folder = tmp_path / f"stopped-{stop_at}"
        calls = iter(range(10_000))
        loop, _ = make_loop(
            folder,
            selector=selector,
            dropout=0.2,
            stop=lambda calls=calls, stop_at=stop_at: next(calls) == stop_at,
        )
        with pytest.raises(Interrupted):
            loop.run()
        again, reports = make_loop(folder, selector=selector, dropout=0.2)
        torch.manual_seed(12345)  # a resumed run must not depend on what happened before it
        again.run()
        assert same(adapter_of(again), reference)
        assert json.dumps([r.round for r in reports]) == json.dumps([r.round for r in expected])
        assert [r.samples for r in reports] == [r.samples for r in expected]


def test_work_lost_to_a_stop_is_charged_as_replayed_and_to_nothing_else(tmp_path):
    calls = iter(range(10_000))
    loop, _ = make_loop(
        tmp_path, stop=lambda: next(calls) == 1, settings=SelectionSettings(0.1, 0.5, 0.3, 8, 3)
    )
    with pytest.raises(Interrupted):
        loop.run()  # the first step of a round of two is lost
    again, _ = make_loop(tmp_path, settings=SelectionSettings(0.1, 0.5, 0.3, 8, 3))
    state = again.run()
    ledger = again.ledger.as_dict()
    assert ledger["replayed"]["sequences"] == 4
    assert ledger["training"]["sequences"] == state.visits


def test_lost_work_is_counted_once_however_often_training_is_stopped(tmp_path):
    settings = SelectionSettings(0.1, 0.5, 0.3, 8, 3)
    for _ in range(2):
        calls = iter(range(10_000))
        loop, _ = make_loop(tmp_path, stop=lambda calls=calls: next(calls) == 1, settings=settings)
        with pytest.raises(Interrupted):
            loop.run()
    again, _ = make_loop(tmp_path, settings=settings)
    again.run()
    assert again.ledger.as_dict()["replayed"]["sequences"] == 8


def test_a_lost_full_pass_of_the_iterative_reference_is_charged_as_replayed(tmp_path):
    calls = iter(range(10_000))
    loop, _ = make_loop(tmp_path, selector="iterative", stop=lambda: next(calls) == 0)
    with pytest.raises(Interrupted):
        loop.run()
    again, _ = make_loop(tmp_path, selector="iterative")
    again.run()
    assert again.ledger.as_dict()["replayed"]["sequences"] == 44


def test_being_stopped_saves_every_finished_round_whatever_the_checkpoint_interval(tmp_path):
    calls = iter(range(10_000))
    loop, reports = make_loop(tmp_path, checkpoint_every=50, stop=lambda: next(calls) == 5)
    with pytest.raises(Interrupted):
        loop.run()
    assert CheckpointStore(tmp_path).load_latest().number == len(reports) > 1


def test_an_update_that_is_no_number_ends_training_with_its_round(tmp_path):
    loop, _ = make_loop(tmp_path, limits=Limits(24, 4, None))
    loop.trainer.parameters[0].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(LeadError, match="round 1: the adapter is no longer made of finite numbers"):
        loop.run()


def test_a_pool_without_an_arm_trains_nothing(tmp_path):
    loop, _ = make_loop(tmp_path)
    view = replace(loop.pool.view, difficulty=np.full(48, -1, dtype=np.int32))
    state = replace(loop, pool=replace(loop.pool, view=view)).run()
    assert state.round == 0


@pytest.mark.parametrize("killed_at", range(3, 60, 7))
def test_a_kill_at_any_file_operation_and_a_rerun_give_the_same_bits(tmp_path, killed_at):
    """A child process dies at its n-th write, rename or removal; then again a little later."""
    whole, expected = make_loop(tmp_path / "whole", dropout=0.2)
    whole.run()
    for operation in (killed_at, killed_at + 5):
        child = os.fork()
        if child == 0:
            _die_at(operation)
            make_loop(tmp_path / "killed", dropout=0.2)[0].run()
            os._exit(0)
        os.waitpid(child, 0)
    again, reports = make_loop(tmp_path / "killed", dropout=0.2)
    again.run()
    assert same(adapter_of(again), adapter_of(whole))
    assert [r.round for r in reports] == [r.round for r in expected]
    assert [r.samples for r in reports] == [r.samples for r in expected]
    assert not list((tmp_path / "killed").glob(".*"))


def _die_at(operation: int) -> None:
    """Let this process end, as by SIGKILL, at its n-th change to the file system."""
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        writes = (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        if writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"):
            seen += 1
            if seen == operation:
                os._exit(9)

    sys.addaudithook(watch)


def test_a_finished_run_is_not_trained_again(tmp_path):
    loop, expected = make_loop(tmp_path)
    loop.run()
    reference = adapter_of(loop)
    again, reports = make_loop(tmp_path)
    again.run()
    assert same(adapter_of(again), reference)
    assert [r.round for r in reports] == [r.round for r in expected]
    assert again.ledger.as_dict() == loop.ledger.as_dict()


def test_checkpoints_may_be_rarer_than_rounds(tmp_path):
    whole, _ = make_loop(tmp_path / "whole")
    whole.run()
    calls = iter(range(10_000))
    loop, _ = make_loop(tmp_path / "rare", checkpoint_every=3, stop=lambda: next(calls) == 5)
    with pytest.raises(Interrupted):
        loop.run()
    again, _ = make_loop(tmp_path / "rare", checkpoint_every=3)
    again.run()
    assert same(adapter_of(again), adapter_of(whole))


def test_drift_moves_only_the_untrained_neighbours(tmp_path):
    loop, reports = make_loop(
        tmp_path, utility=replace(UTILITY, drift=True), limits=Limits(24, 4, None)
    )
    state = loop.run()
    moved = state.selection.utility != loop.pool.view.loss
    trained = state.selection.uses > 0
    cells = {(row["difficulty"], row["task"]) for row in reports[0].samples}
    for i in np.flatnonzero(moved & ~trained):
        assert (loop.pool.view.difficulty[i], loop.pool.view.task[i]) in cells
    assert (moved & ~trained).any()


def test_visits_beyond_the_distinct_budget_repeat_earlier_picks(tmp_path):
    loop, _ = make_loop(tmp_path, selector="random", limits=Limits(8, 20, None))
    state = loop.run()
    assert np.count_nonzero(state.selection.uses) == 8
    assert state.visits == 20


def test_without_a_visit_limit_training_ends_with_the_distinct_budget(tmp_path):
    loop, _ = make_loop(tmp_path, limits=Limits(10, None, None))
    state = loop.run()
    assert np.count_nonzero(state.selection.uses) == 10

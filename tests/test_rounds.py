"""The loop on a tiny model: the record can be recomputed by hand, forwards are what was trained."""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model, make_tokenizer

from lead_core.chat import encode
from lead_core.checkpoint import CheckpointStore
from lead_core.errors import LeadError
from lead_core.ledger import CostLedger, count_forwards
from lead_core.model import ResolvedRuntime, ResponseLoss, add_adapter, decoder_of
from lead_core.round_rule import Limits, UtilitySettings
from lead_core.rounds import Interrupted, Pool, RoundLoop
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
        view=PoolView(
            difficulty,
            rng.integers(0, 2, n).astype(np.int32),
            offline,
            np.full(n, 0.5),
            np.array([len(s.input_ids) - s.response_start for s in samples], np.int32),
        ),
        encoded=lambda indices: [samples[i] for i in indices],
    )
    reports = []
    fields = {
        "trainer": trainer,
        "pool": pool,
        "selector": get_selector(selector),
        "settings": SelectionSettings(0.1, 0.5, 0.3, 4, 3, 0.5),
        "utility": UTILITY,
        "limits": Limits(distinct=24, visits=30, rounds=None),
        "effective_batch": 4,
        "max_skipped_steps": 0,
        "seed": seed,
        "ledger": ledger,
        "store": CheckpointStore(folder),
        "checkpoint_every_rounds": 1,
        "checkpoint_every_steps": None,
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


def stopping_at(call: int):
    """Return a `stop_requested` that says yes at its `call`-th call (from 1) and never again."""
    calls = iter(range(1, 10_000))
    return lambda: next(calls) == call


def losing_power_at(loop, batch: int):
    """Return `loop` that dies, nothing saved, when it fetches its `batch`-th batch (from 1)."""
    calls = iter(range(1, 10_000))

    def encoded(indices):
        if next(calls) == batch:
            raise PowerCut
        return loop.pool.encoded(indices)

    return replace(loop, pool=replace(loop.pool, encoded=encoded))


def one_piece_of_work(loop):
    """Return `loop` that asks to stop once it has forwarded anything: one step, or one full pass."""
    before = {}
    return replace(
        loop,
        on_start=lambda: before.update(loop.ledger.sequences),
        stop_requested=lambda: loop.ledger.sequences != before,
    )


class PowerCut(Exception):
    """What a kill looks like from inside: nothing after it is done."""


LONG_ROUNDS = {
    "settings": SelectionSettings(
        0.1, 0.5, 0.3, 14, 3, 0.5
    ),  # rounds of 4, 3 and 2 steps, one partial
    "utility": replace(UTILITY, snapshots=2, drift=True),
    "dropout": 0.2,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The loop and reports of a run of LONG_ROUNDS that nothing disturbed."""
    loop, reports = make_loop(tmp_path_factory.mktemp("undisturbed"), **LONG_ROUNDS)
    loop.run()
    assert [report.round["steps"] for report in reports] == [4, 3, 2]
    return loop, reports


def assert_same_training(loop, reports, whole, expected):
    assert same(adapter_of(loop), adapter_of(whole))
    assert json.dumps([r.round for r in reports]) == json.dumps([r.round for r in expected])
    assert [r.samples for r in reports] == [r.samples for r in expected]


def without_replayed(loop):
    return {k: v for k, v in loop.ledger.as_dict().items() if k != "replayed"}


@pytest.mark.parametrize("stop_at", range(1, 13))  # 3 rounds, each begun, of 9 steps in all
def test_stopping_anywhere_and_rerunning_gives_the_same_bits_and_repeats_nothing(
    tmp_path, undisturbed, stop_at
):
    whole, expected = undisturbed
    folder = tmp_path / "stopped"
    loop, _ = make_loop(folder, stop=stopping_at(stop_at), **LONG_ROUNDS)
    with pytest.raises(Interrupted):
        loop.run()
    again, reports = make_loop(folder, **LONG_ROUNDS)
    torch.manual_seed(12345)  # a resumed run must not depend on what happened before it
    again.run()
    assert_same_training(again, reports, whole, expected)
    assert again.ledger.as_dict() == whole.ledger.as_dict()
    assert loop.trainer.steps_done + again.trainer.steps_done >= 9


@pytest.mark.parametrize(
    ("selector", "loss_change"),
    [
        ("lead", "displacement"),
        ("lead", "paper"),
        ("stratified", "displacement"),
        ("iterative", "displacement"),
    ],
)
def test_training_stopped_after_every_step_ends_with_the_same_bits(tmp_path, selector, loss_change):
    utility = replace(LONG_ROUNDS["utility"], loss_change=loss_change)
    options = {**LONG_ROUNDS, "selector": selector, "utility": utility}
    whole, expected = make_loop(tmp_path / "whole", **options)
    whole.run()
    stops = 0
    while True:
        loop, reports = make_loop(tmp_path / "stopped", **options)
        torch.manual_seed(stops)
        try:
            one_piece_of_work(loop).run()
            break
        except Interrupted:
            stops += 1
    assert stops == (11 if selector == "iterative" else 8)  # 9 steps; 3 full passes
    assert_same_training(loop, reports, whole, expected)
    assert loop.ledger.as_dict() == whole.ledger.as_dict()


def test_a_full_pass_is_not_repeated_after_a_stop_within_its_round(tmp_path):
    loop, _ = make_loop(tmp_path, selector="iterative", stop=stopping_at(2), **LONG_ROUNDS)
    with pytest.raises(Interrupted):
        loop.run()
    assert loop.trainer.steps_done == 0
    again, reports = make_loop(tmp_path, selector="iterative", **LONG_ROUNDS)
    again.run()
    ledger = again.ledger.as_dict()
    assert ledger["selection"]["sequences"] == len(reports) * 44
    assert ledger["replayed"] == {"sequences": 0, "tokens": 0}


def test_a_full_pass_that_finds_nothing_to_train_on_is_paid_once(tmp_path):
    """The distinct budget is spent and all its samples are used up: the others may not come."""
    options = {
        "selector": "iterative",
        "limits": Limits(4, 100, None),
        "checkpoint_every_rounds": 9,
    }
    loop, _ = make_loop(tmp_path, **options)
    assert loop.run().visits == 12  # 4 samples, 3 uses each
    again, _ = make_loop(tmp_path, **options)
    again.run()
    assert again.ledger.as_dict() == loop.ledger.as_dict()


@pytest.mark.parametrize(("every", "lost"), [(None, 12), (1, 0), (2, 4), (3, 0), (4, 12)])
def test_a_kill_loses_the_steps_since_the_last_checkpoint_and_no_more(
    tmp_path, undisturbed, every, lost
):
    options = {**LONG_ROUNDS, "checkpoint_every_steps": every}
    whole, expected = undisturbed
    with pytest.raises(PowerCut):
        losing_power_at(make_loop(tmp_path, **options)[0], batch=4).run()
    again, reports = make_loop(tmp_path, **options)
    again.run()
    assert again.ledger.as_dict()["replayed"]["sequences"] == lost
    assert without_replayed(again) == without_replayed(whole)
    assert_same_training(again, reports, whole, expected)


def test_lost_work_is_counted_once_however_often_training_is_cut(tmp_path):
    for _ in range(2):
        with pytest.raises(PowerCut):  # the first step of a round of four is lost
            losing_power_at(make_loop(tmp_path, **LONG_ROUNDS)[0], batch=2).run()
    again, _ = make_loop(tmp_path, **LONG_ROUNDS)
    state = again.run()
    ledger = again.ledger.as_dict()
    assert ledger["replayed"]["sequences"] == 8
    assert ledger["training"]["sequences"] == state.visits


def test_a_lost_full_pass_of_the_iterative_reference_is_charged_as_replayed(tmp_path):
    loop, _ = make_loop(tmp_path, selector="iterative")
    with pytest.raises(PowerCut):
        losing_power_at(loop, batch=2).run()  # the first batch is the whole pool
    again, _ = make_loop(tmp_path, selector="iterative")
    again.run()
    assert again.ledger.as_dict()["replayed"]["sequences"] == 44


def test_a_checkpoint_inside_the_round_keeps_a_full_pass_from_being_lost(tmp_path):
    options = {**LONG_ROUNDS, "selector": "iterative", "checkpoint_every_steps": 2}
    with pytest.raises(PowerCut):  # saved: the pass and one step; lost: the second step
        losing_power_at(make_loop(tmp_path, **options)[0], batch=4).run()
    again, reports = make_loop(tmp_path, **options)
    again.run()
    ledger = again.ledger.as_dict()
    assert ledger["replayed"]["sequences"] == 4
    assert ledger["selection"]["sequences"] == len(reports) * 44


@pytest.mark.parametrize(
    ("every_rounds", "every_steps", "expected"),
    [
        (1, None, [4, 7, 9]),  # the rounds' ends
        (2, None, [7, 9]),  # the second round's end, and that of training
        (9, 3, [3, 6, 9]),
        (1, 3, [3, 4, 7, 9]),  # counted from the last checkpoint, whatever it was for
        (9, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_checkpoints_come_by_rounds_and_by_steps(tmp_path, every_rounds, every_steps, expected):
    seen = set()

    def look():
        seen.update(int(path.name[-6:]) for path in tmp_path.glob("checkpoint-*"))
        return False

    loop, _ = make_loop(
        tmp_path,
        stop=look,
        checkpoint_every_rounds=every_rounds,
        checkpoint_every_steps=every_steps,
        **LONG_ROUNDS,
    )
    loop.run()
    look()
    assert sorted(seen) == expected


def test_a_damaged_checkpoint_inside_a_round_falls_back_to_the_one_before(
    tmp_path, undisturbed, capsys
):
    options = {**LONG_ROUNDS, "checkpoint_every_steps": 1}
    whole, expected = undisturbed
    folder = tmp_path / "damaged"
    with pytest.raises(Interrupted):
        make_loop(folder, stop=stopping_at(5), **options)[0].run()
    path = folder / "checkpoint-000003" / "arrays.npz"
    path.write_bytes(path.read_bytes()[:-1])
    again, reports = make_loop(folder, **options)
    again.run()
    assert "checkpoint-000003 is damaged" in capsys.readouterr().err
    assert_same_training(again, reports, whole, expected)
    assert again.ledger.as_dict()["replayed"]["sequences"] == 4
    assert without_replayed(again) == without_replayed(whole)


def test_being_stopped_saves_every_step_whatever_the_checkpoint_interval(tmp_path):
    loop, reports = make_loop(
        tmp_path, checkpoint_every_rounds=50, stop=stopping_at(8), **LONG_ROUNDS
    )
    with pytest.raises(Interrupted):
        loop.run()
    saved = CheckpointStore(tmp_path).load_latest()
    assert saved.number == loop.trainer.steps_done == 5
    assert saved.values["round"] == len(reports) == 1


def without_loss(loop, victim):
    """Return `loop` whose model finds no finite loss for the sample `victim`."""
    ids = loop.pool.encoded([victim])[0].input_ids

    def spoil(_module, inputs, losses):
        [batch] = inputs
        rows = [n for n, row in enumerate(batch.input_ids.tolist()) if row[: len(ids)] == ids]
        return losses.masked_fill(torch.isin(batch.rows, torch.tensor(rows)), float("nan"))

    loop.trainer.loss.register_forward_hook(spoil)
    return loop


def poisoned(loop, *, at):
    """Return `loop` whose gradient is infinite in the step whose 0-based number is in `at`."""
    loop.trainer.parameters[0].register_hook(
        lambda gradient: gradient * (float("inf") if loop.trainer.steps_done in at else 1.0)
    )
    return loop


BAD_STEPS = (1, 2, 6)


@pytest.fixture(scope="module")
def with_skips(tmp_path_factory):
    """The loop and reports of a run of LONG_ROUNDS in which three steps had no finite gradient."""
    loop, reports = make_loop(tmp_path_factory.mktemp("skips"), max_skipped_steps=3, **LONG_ROUNDS)
    state = poisoned(loop, at=BAD_STEPS).run()
    assert state.skipped_steps == 3
    return loop, reports


def test_skipped_steps_are_named_counted_and_cost_their_forwards(with_skips, undisturbed):
    loop, reports = with_skips
    rows = {row["id"]: row for report in reports for row in report.samples}
    told = [(r.round["round"], skip) for r in reports for skip in r.round["skipped"]]
    assert len(told) == 3
    assert {skip["not_finite"] for _, skip in told} == {"gradient"}
    assert all(set(skip["ids"]) <= set(rows) for _, skip in told)
    assert loop.ledger.sequences["training"] == sum(len(r.samples) for r in reports)
    assert loop.trainer.steps_done == sum(r.round["steps"] for r in reports)
    first, plain = reports[0].round, undisturbed[1][0].round
    assert first["eta"] < plain["eta"]  # the first round drew the same samples, and moved less


@pytest.mark.parametrize("stop_at", range(1, 13, 2))
def test_a_run_with_skipped_steps_resumes_to_the_same_bits(tmp_path, with_skips, stop_at):
    whole, expected = with_skips
    options = {**LONG_ROUNDS, "max_skipped_steps": 3}
    loop, _ = make_loop(tmp_path, stop=stopping_at(stop_at), **options)
    with pytest.raises(Interrupted):
        poisoned(loop, at=BAD_STEPS).run()
    again, reports = make_loop(tmp_path, **options)
    poisoned(again, at=BAD_STEPS).run()
    assert_same_training(again, reports, whole, expected)
    assert again.ledger.as_dict() == whole.ledger.as_dict()


def test_one_skipped_step_more_than_allowed_ends_training_with_round_and_samples(tmp_path, capsys):
    loop, _ = make_loop(tmp_path, max_skipped_steps=2, **LONG_ROUNDS)
    with pytest.raises(LeadError) as error:
        poisoned(loop, at=BAD_STEPS).run()
    assert re.fullmatch(
        r"round 2: the gradient of [0-9a-f, ]+ is not a finite number, and no more than 2 steps may "
        r"be skipped for that \(train\.max_skipped_steps\); lower train\.learning_rate, or look at "
        r"these records in the pool",
        str(error.value),
    )
    assert "step skipped (2 of at most 2)" in capsys.readouterr().err


def test_a_sample_without_a_loss_keeps_its_utility_and_never_comes_again(tmp_path):
    plain, reports = make_loop(tmp_path / "plain", selector="random")
    plain.run()
    victim = int(reports[0].samples[0]["id"], 16)
    loop, reports = make_loop(tmp_path / "bad", selector="random", max_skipped_steps=1)
    state = without_loss(loop, victim).run()
    [row] = [s for r in reports for s in r.samples if int(s["id"], 16) == victim]
    assert np.isnan(row["loss_seen"])
    assert row["uses"] == 1  # what it was trained on, not what keeps it out
    assert row["utility_after"] == row["utility_before"]
    assert state.selection.uses[victim] == loop.settings.max_uses
    assert np.isfinite(state.selection.utility).all()


def test_a_round_of_skipped_steps_alone_changes_nothing_but_counts(tmp_path):
    loop, reports = make_loop(tmp_path, limits=Limits(24, 8, None), max_skipped_steps=1)
    before = adapter_of(loop)
    poisoned(loop, at={0}).run()
    first, second = (report.round for report in reports)
    assert (first["grad_sq_norm"], first["eta"], first["loss_change"]) == (0.0, 0.0, 0.0)
    assert second["grad_sq_norm"] > 0
    assert second["grad_sq_norm_prev"] is None  # the first one left no gradient behind
    assert not same(adapter_of(loop), before)


def test_a_pool_without_an_arm_trains_nothing(tmp_path):
    loop, _ = make_loop(tmp_path)
    view = replace(loop.pool.view, difficulty=np.full(48, -1, dtype=np.int32))
    state = replace(loop, pool=replace(loop.pool, view=view)).run()
    assert state.round == 0


@pytest.mark.parametrize(
    ("every_steps", "killed_at"),  # a whole run changes files 69 times, or 159 times
    [*((None, n) for n in range(3, 69, 8)), *((1, n) for n in range(3, 159, 12))],
)
def test_a_kill_at_any_file_operation_and_a_rerun_give_the_same_bits(
    tmp_path, undisturbed, killed_at, every_steps
):
    """A child process dies at its n-th write, rename or removal; then again a little later.

    Of a line that it was about to append it leaves the first half behind.
    """
    options = {**LONG_ROUNDS, "checkpoint_every_steps": every_steps}
    whole, expected = undisturbed
    for operation in (killed_at, killed_at + 5):
        child = os.fork()
        if child == 0:
            _die_at(operation)
            make_loop(tmp_path / "killed", **options)[0].run()
            os._exit(0)
        os.waitpid(child, 0)
    again, reports = make_loop(tmp_path / "killed", **options)
    again.run()
    assert_same_training(again, reports, whole, expected)
    assert without_replayed(again) == without_replayed(whole)
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
                if event == "open" and "a" in arguments[1]:
                    with Path(arguments[0]).open("ab") as log:
                        log.write(b'{"attempt": 1, "wo')
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

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lead_core.bandit import BanditState
from lead_core.errors import LeadError
from lead_core.params import flatten, load_params, with_fixed
from lead_core.selectors import (
    SELECTORS,
    Picks,
    PoolView,
    Quota,
    SelectionSettings,
    Selector,
    get_selector,
    on_any_scores,
)
from lead_core.selectors.contract import (
    init_selection,
    largest_remainder,
    record_use,
    top_by,
)
from lead_core.selectors.eligible import eligible_samples, least_used, top_eligible

ROOT = Path(__file__).parents[1]
SETTINGS = SelectionSettings(
    exploration=0.1,
    step_size=0.1,
    round_fraction=0.015,
    min_round=4,
    max_uses=2,
    cluster_size_power=0.5,
)


def make_pool(seed: int = 0, n: int = 40, arms: int = 3, tasks: int = 3) -> PoolView:
    rng = np.random.default_rng(seed)
    ifd = rng.uniform(0.3, 1.1, n)
    difficulty = np.where(ifd < 1, np.minimum((ifd * arms).astype(np.int32), arms - 1), -1)
    return PoolView(
        difficulty.astype(np.int32),
        rng.integers(0, tasks, n).astype(np.int32),
        rng.uniform(0.5, 4, n),
        ifd,
        rng.integers(1, 9, n).astype(np.int32),
    )


def play(selector, pool, quota, rounds=100, seed=0, settings=SETTINGS):
    """Run a selector without a model: a trained sample's utility falls by a tenth."""
    rng = np.random.default_rng(seed)
    state, history, visits = init_selection(pool), [], 0
    for _ in range(rounds):
        left = Quota(quota.visits - visits, quota.distinct - state.distinct)
        if left.visits <= 0:
            break
        picks = selector.pick(pool, state, settings, left, rng)
        if not len(picks.indices):
            break
        history.append((picks, replace(state, uses=state.uses.copy())))
        visits += len(picks.indices)
        state = record_use(pool, state, picks.indices, state.utility[picks.indices] * 0.9)
    return state, history


@pytest.mark.parametrize("name", sorted(SELECTORS))
@given(seed=st.integers(0, 10_000), visits=st.integers(1, 90), distinct=st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_every_selector_keeps_to_uses_budget_and_candidates(name, seed, visits, distinct):
    pool = make_pool(seed)
    state, history = play(get_selector(name), pool, Quota(visits, distinct), seed=seed)
    assert state.uses.max() <= SETTINGS.max_uses
    assert np.count_nonzero(state.uses) <= distinct
    assert state.uses.sum() <= visits
    for picks, before in history:
        assert len(np.unique(picks.indices)) == len(picks.indices)
        assert (before.uses[picks.indices] < SETTINGS.max_uses).all()
        if picks.arm is not None:
            assert (pool.difficulty[picks.indices] == picks.arm).all()
            assert picks.probabilities.sum() == pytest.approx(1)
            assert (picks.probabilities[picks.eligible == 0] == 0).all()
            assert picks.eligible[picks.arm] >= len(picks.indices)


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_every_selector_spends_all_visits_when_it_can(name):
    pool = make_pool(n=200)
    state, _ = play(get_selector(name), pool, Quota(30, 20))
    assert state.uses.sum() == 30
    assert np.count_nonzero(state.uses) <= 20


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_every_selector_repeats_itself_with_the_same_seed(name):
    pool = make_pool(n=200)
    first = play(get_selector(name), pool, Quota(40, 40), seed=7)[1]
    second = play(get_selector(name), pool, Quota(40, 40), seed=7)[1]
    for (a, _), (b, _) in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_an_empty_pool_gives_no_picks(name):
    no_ints, no_floats = np.empty(0, np.int32), np.empty(0)
    empty = PoolView(no_ints, no_ints, no_floats, no_floats, no_ints)
    picks = get_selector(name).pick(
        empty, init_selection(empty), SETTINGS, Quota(5, 5), np.random.default_rng(0)
    )
    assert len(picks.indices) == 0


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_what_a_selector_fixes_is_in_params_yaml_and_valid_there(name):
    params = load_params(ROOT / "params.yaml", [f"select.selector={name}"])
    fixes = get_selector(name).fixes
    assert "select.selector" not in fixes
    effective = flatten(with_fixed(params, fixes))
    assert effective == {**flatten(params), **fixes}


def test_lead_paper_fixes_the_whole_published_rule_and_nothing_of_the_experiment():
    sections = {name.partition(".")[0] for name in get_selector("lead-paper").fixes}
    assert sections == {"select", "bandit", "utility"}
    assert not {name for name in get_selector("lead-paper").fixes if "budget" in name}
    fixes = get_selector("lead-paper").fixes
    assert fixes["bandit.step_size"] == fixes["bandit.exploration"]


def test_lead_without_one_part_differs_from_lead_in_that_part_alone():
    lead = get_selector("lead")
    parts = {
        "lead-no-bandit": {"learns"},
        "lead-no-task": {"by_task"},
        "lead-no-smoothing": {"fixes"},
        "lead-no-loss-change": {"fixes"},
        "iterative": {"exact_utilities", "starts_from_losses"},
    }
    for name, expected in parts.items():
        other = get_selector(name)
        differing = {
            f.name for f in fields(lead) if getattr(lead, f.name) != getattr(other, f.name)
        }
        assert differing == {"name"} | expected
    assert get_selector("lead-no-smoothing").fixes == {"utility.smoothing": 0.0}
    assert get_selector("lead-no-loss-change").fixes == {"utility.loss_change": "none"}


def test_rules_that_rank_by_utility_or_loss_from_the_start_are_for_the_models_own_losses_alone():
    """`iterative` measures them before its first round, too."""
    assert set(SELECTORS) - set(on_any_scores()) == {
        *("lead", "lead-paper", "lead-no-bandit", "lead-no-task"),
        *("lead-no-smoothing", "lead-no-loss-change", "idu", "loss"),
    }


def test_the_page_of_selectors_names_each_with_what_it_fixes():
    page = (ROOT / "docs/selectors.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert sorted(rows) == sorted(SELECTORS)
    for name, row in rows.items():
        for key, value in get_selector(name).fixes.items():
            assert f"`{key}` {value}" in row, name
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in SELECTORS)


def test_a_selector_of_ones_own_says_how_to_pick_and_has_no_bandit_by_default():
    @dataclass(frozen=True)
    class First(Selector):
        def pick(self, pool, state, settings, quota, rng):
            every = eligible_samples(quota, settings.max_uses, set_aside=True)
            least = least_used(pool, state, every)
            return Picks(top_eligible(pool, state, least, -np.arange(6.0), quota.visits))

    pool, first = make_pool(n=6), First("first")
    state, history = play(first, pool, Quota(8, 6))
    assert state.uses.tolist() == [2, 2, 1, 1, 1, 1]
    assert first.learn(state, history[0][0], 1.0, SETTINGS) is state.bandit
    assert (first.reads_scores, first.reads_utilities, first.fixes) == (True, False, {})
    with pytest.raises(TypeError, match=r"abstract method '?pick"):
        Selector("none")


def test_an_unknown_selector_is_named_with_the_known_ones():
    with pytest.raises(LeadError, match=r"must be one of .*random.*got 'best'"):
        get_selector("best")


def small_pool() -> PoolView:
    """One arm, two task clusters of 4 and 2 records."""
    return PoolView(
        np.zeros(6, np.int32),
        np.array([0, 0, 0, 0, 1, 1], np.int32),
        np.array([1.0, 4.0, 2.0, 3.0, 9.0, 8.0]),
        np.full(6, 0.5),
        np.ones(6, np.int32),
    )


def test_lead_splits_a_round_over_task_clusters_and_takes_the_highest_utilities():
    # n = 3 over eligible 4 and 2: shares 2 and 1
    pool, rules = small_pool(), SelectionSettings(0.1, 0.1, 0.015, 3, 4, 0.5)
    picks = get_selector("lead").pick(
        pool, init_selection(pool), rules, Quota(9, 9), np.random.default_rng(0)
    )
    assert picks.indices.tolist() == [1, 3, 4]


def test_lead_without_the_task_level_takes_the_highest_utilities_of_the_arm():
    pool, rules = small_pool(), SelectionSettings(0.1, 0.1, 0.015, 3, 4, 0.5)
    picks = get_selector("lead-no-task").pick(
        pool, init_selection(pool), rules, Quota(9, 9), np.random.default_rng(0)
    )
    assert picks.indices.tolist() == [4, 5, 1]


def test_a_round_is_the_larger_of_its_floor_and_its_share_of_the_arm():
    zeros, ones = np.zeros(1000, np.int32), np.ones(1000)
    pool = PoolView(zeros, zeros, ones, ones, zeros)
    rng = np.random.default_rng(0)
    state = init_selection(pool)
    lead = get_selector("lead")
    wide = SelectionSettings(0.1, 0.1, 0.0151, 4, 4, 0.5)
    assert len(lead.pick(pool, state, wide, Quota(99, 99), rng).indices) == 16  # ceil(15.1)
    floor = SelectionSettings(0.1, 0.1, 0.0151, 20, 4, 0.5)
    assert len(lead.pick(pool, state, floor, Quota(99, 99), rng).indices) == 20
    assert len(lead.pick(pool, state, floor, Quota(99, 7), rng).indices) == 7


def test_the_bandit_learns_only_from_the_drawn_arm_and_the_ablation_never_does():
    pool = make_pool()
    state = init_selection(pool)
    for name, learns in (("lead", True), ("lead-no-bandit", False), ("random", False)):
        selector = get_selector(name)
        picks = selector.pick(pool, state, SETTINGS, Quota(9, 9), np.random.default_rng(0))
        bandit = selector.learn(state, picks, 1.0, SETTINGS)
        assert (bandit.log_weights.tolist() != state.bandit.log_weights.tolist()) is learns


def test_without_bandit_arms_are_drawn_uniformly_whatever_the_weights():
    pool = make_pool()
    state = init_selection(pool)
    heavy = BanditState(np.array([50.0, 0.0, 0.0]))
    state = replace(state, bandit=heavy)
    picks = get_selector("lead-no-bandit").pick(
        pool, state, SETTINGS, Quota(9, 9), np.random.default_rng(0)
    )
    present = picks.eligible > 0
    np.testing.assert_allclose(picks.probabilities[present], 1 / present.sum())


def test_random_ifd_and_lead_leave_set_aside_records_alone_and_random_does_not():
    pool = make_pool(n=60)
    aside = pool.difficulty < 0
    for name, touches in (
        ("random", True),
        ("stratified", True),
        ("random-ifd", False),
        ("lead", False),
    ):
        uses = play(get_selector(name), pool, Quota(60, 60))[0].uses
        assert bool(uses[aside].any()) is touches


def test_stratified_covers_every_cell_in_proportion():
    n = 400
    pool = PoolView(
        np.repeat([0, 1], n // 2).astype(np.int32),
        np.tile([0, 0, 0, 1], n // 4).astype(np.int32),
        np.ones(n),
        np.full(n, 0.5),
        np.ones(n, np.int32),
    )
    rules = SelectionSettings(0.1, 0.1, 0.015, 16, 4, 0.5)
    state, _ = play(get_selector("stratified"), pool, Quota(160, 160), settings=rules)
    used = state.uses > 0
    for difficulty, task, share in ((0, 0, 60), (0, 1, 20), (1, 0, 60), (1, 1, 20)):
        assert abs(used[(pool.difficulty == difficulty) & (pool.task == task)].sum() - share) <= 4


def test_a_stratified_batch_expects_the_exact_proportion_of_every_cell():
    sizes = np.array([300, 40, 30, 20, 16, 12, 10, 8])
    n = int(sizes.sum())
    pool = PoolView(
        np.zeros(n, np.int32),
        np.repeat(np.arange(8), sizes).astype(np.int32),
        np.ones(n),
        np.ones(n),
        np.ones(n, np.int32),
    )
    rules = SelectionSettings(0.1, 0.1, 0.015, 16, 4, 0.5)
    counts = np.zeros(8)
    for seed in range(400):
        picks = get_selector("stratified").pick(
            pool, init_selection(pool), rules, Quota(99, 99), np.random.default_rng(seed)
        )
        counts += np.bincount(pool.task[picks.indices], minlength=8)
    expected = 16 * sizes / n
    # A cell's count in a batch is its proportion rounded up or down: its variance is at most 1/4.
    np.testing.assert_allclose(counts / 400, expected, atol=4 * 0.5 / np.sqrt(400))


def test_static_rankings_take_each_sample_once_before_repeating():
    pool = small_pool()
    rules = SelectionSettings(0.1, 0.1, 0.015, 2, 4, 0.5)
    history = play(get_selector("loss"), pool, Quota(6, 4), settings=rules)[1]
    assert [picks.indices.tolist() for picks, _ in history] == [[4, 5], [1, 3], [4, 5]]


def test_idu_may_take_the_same_sample_again_while_its_utility_leads():
    pool = small_pool()
    rules = SelectionSettings(0.1, 0.1, 0.015, 2, 2, 0.5)
    history = play(get_selector("idu"), pool, Quota(6, 6), settings=rules)[1]
    assert [picks.indices.tolist() for picks, _ in history] == [[4, 5], [4, 5], [1, 3]]


def test_ties_are_broken_by_position():
    assert top_by(np.array([1.0, 2.0, 2.0, 1.0]), np.array([7, 9, 4, 2]), 3).tolist() == [4, 9, 2]


def test_largest_remainder_by_hand():
    # 10 over 5, 3, 1: 5.56, 3.33, 1.11 capped at the counts by proportion of 9: n = 7: 3.89 2.33 .78
    assert largest_remainder(np.array([5, 3, 1]), 7).tolist() == [4, 2, 1]
    assert largest_remainder(np.array([2, 2, 2]), 4).tolist() == [2, 1, 1]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.data())
def test_largest_remainder_splits_exactly_and_within_the_groups(counts, data):
    counts = np.array(counts)
    n = data.draw(st.integers(0, int(counts.sum())))
    shares = largest_remainder(counts, n)
    assert shares.sum() == n
    assert (shares <= counts).all()
    assert (abs(shares - counts * n / max(counts.sum(), 1)) < 1).all()


def test_splitting_more_than_there_is_is_an_error():
    with pytest.raises(ValueError, match="cannot split 4"):
        largest_remainder(np.array([1, 2]), 4)

"""Which prompts share a prefix: by hand, and against every way to cut them into groups."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lead_core.evaluation_prefixes import (
    GROUP_COST,
    LEAST_SHARED,
    common_length,
    group_by_prefix,
    saved_tokens,
    shared_by_all,
)

EXAMPLES = tuple(range(600))


def saved(sequences, groups):
    return sum(saved_tokens(group.shared, len(group.members)) for group in groups)


def test_common_length_ends_at_the_first_difference_or_the_shorter_end():
    assert common_length([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_length((1, 2), (1, 2, 3)) == 2
    assert common_length([1], [2]) == common_length([], [1]) == 0


def test_questions_behind_the_same_examples_are_one_group():
    questions = [[*EXAMPLES, 700 + i, 0] for i in range(4)]
    [group] = group_by_prefix(questions)
    assert (sorted(group.members), group.shared) == ([0, 1, 2, 3], 600)
    assert saved_tokens(600, 4) == 3 * 600 - GROUP_COST


def test_two_subjects_are_two_groups_and_what_is_like_no_other_stays_alone():
    subjects = [[[s, *EXAMPLES, 700 + i] for i in range(3)] for s in (1, 2)]
    sequences = [subjects[0][0], [9, 9], subjects[1][0], *subjects[0][1:], *subjects[1][1:]]
    groups = {(group.members, group.shared) for group in group_by_prefix(sequences)}
    assert groups == {((1,), 0), ((0, 3, 4), 601), ((2, 5, 6), 601)}


def test_choices_of_a_long_question_share_it_rather_than_the_examples_of_all():
    short = [[*EXAMPLES[:40], 700 + q, *range(800, 1300), c] for q in (0, 1) for c in (0, 1)]
    assert sorted((g.members, g.shared) for g in group_by_prefix(short)) == [
        ((0, 1), 541),
        ((2, 3), 541),
    ]
    many = [[*EXAMPLES, 700 + q, *range(800, 810), c] for q in (0, 1) for c in (0, 1)]
    assert [(g.members, g.shared) for g in group_by_prefix(many)] == [((0, 1, 2, 3), 600)]


def test_a_short_prefix_and_a_small_saving_are_not_worth_a_forward():
    assert saved_tokens(LEAST_SHARED - 1, 1000) == 0
    assert saved_tokens(GROUP_COST, 2) == 0
    assert saved_tokens(GROUP_COST + 1, 2) == 1
    pair = [[*range(GROUP_COST), i] for i in (500, 501)]
    assert [(g.members, g.shared) for g in group_by_prefix(pair)] == [((0, 1), 0)]
    assert shared_by_all(pair) == 0


def test_what_all_begin_with_is_found_from_any_order():
    prompts = [[*EXAMPLES, *rest] for rest in ([7, 1], [7, 2, 2], [7], [7, 1, 9])]
    assert shared_by_all(prompts) == 601
    assert shared_by_all([*prompts, [1]]) == 0
    assert shared_by_all(prompts[:1]) == 0


def test_deeply_nested_prefixes_need_no_deep_recursion():
    chain = [list(range(n)) for n in range(1, 1500)]
    groups = group_by_prefix(chain)
    assert sorted(i for group in groups for i in group.members) == list(range(len(chain)))


@given(
    st.lists(
        st.lists(st.sampled_from([0, 1]), max_size=5).map(
            lambda cut: [b for b in cut for _ in range(40)]
        ),
        min_size=1,
        max_size=7,
    )
)
def test_no_other_groups_save_more(sequences):
    groups = group_by_prefix(sequences)
    assert sorted(i for group in groups for i in group.members) == list(range(len(sequences)))
    for group in groups:
        first = sequences[group.members[0]][: group.shared]
        assert len(first) == group.shared
        assert all(sequences[i][: group.shared] == first for i in group.members)
    ordered = sorted(sequences)
    cuts = range(1, len(ordered))
    best = 0
    for size in range(len(ordered)):
        for chosen in combinations(cuts, size):
            parts = [ordered[a:b] for a, b in pairwise([0, *chosen, len(ordered)])]
            best = max(
                best,
                sum(saved_tokens(common_length(part[0], part[-1]), len(part)) for part in parts),
            )
    assert saved(sequences, groups) == best


@pytest.mark.parametrize("sequences", [[[1, 2]], [[], []]])
def test_nothing_to_share_is_one_group_that_shares_nothing(sequences):
    assert [(g.members, g.shared) for g in group_by_prefix(sequences)] == [
        (tuple(range(len(sequences))), 0)
    ]

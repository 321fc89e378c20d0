import numpy as np
import pytest

from lead_core.reward import RewardRange, raw_reward, rescale_reward, update_range


def test_the_raw_reward_is_the_mean_drop_of_utility():
    assert raw_reward(np.array([2.0, 3.0]), np.array([1.5, 3.5])) == 0.0
    assert raw_reward(np.array([2.0, 3.0]), np.array([1.0, 2.5])) == 0.75


def test_falling_utilities_are_rewarded_and_rising_ones_are_punished():
    earlier = RewardRange(-1.0, 1.0)
    fell = raw_reward(np.array([2.0]), np.array([1.5]))
    rose = raw_reward(np.array([2.0]), np.array([2.5]))
    assert rescale_reward(earlier, fell) == 0.5
    assert rescale_reward(earlier, rose) == -0.5


def test_a_reward_is_rescaled_by_the_range_of_earlier_rounds_only():
    # range [0, 4]: 3 lies at 2 * 3/4 - 1
    assert rescale_reward(RewardRange(0.0, 4.0), 3.0) == 0.5
    assert rescale_reward(RewardRange(0.0, 4.0), 9.0) == 1.0
    assert rescale_reward(RewardRange(0.0, 4.0), -9.0) == -1.0


@pytest.mark.parametrize("earlier", [RewardRange(), RewardRange(2.0, 2.0)])
def test_the_reward_is_zero_until_two_distinct_earlier_values_exist(earlier):
    assert rescale_reward(earlier, 5.0) == 0.0


def test_the_range_takes_in_every_reward():
    seen = RewardRange()
    for raw in (0.5, -0.25, 0.75):
        seen = update_range(seen, raw)
    assert seen == RewardRange(-0.25, 0.75)

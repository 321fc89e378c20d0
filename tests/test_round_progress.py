"""A round under way comes back from a checkpoint on disk as it was."""

import numpy as np
import pytest
import torch

from lead_core.checkpoint import Checkpoint, CheckpointStore
from lead_core.gradients import GradientTrace
from lead_core.round_progress import (
    PackedState,
    RoundProgress,
    begin_progress,
    pack_progress,
    unpack_progress,
)
from lead_core.selectors import Picks
from lead_core.step_result import StepResult

INDICES = np.array([7, 2, 9, 4, 1])
BY_ARM = Picks(INDICES, 1, np.array([0.25, 0.75]), np.array([0.0, 1.5]), np.array([3, 8]))
BY_RANK = Picks(INDICES)
STEPS = (
    StepResult(np.array([1.5, 0.1]), np.array([12, 30]), 2e-4),
    StepResult(np.array([0.3, np.nan]), np.array([8, 9]), 0.0, "loss"),
)
TRACE = GradientTrace(torch.tensor([0.1, -3.0]), (torch.ones(2), torch.tensor([0.9, 1.2])), 2, 1)


def through_disk(progress: RoundProgress, folder) -> RoundProgress:
    """Save `progress` beside other arrays and tensors; return what is read back."""
    packed = pack_progress(progress)
    others = {"utility": np.zeros(3)}, {"parameter/a": torch.zeros(2)}
    CheckpointStore(folder).save(
        Checkpoint(1, packed.values, packed.arrays | others[0], packed.tensors | others[1])
    )
    saved = CheckpointStore(folder).load_latest()
    return unpack_progress(PackedState(saved.values, saved.arrays, saved.tensors), "cpu")


def assert_same(value, expected) -> None:
    """Compare dataclasses, tuples, arrays and tensors to the bit and the type."""
    assert type(value) is type(expected)
    if isinstance(expected, tuple):
        assert len(value) == len(expected)
        for one, other in zip(value, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(value, expected)
    elif hasattr(expected, "__dataclass_fields__"):
        for name in expected.__dataclass_fields__:
            assert_same(getattr(value, name), getattr(expected, name))
    else:
        assert value == expected


@pytest.mark.parametrize("picks", [BY_ARM, BY_RANK], ids=["by arm", "without arms"])
@pytest.mark.parametrize(
    "taken", [((), GradientTrace()), (STEPS, TRACE)], ids=["before its first step", "inside"]
)
def test_a_round_under_way_comes_back_from_disk_as_it_was(tmp_path, picks, taken):
    progress = RoundProgress(picks, *taken)
    assert_same(through_disk(progress, tmp_path), progress)


def test_a_round_is_complete_when_all_its_samples_were_trained_on():
    last = StepResult(np.array([0.7]), np.array([5]), 1.8e-4)  # a partial batch
    progress = RoundProgress(BY_RANK, STEPS, TRACE)
    assert (progress.samples_done, progress.complete) == (4, False)
    progress = RoundProgress(BY_RANK, (*STEPS, last), TRACE)
    assert (progress.samples_done, progress.complete) == (5, True)


def test_a_round_begins_with_its_picks_shuffled_by_the_given_stream():
    progress = begin_progress(BY_ARM, np.random.default_rng(3))
    expected = np.random.default_rng(3).permutation(INDICES)
    np.testing.assert_array_equal(progress.picks.indices, expected)
    assert progress.picks.arm == BY_ARM.arm
    assert progress.samples_done == 0

from lead_core.training_state import (
    claim_state,
    code_hash,
    drop_finished_scores,
    drop_finished_states,
    mark_finished,
    scores_folder,
    state_folder,
)


def test_finished_states_go_and_unfinished_or_claimed_ones_stay(tmp_path):
    done, claimed, running = (state_folder(tmp_path, key * 64) for key in "abc")
    for folder in (done, claimed, running):
        folder.mkdir(parents=True)
    mark_finished(done)
    mark_finished(claimed)
    claim_state(claimed)
    drop_finished_states(tmp_path)
    assert (done.exists(), claimed.exists(), running.exists()) == (False, True, True)


def test_finished_scorings_go_and_no_training_with_them(tmp_path):
    done, running = (scores_folder(tmp_path, key * 64) for key in "ab")
    training = state_folder(tmp_path, "a" * 64)
    for folder in (done, running, training):
        folder.mkdir(parents=True)
    mark_finished(done)
    mark_finished(training)
    drop_finished_scores(tmp_path)
    assert (done.exists(), running.exists(), training.exists()) == (False, True, True)


def test_a_state_that_is_not_there_yet_can_be_claimed(tmp_path):
    claim_state(state_folder(tmp_path, "a" * 64))
    assert not list(tmp_path.iterdir())


def test_a_workspace_without_states_is_fine(tmp_path):
    drop_finished_states(tmp_path)
    drop_finished_scores(tmp_path)


def test_the_code_hash_is_the_same_twice():
    assert code_hash() == code_hash()

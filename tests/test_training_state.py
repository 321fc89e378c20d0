from lead_core.training_state import code_hash, drop_finished_states, mark_finished, state_folder


def test_finished_states_go_and_unfinished_ones_stay(tmp_path):
    done, kept, running = (state_folder(tmp_path, key * 64) for key in "abc")
    for folder in (done, kept, running):
        folder.mkdir(parents=True)
    mark_finished(done)
    mark_finished(kept)
    drop_finished_states(tmp_path, keep=kept)
    assert (done.exists(), kept.exists(), running.exists()) == (False, True, True)


def test_a_workspace_without_states_is_fine(tmp_path):
    drop_finished_states(tmp_path)


def test_the_code_hash_is_the_same_twice():
    assert code_hash() == code_hash()

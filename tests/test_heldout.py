import pytest
import torch
from conftest import make_model
from test_pool import pairs, prepared

from lead_core.errors import LeadError
from lead_core.heldout import heldout_frame
from lead_core.model import ResolvedRuntime, ResponseLoss
from lead_core.pool import open_heldout
from lead_core.scoring import response_losses

RUNTIME = ResolvedRuntime("cpu", 1, "fp32")


@pytest.fixture
def heldout(tmp_path, tiny_tokenizer):
    prepared(tmp_path, tiny_tokenizer, {"a": pairs(20), "b": pairs(20, 50)}, heldout_per_source=3)
    return open_heldout(tmp_path / "pool")


def test_losses_are_those_of_the_stored_tokens_and_their_cost_is_counted(heldout):
    model = make_model()
    frame, cost = heldout_frame(model, heldout, runtime=RUNTIME, pad_id=2, batch_size=4)
    samples = heldout.encoded(range(len(heldout)))
    expected = response_losses(ResponseLoss(model, RUNTIME), samples, pad_id=2, batch_tokens=10**6)
    assert frame["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-6)
    assert sorted(frame["source"]) == ["a"] * 3 + ["b"] * 3
    assert cost == {"sequences": 6, "tokens": sum(len(s.input_ids) for s in samples)}


def test_the_count_leaves_the_model_as_it_was(heldout):
    model = make_model()
    heldout_frame(model, heldout, runtime=RUNTIME, pad_id=2, batch_size=4)
    model(input_ids=torch.tensor([[1, 4, 5]]))  # a forward that nobody charges
    _, cost = heldout_frame(model, heldout, runtime=RUNTIME, pad_id=2, batch_size=4)
    assert cost["sequences"] == 6


def test_a_loss_that_is_no_number_names_its_record(heldout):
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(
        LeadError, match=rf"of 6 held-out records .*\(the first: {heldout.ids[0]}\)"
    ):
        heldout_frame(model, heldout, runtime=RUNTIME, pad_id=2, batch_size=4)

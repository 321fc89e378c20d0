"""Held-out losses of one model, without lm-eval around them: what a comparison's cells measure.

The same records, tokens and forward as the task `lead_heldout` (evaluation.py); a test compares them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lead_core.errors import LeadError
from lead_core.ledger import CostLedger, count_forwards
from lead_core.model import ResolvedRuntime, ResponseLoss, decoder_of
from lead_core.pool import Pool
from lead_core.scoring import response_losses


def heldout_frame(
    model: Any, heldout: Pool, *, runtime: ResolvedRuntime, pad_id: int, batch_size: int
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return `id`, `source` and `loss` (nats per response token) of every held-out record; its cost.

    The cost: `sequences` and `tokens` forwarded, counted on the model itself. Raises LeadError when a
    loss is no finite number.
    """
    samples = heldout.encoded(range(len(heldout)))
    longest = max(len(sample.input_ids) for sample in samples)
    loss, ledger = ResponseLoss(model, runtime).eval(), CostLedger()
    handle = count_forwards(decoder_of(model), ledger)
    with ledger.charged_to("evaluation"):
        losses = response_losses(loss, samples, pad_id=pad_id, batch_tokens=batch_size * longest)
    handle.remove()
    bad = heldout.ids[~np.isfinite(losses)]
    if len(bad):
        raise LeadError(
            f"the loss of {len(bad)} held-out records is not a finite number (the first: {bad[0]}); "
            "lower train.learning_rate in params.yaml"
        )
    frame = pd.DataFrame({"id": heldout.ids, "source": heldout.sources, "loss": losses})
    return frame, ledger.as_dict()["evaluation"]

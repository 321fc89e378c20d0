"""Held-out losses of one model, without lm-eval around them: what a comparison's cells measure.

The same records, tokens and forward as the task `lead_heldout` (evaluation.py); a test compares them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lead_core.errors import LeadError
from lead_core.model import ResolvedRuntime, ResponseLoss
from lead_core.pool import Pool
from lead_core.scoring import response_losses


def heldout_frame(
    model: Any, heldout: Pool, *, runtime: ResolvedRuntime, pad_id: int, batch_size: int
) -> pd.DataFrame:
    """Return `source` and `loss` (nats per response token) of every held-out record.

    Raises LeadError when nothing is held out or a loss is no finite number.
    """
    if not len(heldout):
        raise LeadError(
            "a comparison needs held-out records; set data.heldout_per_source to at least 1"
        )
    samples = heldout.encoded(range(len(heldout)))
    longest = max(len(sample.input_ids) for sample in samples)
    losses = response_losses(
        ResponseLoss(model, runtime), samples, pad_id=pad_id, batch_tokens=batch_size * longest
    )
    bad = heldout.ids[~np.isfinite(losses)]
    if len(bad):
        raise LeadError(
            f"the loss of {len(bad)} held-out records is not a finite number (the first: {bad[0]}); "
            "lower train.learning_rate in params.yaml"
        )
    return pd.DataFrame({"source": heldout.sources, "loss": losses})

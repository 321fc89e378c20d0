"""The pool's held-out records as documents of our own tasks, and their losses as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lead_core.chat import encode, render
from lead_core.errors import LeadError
from lead_core.pool import open_heldout


def heldout_documents(pool: Path, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Yield the held-out records as documents, in the order of their ids.

    The text is only for lm-eval's logs; what is scored are the tokens, checked against the tokenizer.
    """
    records = open_heldout(pool)
    if not len(records):
        raise LeadError(
            "the held-out tasks have nothing to evaluate: no records are held out; set "
            "data.heldout_per_source in params.yaml to at least 1, or take them out of evaluate.tasks"
        )
    for index, (name, sample) in enumerate(
        zip(records.ids, records.encoded(range(len(records))), strict=True)
    ):
        messages = records.messages(index)
        prompt, response = render(tokenizer, messages)
        expected = encode(tokenizer, messages)
        ids = [int(token) for token in sample.input_ids]
        if (ids, sample.response_start) != (expected.input_ids, expected.response_start):
            raise LeadError(
                f"{pool}: record {name} was tokenised by another model's tokenizer; "
                "run `dvc repro prepare`"
            )
        yield {
            "id": str(name),
            "source": str(records.sources[index]),
            "prompt": prompt,
            "response": response,
            "input_ids": ids,
            "response_start": sample.response_start,
            "response_bytes": len(messages[-1]["content"].encode()),
        }


def heldout_losses(
    base: Sequence[Mapping[str, Any]], tuned: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """Return both losses of every held-out record from lm-eval's samples, in the order of ids.

    Raises LeadError for a loss that is no finite number.
    """
    documents = [sample["doc"] for sample in base]
    frame = pd.DataFrame(
        {
            "id": [document["id"] for document in documents],
            "source": [document["source"] for document in documents],
            "base_loss": [sample["loss"] for sample in base],
            "tuned_loss": [sample["loss"] for sample in tuned],
            "response_tokens": np.array(
                [len(d["input_ids"]) - d["response_start"] for d in documents], dtype=np.int32
            ),
        }
    )
    for column, advice in (
        ("base_loss", "check model.name"),
        ("tuned_loss", "lower train.learning_rate"),
    ):
        bad = frame.loc[~np.isfinite(frame[column]), "id"]
        if len(bad):
            raise LeadError(
                f"the {column.replace('_', ' ')} of {len(bad)} held-out records is not a finite "
                f"number (the first: {bad.iloc[0]}); {advice} in params.yaml"
            )
    return frame

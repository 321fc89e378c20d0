"""The pool in the tokens of another model than the one it was prepared for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lead_core.chat import Encoded, EncodingError, Message, encode
from lead_core.progress import progress
from lead_core.scoring import NOT_SCORED_TEMPLATE, NOT_SCORED_TOO_LONG


def encode_for_scoring(
    tokenizer: Any,
    conversations: Iterable[list[Message]],
    *,
    count: int,
    limit_tokens: int | None,
) -> tuple[list[Encoded], dict[int, str]]:
    """Return as tokens those of the `count` conversations that can be scored; of the others, why not.

    By position: the chat template of `tokenizer` refuses it, or it is longer than `limit_tokens`.
    """
    samples: list[Encoded] = []
    left_out: dict[int, str] = {}
    with progress(count, "tokenising", "records") as done:
        for position, messages in enumerate(conversations):
            try:
                encoded = encode(tokenizer, messages)
            except EncodingError:
                left_out[position] = NOT_SCORED_TEMPLATE
            else:
                ids = np.asarray(encoded.input_ids, dtype=np.int32)  # a tenth of a list's memory
                if limit_tokens is not None and len(ids) > limit_tokens:
                    left_out[position] = NOT_SCORED_TOO_LONG
                else:
                    samples.append(Encoded(ids, encoded.prompt_start, encoded.response_start))
            done.advance()
    return samples, left_out


def context_tokens(model: Any) -> int | None:
    """Return how many positions a transformers `model` has; None: its configuration names no limit."""
    limit: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit

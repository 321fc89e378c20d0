"""The offline pass as the authors' released code makes it, for comparison only.

One record at a time; prompt and response tokenised one after the other; logits over the whole
vocabulary for every token, and their loss computed once by the model and again in a Python loop that
waits for every single number. Written anew from what that code does (`src/offline/difficulty_score.py`
and `iu_score.py` of HKUSTDial/LEAD, 2025-06), on the texts of our chat template, so that both find the
same losses. It runs in the precision and attention that it is given; the released code loads models
without naming either, which with its transformers 4.46 is float32 and sdpa.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lead_core.chat import Message, render
from lead_core.model import ResolvedRuntime, autocast


@dataclass(frozen=True)
class AuthorsScores:
    """Losses float64 [n] in nats per response token: given the prompt, and of the response alone."""

    loss: np.ndarray
    response_loss: np.ndarray


def score_as_the_authors(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    *,
    header: Sequence[int],
    runtime: ResolvedRuntime,
    third_forward: bool,
) -> AuthorsScores:
    """Forward every conversation twice, with its prompt and behind the assistant `header` alone.

    third_forward: the utility is the loss given the prompt of one more forward (`iu_score.py`), as they
    do it, in the place of the first one's.
    """
    pairs = []
    for messages in conversations:
        prompt, response = render(tokenizer, messages)
        context = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        given = _loss_by_loop(model, tokenizer, context, response, runtime)
        alone = _loss_by_loop(model, tokenizer, header, response, runtime)
        if third_forward:
            given = _loss_at_once(model, tokenizer, context, response, runtime)
        pairs.append((given, alone))
    losses = np.array(pairs, dtype=np.float64)
    return AuthorsScores(losses[:, 0], losses[:, 1])


def _loss_by_loop(
    model: Any, tokenizer: Any, context: Sequence[int], response: str, runtime: ResolvedRuntime
) -> float:
    """Return the mean loss of `response` behind the tokens of `context`, in nats per token."""
    ids, _, logits = _forward(model, tokenizer, context, response, runtime)
    losses = []
    for place in range(1, ids.shape[1]):
        log_probabilities = torch.log_softmax(logits[0, place - 1].float(), dim=-1)
        losses.append(-log_probabilities[ids[0, place]].item())
    return float(np.mean(losses[len(context) - 1 :]))


def _loss_at_once(
    model: Any, tokenizer: Any, context: Sequence[int], response: str, runtime: ResolvedRuntime
) -> float:
    """Return the same from one cross-entropy over all logits.

    Theirs holds logits against tokens of the same place; here, against the next, which costs the same.
    """
    _, labels, logits = _forward(model, tokenizer, context, response, runtime)
    shifted = logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(shifted, labels[0, 1:], ignore_index=-100))


def _forward(
    model: Any, tokenizer: Any, context: Sequence[int], response: str, runtime: ResolvedRuntime
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids and labels [1, T], -100 in the context, and the logits [1, T, V] of one forward."""
    response_ids = tokenizer(response, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*context, *response_ids]], device=runtime.device)
    labels = ids.clone()
    labels[0, : len(context)] = -100
    with torch.no_grad(), autocast(runtime):
        logits = model(ids, labels=labels, output_hidden_states=True, use_cache=False).logits
    return ids, labels, logits

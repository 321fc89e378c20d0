"""The offline pass: loss with and without the prompt, IFD and a prompt embedding for every record.

LEAD.md A.1-A.2. Two forwards per record, once per pool and model (three where IFD is a warmed-up
model's); after this, nothing is forwarded in order to select.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lead_core.chat import Encoded
from lead_core.model import (
    Batch,
    ResponseLoss,
    group_by_tokens,
    layer_output,
    make_batch,
    sample_means,
)
from lead_core.progress import progress

NOT_BELOW_ONE = "ifd_not_below_one"
NON_FINITE = "non_finite"


@dataclass(frozen=True)
class Scores:
    """What the offline pass knows of n records, in their order.

    loss: L(theta_0, x); response_loss: L(theta, r); both float64 [n] in nats/token. ifd: the
    instruction-following difficulty L(theta, x) / L(theta, r), float64 [n] (Li et al. 2024), with
    the same theta above and below: theta_0, or a warmed-up model. embeddings: float32 [n, hidden].
    """

    loss: np.ndarray
    response_loss: np.ndarray
    ifd: np.ndarray
    embeddings: np.ndarray

    def set_aside(self) -> list[str | None]:
        """Return, per record, why it cannot be an arm's sample (None: it can)."""
        finite = np.isfinite(self.loss) & np.isfinite(self.response_loss) & np.isfinite(self.ifd)
        return [
            NON_FINITE if not known else NOT_BELOW_ONE if value >= 1 else None
            for value, known in zip(self.ifd, finite, strict=True)
        ]


def difficulty(loss: np.ndarray, response_loss: np.ndarray) -> np.ndarray:
    """Return IFD = L(x) / L(r), elementwise; what cannot be divided is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return loss / response_loss


def score_pool(
    loss: ResponseLoss,
    samples: Sequence[Encoded],
    *,
    header: Sequence[int],
    pad_id: int,
    batch_tokens: int,
    depth_fraction: float,
    warm_up: Callable[[np.ndarray], None] | None = None,
) -> Scores:
    """Forward every sample once with its prompt and once with its response alone.

    `header` is the assistant header (`chat.assistant_header`) that precedes a lone response. Batches
    hold samples of similar length, at most `batch_tokens` tokens with padding. `warm_up`, called with
    the losses of the first pass, trains the model behind `loss`: losses and embeddings are then still
    those of before, IFD is the trained model's, for one more forward per sample.
    """
    bare = [
        Encoded([*header, *sample.input_ids[sample.response_start :]], 0, len(header))
        for sample in samples
    ]
    whole_tokens, bare_tokens = _count_tokens(samples), _count_tokens(bare)
    with progress(whole_tokens, "scoring", "tokens") as done:
        given_prompt, embeddings = _forward_all(
            loss, samples, pad_id, batch_tokens, done, depth_fraction
        )
    above = given_prompt
    if warm_up is not None:
        warm_up(given_prompt)
        with progress(whole_tokens, "scoring, warmed up", "tokens") as done:
            above, _ = _forward_all(loss, samples, pad_id, batch_tokens, done, None)
    with progress(bare_tokens, "scoring responses", "tokens") as done:
        alone, _ = _forward_all(loss, bare, pad_id, batch_tokens, done, None)
    return Scores(given_prompt, alone, difficulty(above, alone), embeddings)


def response_losses(
    loss: ResponseLoss, samples: Sequence[Encoded], *, pad_id: int, batch_tokens: int
) -> np.ndarray:
    """Return the current loss of every sample, float64 [n], nats/token: one forward each."""
    with progress(_count_tokens(samples), "losses", "tokens") as done:
        return _forward_all(loss, samples, pad_id, batch_tokens, done, None)[0]


def _count_tokens(samples: Sequence[Encoded]) -> int:
    return sum(len(sample.input_ids) for sample in samples)


def _forward_all(
    loss: ResponseLoss,
    samples: Sequence[Encoded],
    pad_id: int,
    batch_tokens: int,
    done: Any,
    depth_fraction: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    losses = np.empty(len(samples), dtype=np.float64)
    embeddings: np.ndarray = np.empty((len(samples), 0), dtype=np.float32)
    device = next(loss.parameters()).device
    was_training = loss.training
    loss.eval()
    lengths = np.array([len(sample.input_ids) for sample in samples])
    with torch.inference_mode():
        for indices in group_by_tokens(lengths, batch_tokens):
            chosen = [samples[i] for i in indices]
            batch = make_batch(chosen, pad_id=pad_id).to(device)
            if depth_fraction is None:
                token_losses = loss(batch)
            else:
                with layer_output(loss.causal_lm, depth_fraction) as hidden:
                    token_losses = loss(batch)
                vectors = _mean_over_prompts(hidden[0], chosen, batch)
                if not embeddings.shape[1]:
                    embeddings = np.empty((len(samples), vectors.shape[1]), dtype=np.float32)
                embeddings[indices] = vectors
            losses[indices] = sample_means(token_losses, batch).cpu().numpy()
            done.advance(int(lengths[indices].sum()))
    loss.train(was_training)
    return losses, embeddings


def _mean_over_prompts(
    hidden: torch.Tensor, samples: Sequence[Encoded], batch: Batch
) -> np.ndarray:
    """Return the mean hidden state [B, H] over each prompt, from its first user text on."""
    places = torch.arange(batch.input_ids.shape[1], device=hidden.device)[None]
    start = torch.tensor([s.prompt_start for s in samples], device=hidden.device)[:, None]
    stop = torch.tensor([s.response_start for s in samples], device=hidden.device)[:, None]
    weights = ((places >= start) & (places < stop)).to(torch.float32)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("bt,bth->bh", weights, hidden.float()).cpu().numpy()

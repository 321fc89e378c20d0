"""The offline pass: loss with and without the prompt, IFD and a prompt embedding for every record.

LEAD.md A.1-A.2. Two forwards per record, once per pool and model (three where IFD is a warmed-up
model's); after this, nothing is forwarded in order to select.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

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
from lead_core.scored_batches import ScoredBatch, ScoredBatches, batch_key

NOT_BELOW_ONE = "ifd_not_below_one"
NON_FINITE = "non_finite"
NOT_SCORED_TEMPLATE = "not_scored_template"  # the scoring model's chat template refuses the record
NOT_SCORED_TOO_LONG = "not_scored_too_long"  # for the scoring model's context


@dataclass(frozen=True)
class Scores:
    """What the offline pass knows of n records, in their order.

    loss: L(theta_0, x); response_loss: L(theta, r); both float64 [n] in nats/token. ifd: the
    instruction-following difficulty L(theta, x) / L(theta, r), float64 [n] (Li et al. 2024), with
    the same theta above and below: theta_0, or a warmed-up model. embeddings: float32 [n, hidden].
    left_out: why a record was not forwarded, by position; its scores are not finite.
    """

    loss: np.ndarray
    response_loss: np.ndarray
    ifd: np.ndarray
    embeddings: np.ndarray
    left_out: Mapping[int, str] = field(default_factory=dict)

    def set_aside(self) -> list[str | None]:
        """Return, per record, why it cannot be an arm's sample (None: it can)."""
        finite = np.isfinite(self.loss) & np.isfinite(self.response_loss) & np.isfinite(self.ifd)
        reasons: list[str | None] = [
            NON_FINITE if not known else NOT_BELOW_ONE if value >= 1 else None
            for value, known in zip(self.ifd, finite, strict=True)
        ]
        for position, reason in self.left_out.items():
            reasons[position] = reason
        return reasons

    def with_left_out(self, left_out: Mapping[int, str]) -> Scores:
        """Return these scores in the places that `left_out` (why, by position) leaves them."""
        spread = partial(with_gaps, gaps=left_out, fill=np.nan)
        return Scores(
            loss=spread(self.loss),
            response_loss=spread(self.response_loss),
            ifd=spread(self.ifd),
            embeddings=spread(self.embeddings),
            left_out=left_out,
        )


def with_gaps(values: np.ndarray, gaps: Collection[int], fill: float) -> np.ndarray:
    """Return `values` [m, ...] as [m + len(gaps), ...], with `fill` at the positions `gaps`."""
    filled = np.full((len(values) + len(gaps), *values.shape[1:]), fill, dtype=values.dtype)
    filled[np.delete(np.arange(len(filled)), list(gaps))] = values
    return filled


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
    kept: ScoredBatches | None = None,
) -> Scores:
    """Forward every sample once with its prompt and once with its response alone.

    `header` is the assistant header (`chat.assistant_header`) that precedes a lone response. Batches
    hold samples of similar length, at most `batch_tokens` tokens with padding. `warm_up`, called with
    the losses of the first pass, trains the model behind `loss`: losses and embeddings are then still
    those of before, IFD is the trained model's, for one more forward per sample. Batches that `kept`
    holds of the same model and arithmetic are taken over from it, all others are added to it.
    """
    bare = [
        Encoded([*header, *sample.input_ids[sample.response_start :]], 0, len(header))
        for sample in samples
    ]
    forward = partial(_forward_all, loss, pad_id=pad_id, batch_tokens=batch_tokens, kept=kept)
    given_prompt, embeddings = forward(samples, "scoring", depth_fraction=depth_fraction)
    above, weights = given_prompt, None
    if warm_up is not None:
        warm_up(given_prompt)
        weights = None if kept is None else _hash_trained(loss)
        above, _ = forward(samples, "scoring, warmed up", weights=weights)
    alone, _ = forward(bare, "scoring responses", weights=weights)
    return Scores(given_prompt, alone, difficulty(above, alone), embeddings)


def response_losses(
    loss: ResponseLoss, samples: Sequence[Encoded], *, pad_id: int, batch_tokens: int
) -> np.ndarray:
    """Return the current loss of every sample, float64 [n], nats/token: one forward each."""
    losses, _ = _forward_all(loss, samples, "losses", pad_id=pad_id, batch_tokens=batch_tokens)
    return losses


def _forward_all(
    loss: ResponseLoss,
    samples: Sequence[Encoded],
    label: str,
    *,
    pad_id: int,
    batch_tokens: int,
    depth_fraction: float | None = None,
    kept: ScoredBatches | None = None,
    weights: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss of every sample and, with `depth_fraction`, its embedding.

    weights: a hash of what the model has been trained to, None for the model as it was loaded.
    """
    losses = np.empty(len(samples), dtype=np.float64)
    embeddings: np.ndarray = np.empty((len(samples), 0), dtype=np.float32)

    def put(indices: np.ndarray, batch: ScoredBatch) -> None:
        nonlocal embeddings
        width = batch.embeddings.shape[1]
        if embeddings.shape[1] != width:
            embeddings = np.empty((len(samples), width), dtype=np.float32)
        losses[indices], embeddings[indices] = batch.losses, batch.embeddings

    lengths = np.array([len(sample.input_ids) for sample in samples])
    batches = group_by_tokens(lengths, batch_tokens)
    tokens = [int(lengths[indices].sum()) for indices in batches]
    keys: list[str] = []
    taken = np.zeros(len(batches), dtype=bool)
    if kept is not None:
        how = {"pad_id": pad_id, "embedding_depth": depth_fraction, "weights": weights}
        keys = [batch_key([samples[i] for i in indices], how) for indices in batches]
        for place, batch in kept.read(keys):
            put(batches[place], batch)
            kept.note_taken_over(len(batches[place]), tokens[place])
            taken[place] = True
    start = sum(itertools.compress(tokens, taken))
    was_training = loss.training
    loss.eval()
    with torch.inference_mode(), progress(sum(tokens), label, "tokens", start=start) as done:
        for place in np.flatnonzero(~taken).tolist():
            indices = batches[place]
            batch = _forward(loss, [samples[i] for i in indices], pad_id, depth_fraction)
            put(indices, batch)
            if kept is not None:
                kept.keep(keys[place], batch)
            done.advance(tokens[place])
    if kept is not None:
        kept.flush()
    loss.train(was_training)
    return losses, embeddings


def _forward(
    loss: ResponseLoss, samples: Sequence[Encoded], pad_id: int, depth_fraction: float | None
) -> ScoredBatch:
    batch = make_batch(samples, pad_id=pad_id).to(next(loss.parameters()).device)
    if depth_fraction is None:
        token_losses = loss(batch)
        embeddings: np.ndarray = np.empty((len(samples), 0), dtype=np.float32)
    else:
        with layer_output(loss.causal_lm, depth_fraction) as hidden:
            token_losses = loss(batch)
        embeddings = _mean_over_prompts(hidden[0], samples, batch)
    return ScoredBatch(sample_means(token_losses, batch).cpu().numpy(), embeddings)


def _hash_trained(loss: ResponseLoss) -> str:
    """Return the hash of all trainable weights, which after a warm-up are its adapters'."""
    digest = hashlib.sha256()
    for name, weights in sorted(loss.named_parameters()):
        if weights.requires_grad:
            digest.update(name.encode())
            digest.update(weights.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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

"""The model as lm-eval asks it: no logits that nobody needs, and all that it forwards counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lead_core.ledger import CostLedger
from lead_core.model import Batch, ResolvedRuntime, ResponseLoss, group_by_tokens
from lead_core.progress import Progress, progress

HELDOUT = "lead_heldout"
CHOICE = "lead_heldout_choice"

TokenPair = tuple[list[int], list[int]]  # context, continuation


def stored_tokens(request: Instance) -> TokenPair | None:
    """Return the tokens of a request of our own tasks, None for others: those are still text.

    lm-eval would move the newline that ends an assistant header into the response, score it there and
    let it merge with the response's first token.
    """
    document = request.doc
    if request.task_name == HELDOUT:
        ids, start = document["input_ids"], document["response_start"]
        return ids[:start], ids[start:]
    if request.task_name == CHOICE:
        return document["prompt_ids"], document["choice_ids"][request.idx]
    return None


class PipelineLM(HFLM):
    """lm-eval's model class with a cheaper log-likelihood of the same value.

    The base class computes logits over the whole vocabulary for prompts and padding too, and batches
    by number: here the output head runs only where a continuation is predicted (`ResponseLoss`), in
    batches of similar length. As there, continuations that differ in their last token share a forward.
    """

    def __init__(self, model: Any, tokenizer: Any, runtime: ResolvedRuntime, batch_size: int):
        # lm-eval's forwards switch an outer autocast off, and its softmax would run in bf16.
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            mixed_precision_dtype="bfloat16" if runtime.precision == "bf16" else None,
            softmax_dtype="float32",
        )
        self.ledger = CostLedger()
        self._response_loss = ResponseLoss(model, runtime).eval()  # as it is left behind after use
        self._written: Progress | None = None

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Return (log-likelihood in nats, whether it is the greedy continuation) per request."""
        stored = {i: stored_tokens(request) for i, request in enumerate(requests)}
        ours = {i: pair for i, pair in stored.items() if pair is not None}
        others = [i for i, pair in stored.items() if pair is None]
        answers: dict[int, tuple[float, bool]] = {}
        if ours:
            scored = self._loglikelihood_tokens([(("", ""), *pair) for pair in ours.values()])
            answers.update(zip(ours, scored, strict=True))
        if others:
            scored = super().loglikelihood([requests[i] for i in others], disable_tqdm=disable_tqdm)
            answers.update(zip(others, scored, strict=True))
        return [answers[i] for i in range(len(requests))]

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = True,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Return what `loglikelihood` does for (texts, context ids, continuation ids).

        A batch holds at most as many tokens, padding included, as `batch_size` of the longest inputs.
        """
        rows: dict[tuple[int, ...], list[int]] = {}  # input -> the requests that it answers
        for i, (_, context, continuation) in enumerate(requests):
            tokens = (context + continuation)[-(self.max_length + 1) :]
            rows.setdefault(tuple(tokens[:-1]), []).append(i)
        inputs = list(rows)
        lengths = np.array([len(tokens) for tokens in inputs])
        self.ledger.add("evaluation", len(inputs), int(lengths.sum()))
        answers: dict[int, tuple[float, bool]] = {}
        with (
            progress(int(lengths.sum()), "log-likelihoods", "tokens") as done,
            torch.inference_mode(),
        ):
            for chosen in group_by_tokens(lengths, int(self.batch_size) * int(lengths.max())):
                asked = [(row, i) for row, k in enumerate(chosen) for i in rows[inputs[k]]]
                batch = _make_batch(
                    [inputs[k] for k in chosen],
                    [(row, requests[i][2]) for row, i in asked],
                    pad_id=self.tokenizer.pad_token_id,
                )
                sizes = [len(requests[i][2]) for _, i in asked]
                scored = self._answers(batch.to(self.device), sizes)
                answers.update(zip((i for _, i in asked), scored, strict=True))
                done.advance(int(lengths[chosen].sum()))
        return [answers[i] for i in range(len(requests))]

    def _answers(self, batch: Batch, sizes: Sequence[int]) -> list[tuple[float, bool]]:
        """Return log-likelihood and greediness of continuations of `sizes` tokens, in a row."""
        logits = self._response_loss.logits(batch)
        losses = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
        greedy = logits.argmax(dim=-1) == batch.targets
        starts = np.cumsum([0, *sizes[:-1]])
        sums = np.add.reduceat(losses.double().cpu().numpy(), starts)
        agree = np.logical_and.reduceat(greedy.cpu().numpy(), starts)
        return [(-float(loss), bool(same)) for loss, same in zip(sums, agree, strict=True)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Return what the model writes after each request's prompt."""
        with progress(len(requests), "generating", "answers") as self._written:
            return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _model_generate(self, context: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        written = super()._model_generate(context, *args, **kwargs)
        self.ledger.add("evaluation", context.shape[0], written.numel())
        if self._written is not None:
            self._written.advance(context.shape[0])
        return written


def _make_batch(
    inputs: Sequence[Sequence[int]], continuations: Sequence[tuple[int, list[int]]], *, pad_id: int
) -> Batch:
    """Pad `inputs` and locate what predicts each continuation, given with the row that ends in it.

    An input lacks the last token of its continuations, so the last of its places predicts that.
    """
    lengths = [len(tokens) for tokens in inputs]
    ids = np.full((len(inputs), max(lengths)), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(inputs):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    sizes = [len(continuation) for _, continuation in continuations]
    positions = [
        np.arange(lengths[row] - size, lengths[row])
        for (row, _), size in zip(continuations, sizes, strict=True)
    ]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        torch.from_numpy(np.repeat([row for row, _ in continuations], sizes)),
        torch.from_numpy(np.concatenate(positions)),
        torch.from_numpy(np.concatenate([np.array(c, dtype=np.int64) for _, c in continuations])),
    )

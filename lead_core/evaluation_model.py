"""The model as lm-eval asks it: no logits that nobody needs, and all that it forwards counted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache

from lead_core.evaluation_forward import PrefixLoss
from lead_core.evaluation_prefixes import PrefixGroup, group_by_prefix, shared_by_all
from lead_core.evaluation_stages import write_in_stages
from lead_core.ledger import CostLedger
from lead_core.model import Batch, ResolvedRuntime, group_by_tokens
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
    """lm-eval's model class with cheaper answers of the same value.

    The base class computes logits over the whole vocabulary for prompts and padding too, reads the
    examples before each question anew, and batches by number: here the output head runs only where a
    continuation is predicted (`ResponseLoss`), what prompts begin with is run once, and batches are of
    similar length. As there, continuations that differ in their last token share a forward. A batch
    holds at most as many tokens, shared ones and padding included, as `batch_size` of the longest.
    """

    def __init__(self, model: Any, tokenizer: Any, runtime: ResolvedRuntime, batch_size: int):
        # lm-eval's forwards switch an outer autocast off, and its softmax would run in bf16.
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=sys.maxsize,  # all requests at once: batches are made here
            mixed_precision_dtype="bfloat16" if runtime.precision == "bf16" else None,
            softmax_dtype="float32",
        )
        self.ledger = CostLedger()
        self._rows = batch_size
        self._loss = PrefixLoss(model, runtime).eval()  # as it is left behind after use
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
        """Return what `loglikelihood` does for (texts, context ids, continuation ids)."""
        asking: dict[tuple[int, ...], list[int]] = {}  # input -> the requests that it answers
        for i, (_, context, continuation) in enumerate(requests):
            tokens = (context + continuation)[-(self.max_length + 1) :]
            asking.setdefault(tuple(tokens[:-1]), []).append(i)
        inputs = list(asking)
        lengths = np.array([len(tokens) for tokens in inputs])
        longest = [max(len(requests[i][2]) for i in asking[tokens]) for tokens in inputs]
        contexts = [tokens[:-size] for tokens, size in zip(inputs, longest, strict=True)]
        answers: dict[int, tuple[float, bool]] = {}
        with (
            progress(int(lengths.sum()), "log-likelihoods", "tokens") as done,
            torch.inference_mode(),
        ):
            for picked, shared, prefix in self._batches(contexts, lengths):
                asked = [(row, i) for row, k in enumerate(picked) for i in asking[inputs[k]]]
                batch = _make_batch(
                    [inputs[k][shared:] for k in picked],
                    [(row, requests[i][2]) for row, i in asked],
                    pad_id=self.tokenizer.pad_token_id,
                ).to(self.device)
                self.ledger.add("evaluation", len(picked), int(batch.attention_mask.sum()))
                logits = self._loss.logits(batch, prefix)
                scored = _score(logits, batch.targets, [len(requests[i][2]) for _, i in asked])
                answers.update(zip((i for _, i in asked), scored, strict=True))
                done.advance(int(lengths[picked].sum()))
        return [answers[i] for i in range(len(requests))]

    def _batches(
        self, contexts: Sequence[tuple[int, ...]], lengths: np.ndarray
    ) -> Iterator[tuple[np.ndarray, int, DynamicCache | None]]:
        """Yield inputs to run together, the tokens that they share, and what those left behind.

        contexts: what each input holds before the first token that is to be scored.
        """
        groups = group_by_prefix(contexts)
        if any(group.shared for group in groups) and not self._loss.can_share:
            groups = [PrefixGroup(tuple(range(len(contexts))), 0)]
        for group in groups:
            members = np.array(group.members)
            prefix = self._run_prefix(contexts[members[0]][: group.shared])
            for chosen in group_by_tokens(lengths[members], self._rows * int(lengths.max())):
                yield members[chosen], group.shared, prefix

    def _run_prefix(self, tokens: Sequence[int]) -> DynamicCache | None:
        if not tokens:
            return None
        self.ledger.add("evaluation", 1, len(tokens))
        return self._loss.run_prefix(tokens)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Return what the model writes after each request's prompt."""
        with progress(len(requests), "generating", "answers") as self._written:
            return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **settings: Any
    ) -> torch.Tensor:
        """Return `context` [N, T], padded on the left, with what is written behind each row."""
        read = settings.pop("attention_mask").bool()
        prompts = [row[kept].tolist() for row, kept in zip(context, read, strict=True)]
        limit = max_length - context.shape[1]
        shared = shared_by_all([tuple(prompt[:-1]) for prompt in prompts])
        if shared and not self._loss.can_share:
            shared = 0
        prefix = self._run_prefix(prompts[0][:shared])
        written = write_in_stages(
            prompts,
            limit,
            budget_tokens=self._rows * (context.shape[1] + limit),
            go_on=partial(self._go_on, shared=shared, prefix=prefix, stop=stop, settings=settings),
            has_stopped=partial(self._has_stopped, stop=stop),
            on_stop=self._written.advance if self._written is not None else lambda _n: None,
        )
        tail = pad_sequence(
            [torch.tensor(tokens, dtype=context.dtype) for tokens in written],
            batch_first=True,
            padding_value=self.tokenizer.pad_token_id,
        )
        return torch.cat([context, tail.to(context.device)], dim=1)

    def _go_on(
        self,
        rows: list[list[int]],
        step: int,
        *,
        shared: int,
        prefix: DynamicCache | None,
        stop: list[str],
        settings: dict[str, Any],
    ) -> list[list[int]]:
        """Return up to `step` tokens written after each row; `prefix` holds what all begin with."""
        context, mask = _pad_behind(shared, rows, pad_id=self.tokenizer.pad_token_id)
        width = context.shape[1]
        if prefix is not None:
            settings = {**settings, "past_key_values": self._loss.for_rows(prefix, len(rows))}
        written = super()._model_generate(
            context=context.to(self.device),
            max_length=width + step,
            stop=stop,
            attention_mask=mask.to(self.device),
            **settings,
        )[:, width:]
        read = int(mask.sum()) - shared * len(rows)
        forwarded = read + len(rows) * (written.shape[1] - 1)  # the last token is only written
        self.ledger.add("evaluation", len(rows), forwarded)
        return written.tolist()

    def _has_stopped(self, written: list[int], stop: list[str]) -> bool:
        """Whether `generate` takes no more tokens for this row, or lm-eval will cut them off."""
        ends = self.model.generation_config.eos_token_id
        if not set([ends] if isinstance(ends, int) else ends or ()).isdisjoint(written):
            return True
        text = self.tok_decode(written, skip_special_tokens=False)
        return any(end in text for end in stop)


def _score(
    logits: torch.Tensor, targets: torch.Tensor, sizes: Sequence[int]
) -> list[tuple[float, bool]]:
    """Return log-likelihood and greediness of continuations of `sizes` tokens, in a row."""
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    greedy = logits.argmax(dim=-1) == targets
    starts = np.cumsum([0, *sizes[:-1]])
    sums = np.add.reduceat(losses.double().cpu().numpy(), starts)
    agree = np.logical_and.reduceat(greedy.cpu().numpy(), starts)
    return [(-float(loss), bool(same)) for loss, same in zip(sums, agree, strict=True)]


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


def _pad_behind(
    shared: int, rows: Sequence[Sequence[int]], *, pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask [B, T] of `rows`, padded behind the `shared` tokens that all begin with.

    `generate` counts positions by the mask, so padding may stand anywhere before the last token.
    """
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, tokens in enumerate(rows):
        start = width - len(tokens) + shared
        ids[i, :shared], ids[i, start:] = tokens[:shared], tokens[shared:]
        mask[i, :shared] = mask[i, start:] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)

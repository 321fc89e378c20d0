"""Every prompt of an evaluation, built and checked before a model is loaded."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_MAX_GEN_TOKS
from lm_eval.models.utils import normalize_gen_kwargs, resolve_max_length

from lead_core.errors import LeadError, first_reason
from lead_core.evaluation_model import stored_tokens

_ENCODED_AT_ONCE = 1024


def context_length(model: Path, tokenizer: Any, *, trust_remote_code: bool) -> int:
    """Return how many tokens the model in the folder `model` takes, from its configuration alone."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(model), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise LeadError(
            f"model.name: the configuration in {model} does not load ({first_reason(error)})"
        ) from error
    return resolve_max_length(config, tokenizer)


def build_requests(
    name: str, task: Task, *, limit: int | None, seed: int, tokenizer: Any, max_length: int
) -> None:
    """Build the prompts of `task`, its examples drawn by `seed`, and leave them with it.

    limit: documents, the first ones; None: all. Raises LeadError when there are fewer examples than
    asked for, or when a prompt is longer than the model's context of `max_length` tokens.
    """
    _check_examples(name, task)
    task.set_fewshot_seed(seed)
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar per task, whatever its size
        task.build_all_requests(limit=limit)
    _check_lengths(name, task.instances, tokenizer, max_length)


def _check_examples(name: str, task: Task) -> None:
    wanted, sampler = task.get_config("num_fewshot") or 0, getattr(task, "sampler", None)
    if not wanted or sampler is None:  # tasks written in Python may draw them in ways of their own
        return
    available = len(sampler.df)
    if task.config.fewshot_config.split == task.config.test_split:
        available -= 1  # the document asked about is no example of its own
    if wanted > available:
        raise LeadError(
            f"params.yaml: evaluate.tasks: {name} has {max(0, available)} examples to choose from, "
            f"num_fewshot asks for {wanted}; lower it"
        )


def _check_lengths(
    name: str, requests: Iterable[Instance], tokenizer: Any, max_length: int
) -> None:
    """Raise LeadError for the first request that lm-eval would cut to fit."""
    texts: list[tuple[Instance, str, int]] = []
    for request in requests:
        stored = stored_tokens(request)
        if stored is None:
            texts.extend(_text_and_room(request, max_length))
        elif (tokens := sum(map(len, stored))) > max_length:
            raise LeadError(
                f"held-out record {request.doc['id']} has {tokens} tokens, the model takes at most "
                f"{max_length}; lower data.max_tokens in params.yaml"
            )
    for start in range(0, len(texts), _ENCODED_AT_ONCE):
        part = texts[start : start + _ENCODED_AT_ONCE]
        encoded = tokenizer([text for _, text, _ in part])["input_ids"]
        for (request, _, room), ids in zip(part, encoded, strict=True):
            if len(ids) > room:
                raise LeadError(
                    f"params.yaml: evaluate.tasks: document {request.doc_id} of {name} has a prompt "
                    f"of {len(ids)} tokens, the model has room for {room}; lower num_fewshot, or "
                    "remove the task"
                )


def _text_and_room(request: Instance, max_length: int) -> Iterator[tuple[Instance, str, int]]:
    """Yield what a request puts into the context, and the tokens that this may be."""
    if request.request_type == "generate_until":
        prompt, settings = request.args
        written = normalize_gen_kwargs(settings, DEFAULT_MAX_GEN_TOKS)["max_gen_toks"]
        yield request, prompt, max_length - written
    elif request.request_type == "loglikelihood":
        yield request, "".join(request.args[:2]), max_length + 1  # the last token is only predicted

"""From messages to token ids: the model's own chat template, with the response marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np

from lead_core.assets import ResolvedModel
from lead_core.errors import LeadError, first_reason

Message = dict[str, str]


class EncodingError(LeadError):
    """This conversation does not fit the chat template; the text is a one-line reason."""


@dataclass(frozen=True)
class Encoded:
    """One conversation as tokens.

    ``input_ids[:response_start]`` is the prompt (its user part from `prompt_start`), the rest is
    the response: the last assistant turn up to and including its end-of-turn token.
    """

    input_ids: Sequence[int] | np.ndarray
    prompt_start: int
    response_start: int


def load_tokenizer(model: ResolvedModel, *, trust_remote_code: bool) -> Any:
    """Return the model's tokenizer; LeadError if it has no chat template or no end token."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(model.path), trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = first_reason(error)
        raise LeadError(
            f"model.name: the tokenizer of {model.name} does not load ({reason}); the folder needs "
            "tokenizer.json and tokenizer_config.json"
        ) from error
    check_tokenizer(tokenizer, model.name)
    return tokenizer


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Raise LeadError unless `tokenizer` is fast and has a chat template and an end token."""
    if not tokenizer.chat_template:
        raise LeadError(
            f"model.name: {name} has no chat template; use an instruction-tuned model, or put a "
            "chat_template.jinja file into a local copy of the model folder"
        )
    if tokenizer.eos_token_id is None:
        raise LeadError(f"model.name: the tokenizer of {name} has no end-of-sequence token")
    if not tokenizer.is_fast:
        raise LeadError(
            f"model.name: {name} has no fast tokenizer (tokenizer.json), needed for offsets"
        )


def render(tokenizer: Any, messages: Sequence[Message]) -> tuple[str, str]:
    """Return prompt and response text exactly as the chat template frames them.

    The prompt is every message but the last, plus the header that opens an assistant turn. The
    response ends with the end-of-turn token; what templates put behind it (a newline) is cut, since
    the model never has to produce it. Raises EncodingError when the template refuses the roles, or
    frames the last turn differently once it is known (then prompt and response cannot be told apart).
    """
    try:
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        prompt = tokenizer.apply_chat_template(
            messages[:-1], tokenize=False, add_generation_prompt=True
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise EncodingError(f"the chat template refuses it: {error}") from error
    if not whole.startswith(prompt):
        raise EncodingError("the chat template changes the prompt once the response is known")
    response = whole[len(prompt) :]
    end = response.rfind(tokenizer.eos_token)
    if end < len(messages[-1]["content"].strip()):  # absent, or only inside the text itself
        return prompt, response + tokenizer.eos_token
    return prompt, response[: end + len(tokenizer.eos_token)]


def encode(tokenizer: Any, messages: Sequence[Message]) -> Encoded:
    """Return `messages` as tokens; prompt and response are tokenised apart, as at generation."""
    prompt, response = render(tokenizer, messages)
    encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    response_ids = tokenizer(response, add_special_tokens=False)["input_ids"]
    prompt_ids = encoded["input_ids"]
    first_user = next((m["content"] for m in messages if m["role"] == "user"), "")
    start = prompt.find(first_user.strip()) if first_user.strip() else 0
    prompt_start = next(
        (i for i, (_, stop) in enumerate(encoded["offset_mapping"]) if stop > start), 0
    )
    return Encoded(prompt_ids + response_ids, prompt_start, len(prompt_ids))


def count_tokens(
    tokenizer: Any, conversations: Sequence[Sequence[Message]]
) -> list[tuple[int, int] | EncodingError]:
    """Return how many prompt and response tokens `encode` would give each conversation.

    Twice as fast as `encode`: no offsets, no padding, one call for all texts.
    """
    rendered = [_render_or_error(tokenizer, messages) for messages in conversations]
    texts = [text for pair in rendered if not isinstance(pair, EncodingError) for text in pair]
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # a tokenizer.json can ask for either
    backend.no_padding()
    lengths = map(len, backend.encode_batch_fast(texts, add_special_tokens=False))
    return [
        pair if isinstance(pair, EncodingError) else (next(lengths), next(lengths))
        for pair in rendered
    ]


def _render_or_error(
    tokenizer: Any, messages: Sequence[Message]
) -> tuple[str, str] | EncodingError:
    try:
        return render(tokenizer, messages)
    except EncodingError as error:
        return error


def assistant_header(tokenizer: Any) -> list[int]:
    """Return the tokens that open an assistant turn: all that precedes a response without a prompt.

    Falls back to the BOS or EOS token when the template opens no turn: something must come first.
    """
    messages = [{"role": "user", "content": "x"}]
    closed = tokenizer.apply_chat_template(messages, tokenize=False)
    opened = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    header = opened[len(closed) :] if opened.startswith(closed) else ""
    ids = tokenizer(header, add_special_tokens=False)["input_ids"] if header else []
    first = tokenizer.bos_token_id
    return ids or [tokenizer.eos_token_id if first is None else first]

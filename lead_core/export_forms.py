"""A conversation as one record of the forms that trainers read: the inverse of `records.convert`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from lead_core.records import Message, Rejection, convert


class Form(StrEnum):
    """How the records of an exported subset are laid out."""

    MESSAGES = "messages"
    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"
    DATASET = "dataset"  # messages too, as a Parquet file


def to_record(form: Form, messages: Sequence[Message]) -> dict[str, Any]:
    """Return one conversation in the keys of `form`; `what_is_lost` tells if they hold it whole."""
    match form:
        case Form.ALPACA:
            return _alpaca(messages)
        case Form.SHAREGPT:
            return {"conversations": [_sharegpt_turn(message) for message in messages]}
        case _:
            return {"messages": [dict(message) for message in messages]}


def prompt_and_completion(messages: Sequence[Message]) -> dict[str, Any]:
    """Return the form in which TRL takes its loss from the last turn alone, as LEAD does."""
    turns = [dict(message) for message in messages]
    return {"prompt": turns[:-1], "completion": turns[-1:]}


def what_is_lost(record: dict[str, Any], messages: Sequence[Message]) -> str | None:
    """Return why `record`, read again by our own reader, is not `messages`; None when it is."""
    read = convert(record)
    if isinstance(read, Rejection):
        return f"{read.reason}: {read.detail}"
    if read != list(messages):
        return f"this form holds only {len(read)} of its {len(messages)} turns as they are"
    return None


def _sharegpt_turn(message: Message) -> dict[str, str]:
    names = {"user": "human", "assistant": "gpt"}
    return {"from": names.get(message["role"], message["role"]), "value": message["content"]}


def _alpaca(messages: Sequence[Message]) -> dict[str, Any]:
    """Return the last exchange as instruction and output, earlier ones as LLaMA-Factory's history.

    `input` stays empty: the pool does not know where a prompt's instruction ends and its input begins.
    """
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    texts = [message["content"] for message in messages if message["role"] != "system"]
    *earlier, instruction, output = texts if len(texts) > 1 else ["", *texts]
    return {
        "instruction": instruction,
        "input": "",
        "output": output,
        "system": system,
        "history": [list(pair) for pair in zip(earlier[::2], earlier[1::2], strict=False)],
    }

"""One raw record to a conversation: recognise its form, convert it, or say why it cannot be used."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lead_core.storage import sha256_json

Message = dict[str, str]


class Reason(StrEnum):
    """Why a record is not in the pool: the closed vocabulary of `rejected.jsonl`."""

    BAD_JSON = "bad_json"  # the line is not JSON
    BAD_CSV = "bad_csv"  # the row does not fit the quoting rules or the header
    CUT_OFF = "cut_off"  # the file ends, or breaks, here: nothing after it was read
    ENCODING = "encoding"  # text that is not valid Unicode, or holds a NUL
    UNKNOWN_FORMAT = "unknown_format"
    PREFERENCE = "preference"  # chosen/rejected pairs: another kind of training
    TOOL_CALL = "tool_call"
    NOT_TEXT = "not_text"
    BAD_ROLES = "bad_roles"
    EMPTY_PROMPT = "empty_prompt"
    NO_RESPONSE = "no_response"
    TEMPLATE = "template"  # the model's chat template refuses it
    TOO_LONG = "too_long"
    DUPLICATE = "duplicate"
    CONTAMINATED = "contaminated"  # it overlaps with a benchmark (contamination.jsonl)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A reason and one line about this record."""

    reason: Reason
    detail: str


ACCEPTED_FORMS = (
    "messages [role, content], conversations [from, value] (ShareGPT), instruction/input/output "
    "(Alpaca), instruction with instances [input, output] (Self-Instruct), prompt/response or "
    "prompt/completion, question/answer, problem/solution"
)

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
}
_INVISIBLE = frozenset({"Cf", "Zs", "Zl", "Zp"})  # general categories of Unicode
_FILLERS = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0")  # letters and marks without a glyph
_TOOL_ROLES = {"tool", "function", "function_call", "tool_call", "observation", "ipython"}
_TURN_LISTS = ("messages", "conversations")
_PAIRS = {  # prompt key: response keys, the usual one first
    "instruction": ("output", "response"),
    "prompt": ("response", "completion"),
    "question": ("answer", "response"),
    "problem": ("solution",),
}
_CONTEXT_KEYS = ("input", "context")  # text that belongs to the instruction
_SYSTEM_KEYS = ("system", "system_prompt")
_VERDICT_KEYS = ("label", "kto_tag")
_MEDIA_KEYS = ("image", "images", "audio", "audios", "video", "videos")
_SHOWN_KEYS = 12


class _RejectedError(Exception):
    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.rejection = Rejection(reason, detail)


def unfold(record: Any) -> list[Any]:
    """Return the records that `record` stands for: one per entry of its ``instances``, or itself.

    Self-Instruct and Unnatural Instructions keep several inputs and outputs under one instruction;
    ``constraints`` on the output belong to the instruction, as in the authors' preparation.
    """
    if not isinstance(record, Mapping) or "instruction" not in record or "output" in record:
        return [record]
    instances = record.get("instances")
    if not (instances and isinstance(instances, list)):
        return [record]
    if not all(isinstance(one, Mapping) for one in instances):
        return [record]
    shared = {key: value for key, value in record.items() if key != "instances"}
    return [
        {**shared, **one, "instruction": _constrained(record["instruction"], one)}
        for one in instances
    ]


def _constrained(instruction: Any, instance: Mapping[Any, Any]) -> Any:
    constraints = instance.get("constraints")
    if not (isinstance(instruction, str) and isinstance(constraints, str)):
        return instruction
    none = constraints.strip().lower() in ("", "none", "none.")
    return instruction if none else f"{instruction}\n{constraints}"


def convert(record: Any) -> list[Message] | Rejection:
    """Return the conversation in `record`: an optional system turn, then user and assistant in turn.

    The last message is the assistant's and not empty: it is the response to learn. Text is taken
    over exactly; keys that belong to no form are ignored. Never raises for any JSON-like value.
    """
    try:
        return _convert(record)
    except _RejectedError as rejected:
        return rejected.rejection


def record_id(messages: Sequence[Message]) -> str:
    """Return the id of a conversation: 16 hex digits of the hash of its messages."""
    return sha256_json(messages)[:16]


def form_of(record: Any) -> str | None:
    """Return the key that decides how `convert` reads `record`: messages, instruction, ...; or None."""
    if not isinstance(record, Mapping):
        return None
    return next((key for key in (*_TURN_LISTS, *_PAIRS) if record.get(key) is not None), None)


def _convert(record: Any) -> list[Message]:
    if not isinstance(record, Mapping):
        raise _RejectedError(
            Reason.UNKNOWN_FORMAT,
            f"a record must be an object, got {_kind(record)}; accepted: {ACCEPTED_FORMS}",
        )
    given = {key: value for key, value in record.items() if value is not None}
    if "chosen" in given and "rejected" in given:
        raise _RejectedError(
            Reason.PREFERENCE,
            "chosen/rejected pairs are preference data, instruction tuning needs one response each",
        )
    if any(given.get(key) is False for key in _VERDICT_KEYS):
        raise _RejectedError(
            Reason.PREFERENCE, "its label says that people did not want this response (KTO data)"
        )
    if given.get("tools"):
        raise _RejectedError(Reason.TOOL_CALL, "it defines tools; only plain text is supported")
    for key in _MEDIA_KEYS:
        if given.get(key):
            raise _RejectedError(Reason.NOT_TEXT, f"it has {key}; only plain text is supported")
    return _checked([*_system_turn(given), *_turns(given)])


def _turns(given: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    form = form_of(given)
    if form is None:
        detail = f"found {_keys(given)}; accepted: {ACCEPTED_FORMS}"
        raise _RejectedError(Reason.UNKNOWN_FORMAT, detail)
    if form in _TURN_LISTS:
        return _listed_turns(form, given[form])
    return _pair(given, form, _PAIRS[form])


def _system_turn(given: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    return next(([("system", given[key])] for key in _SYSTEM_KEYS if given.get(key)), [])


def _listed_turns(key: str, turns: Any) -> list[tuple[Any, Any]]:
    """Read turns of ``{"role", "content"}`` or ``{"from", "value"}``."""
    if not isinstance(turns, list):
        raise _RejectedError(Reason.NOT_TEXT, f"{key} is {_kind(turns)}, expected a list of turns")
    result = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, Mapping):
            raise _RejectedError(
                Reason.NOT_TEXT, f"turn {number} of {key} is {_kind(turn)}, expected an object"
            )
        role = turn.get("role", turn.get("from"))
        called = turn.get("tool_calls") or turn.get("function_call")
        if called or (isinstance(role, str) and role in _TOOL_ROLES):
            raise _RejectedError(
                Reason.TOOL_CALL, f"turn {number} is a tool call; only plain text is supported"
            )
        if role is None:
            raise _RejectedError(
                Reason.BAD_ROLES, f"turn {number} has no role or from; found {_keys(turn)}"
            )
        result.append((role, turn.get("content", turn.get("value"))))
    return result


def _pair(
    given: Mapping[Any, Any], prompt_key: str, response_keys: tuple[str, ...]
) -> list[tuple[Any, Any]]:
    """Read a prompt and its response from keys of their own, with Alpaca's input and history."""
    present = [key for key in response_keys if key in given]
    if not present:
        raise _RejectedError(
            Reason.NO_RESPONSE,
            f"{prompt_key} without {' or '.join(response_keys)}; found {_keys(given)}; "
            f"accepted: {ACCEPTED_FORMS}",
        )
    response_key = next((key for key in present if given[key] != ""), present[0])
    prompt, response = given[prompt_key], given[response_key]
    context = next((given[key] for key in _CONTEXT_KEYS if given.get(key)), "")
    for name, text in ((prompt_key, prompt), ("input", context), (response_key, response)):
        _check_text(name, text)
    if not is_blank(context):
        prompt = f"{prompt}\n\n{context}"
    return [*_history(given.get("history")), ("user", prompt), ("assistant", response)]


def _history(history: Any) -> list[tuple[Any, Any]]:
    """Read earlier exchanges, ``[[prompt, response], ...]``, beside an Alpaca record."""
    exchanges = history if isinstance(history, list) else [history] if history else []
    turns: list[tuple[Any, Any]] = []
    for exchange in exchanges:
        if not isinstance(exchange, list | tuple) or len(exchange) != 2:
            raise _RejectedError(
                Reason.NOT_TEXT, "history must be a list of [prompt, response] pairs"
            )
        turns += [("user", exchange[0]), ("assistant", exchange[1])]
    return turns


def is_blank(text: str) -> bool:
    """Return whether nothing in `text` shows: spaces, format characters and fillers at most.

    A page copied before its answer had arrived often holds a zero-width space (U+200B) as response.
    """
    text = (
        text.strip()
    )  # most texts show at once; of long ones that do not, each character is asked once
    return all(map(_is_invisible, text[:1])) and all(map(_is_invisible, set(text)))


def _is_invisible(character: str) -> bool:
    return character in _FILLERS or unicodedata.category(character) in _INVISIBLE


def _checked(turns: list[tuple[Any, Any]]) -> list[Message]:
    messages: list[Message] = []
    for number, (name, content) in enumerate(turns, start=1):
        role = _ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            raise _RejectedError(
                Reason.BAD_ROLES,
                f"turn {number} has the unknown role {_printable(str(name))[:40]!r}; "
                "known: system, user, assistant (or human, gpt)",
            )
        _check_text(f"turn {number} ({role})", content)
        messages.append({"role": role, "content": content})
    if messages and messages[0]["role"] == "system" and is_blank(messages[0]["content"]):
        messages = messages[1:]
    _check_order(messages)
    for message in messages[:-1]:
        if is_blank(message["content"]):
            raise _RejectedError(Reason.EMPTY_PROMPT, f"an empty {message['role']} turn")
    if is_blank(messages[-1]["content"]):
        raise _RejectedError(Reason.NO_RESPONSE, "the response is empty")
    return messages


def _check_order(messages: list[Message]) -> None:
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns:
        raise _RejectedError(Reason.EMPTY_PROMPT, "there are no user and assistant turns")
    for position, role in enumerate(turns):
        expected = ("user", "assistant")[position % 2]
        if role != expected:
            number = position + 1 + len(roles) - len(turns)
            raise _RejectedError(
                Reason.BAD_ROLES, f"turn {number} is the {role}'s, expected the {expected}'s"
            )
    if turns[-1] != "assistant":
        raise _RejectedError(Reason.NO_RESPONSE, "the last turn is the user's")


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise _RejectedError(Reason.NOT_TEXT, f"{name} is {_kind(text)}, expected text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _RejectedError(
            Reason.ENCODING,
            f"{name} is not valid Unicode (bytes that are not UTF-8, or half a pair)",
        ) from None
    if "\0" in text:
        raise _RejectedError(Reason.ENCODING, f"{name} holds a NUL character")


def _kind(value: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list"}
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "an object"
    return names.get(type(value), f"a {type(value).__name__}")


def _keys(record: Mapping[Any, Any]) -> str:
    """Name the keys that are there, in one short line."""
    if not record:
        return "no keys"
    shown = [_printable(str(key))[:40] for key in list(record)[:_SHOWN_KEYS]]
    more = len(record) - len(shown)
    return f"keys {', '.join(shown)}" + (f" and {more} more" if more else "")


def _printable(text: str) -> str:
    """Return `text` on one line, in characters that every terminal and file can take."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())

"""Signs that a usable record deserves a look, read off its text alone; phrases are English."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum

from lead_core.records import Message


class Sign(StrEnum):
    """What can be odd about a record that the pipeline accepts: a closed vocabulary."""

    REPLACEMENT_CHARACTER = (
        "replacement_character"  # U+FFFD: text was lost in an earlier conversion
    )
    MOJIBAKE = "mojibake"  # UTF-8 that was once read as Windows-1252, like "itâ€™s"
    CONTROL_CHARACTER = "control_character"  # or a byte order mark inside the text
    ECHO = "echo"  # the response is the prompt
    REFUSAL = "refusal"  # the response declines, or speaks of itself as an AI
    POLITENESS_ONLY = "politeness_only"
    URL_ONLY = "url_only"
    REPETITION = "repetition"  # the response goes round in circles
    VERY_SHORT = "very_short"  # against the responses of its own source
    VERY_LONG = "very_long"
    NEAR_DUPLICATE = "near_duplicate"  # equal but for case, punctuation and spacing
    SAME_PROMPT = "same_prompt"  # as an earlier record, with another response
    SAME_RESPONSE = "same_response"  # as an earlier record, to another prompt


REPETITION_MIN_PASSAGES = 50  # fewer say nothing
REPETITION_MIN_NEW = 0.4  # share of the passages, in a text that is not going round in circles

_READ_CHARACTERS = 100_000  # of one response: loops show long before, and memory stays small
_HEAD_CHARACTERS = 300  # of a response: where refusals stand
_POLITE_CHARACTERS = 400  # longer responses say more than courtesies
_SNIPPET_CHARACTERS = 60
_PASSAGE_WORDS = 4
_PASSAGE_CHARACTERS = 10  # where words are not set apart by spaces
_LONGEST_WORD = 15  # characters on average; above, the text has no spaces between words

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
_ASCII_NOT_ALPHANUMERIC = bytes(byte for byte in range(128) if not chr(byte).isalnum())
_URL = re.compile(r"<?(?:https?://|www\.)\S", re.IGNORECASE)


def _mojibake_pattern() -> re.Pattern[str]:
    """Match what UTF-8 looks like when it is read as Windows-1252 or Latin-1.

    A leading byte and what can follow it. Where a capital letter before a quotation mark would match
    (as in „Spaß“), several in a row are needed.
    """
    bytes_after = "".join(
        bytes([byte]).decode("cp1252", "ignore") + chr(byte) for byte in range(0x80, 0xC0)
    )
    after = f"[{re.escape(bytes_after)}]"
    return re.compile(
        f"[ÂÃ]{after}|â€{after}|ï»¿|ï¿½|(?:[ÄÅÎÏÐÑØÙ]{after}){{3,}}|(?:[ã-é]{after}{after}){{2,}}"
    )


_MOJIBAKE = _mojibake_pattern()

_REFUSAL = re.compile(
    r"(?:^[^\n]{0,100}?\b(?:as an? (?:ai|artificial intelligence)"
    r"|i(?:'m| am) (?:just |only )?an? (?:ai|artificial intelligence|(?:large )?language model))\b"
    r"|^(?:(?:i(?:'m| am) )?(?:very |truly |so )?(?:sorry|afraid)|(?:i|my) apolog[a-z]+"
    r"|unfortunately)[^.!?\n]{0,60}?\bi(?: (?:can(?:not|'t| not)|do(?: not|n't) have|won't|will not)\b"
    r"|(?:'m| am) (?:unable|not able)\b)"
    r"|^i(?: can(?:not|'t| not)|(?:'m| am) (?:unable|not able) to)"
    r" (?:assist|help|provide|fulfil?l|comply|answer|generate|create|do that|support)\b)"
)

# Longer ones first: no phrase is tried again once it matched, so that time stays linear.
_COURTESIES = (
    r"(?:that's|that is|what) an? (?:great|good|excellent) question|(?:great|good) question",
    r"thank(?:s| you)(?: (?:so|very) much| a lot)?(?: for [\w ]{1,40})?",
    r"you(?:'re| are)(?: very| most)? welcome",
    r"(?:i'm |i am )?(?:glad|happy) (?:to|i could) (?:be of )?(?:help|assist(?:ance)?)(?: you)?",
    r"(?:i )?hope (?:this|that|it) helps|have a (?:great|nice|good|wonderful) (?:day|one)",
    r"(?:please )?let me know if (?:you|there)[\w' ]{0,60}|(?:please )?feel free to ask[\w' ]{0,40}",
    r"(?:please )?(?:do not|don't) hesitate to [\w' ]{1,40}|if you have any [\w' ]{1,40}",
    r"(?:is there anything|what) else (?:that )?(?:i can|can i) (?:help|assist|do)[\w' ]{0,30}",
    r"how (?:can|may) i (?:help|assist) you[\w' ]{0,20}|here (?:you go|it is|you are)",
    r"hello|hi(?: there)?|hey|(?:it's )?my pleasure|good(?:bye| luck| morning| afternoon| evening)|bye",
    r"sure(?: thing)?|certainly|of course|absolutely|definitely|ok(?:ay)?|alright|great|no problem",
)
_POLITE = re.compile(rf"(?>(?:{'|'.join(_COURTESIES)})(?:[\s,.!?;:-]+|$))++")


def find_signs(messages: Sequence[Message]) -> Iterator[tuple[Sign, str]]:
    """Yield each sign in a conversation once, with one printable line about it.

    Encoding trouble is looked for in all turns, everything else in the response. Signs that need other
    records (lengths, repeats) are not found here.
    """
    yield from _encoding_signs(messages)
    response = messages[-1]["content"].strip()
    prompt = messages[-2]["content"].strip()
    if response.casefold() == prompt.casefold():
        yield Sign.ECHO, snippet(response)
    head = response[:_HEAD_CHARACTERS].lower().replace("’", "'")
    if _REFUSAL.search(head):
        yield Sign.REFUSAL, snippet(response)
    polite = response[: _POLITE_CHARACTERS + 1].lower().replace("’", "'")
    one_word = " " not in polite  # may be the answer: to a riddle, a translation
    if not one_word and len(polite) <= _POLITE_CHARACTERS and _POLITE.fullmatch(polite):
        yield Sign.POLITENESS_ONLY, snippet(response)
    if _URL.match(response) and all(_URL.match(word) for word in response.split()):
        yield Sign.URL_ONLY, snippet(response)
    share = new_passages(response)
    if share < REPETITION_MIN_NEW:
        yield Sign.REPETITION, f"{share:.0%} of its passages are new: {snippet(response)}"


def _encoding_signs(messages: Sequence[Message]) -> Iterator[tuple[Sign, str]]:
    found: set[Sign] = set()
    for message in messages:
        text, role = message["content"], message["role"]
        candidates = [(Sign.CONTROL_CHARACTER, _CONTROL.search(text))]
        if not text.isascii():
            candidates += [
                (Sign.REPLACEMENT_CHARACTER, re.search("\ufffd", text)),
                (Sign.MOJIBAKE, _MOJIBAKE.search(text)),
            ]
        for sign, match in candidates:
            if match and sign not in found:
                found.add(sign)
                around = text[max(0, match.start() - 20) : match.end() + 20]
                yield sign, f"U+{ord(match[0][0]):04X} in the {role}'s text: {snippet(around)}"


def new_passages(text: str) -> float:
    """Return the share of passages of four words in `text` that did not come before; 1 if it is short.

    Of ten characters where words are not set apart by spaces. Looks at the first 100,000 characters.
    """
    text = text[:_READ_CHARACTERS]
    words: Sequence[str] = text.split()
    size = _PASSAGE_WORDS
    if len(words) * _LONGEST_WORD < len(text):
        words, size = text, _PASSAGE_CHARACTERS
    passages = len(words) - size + 1
    if passages < REPETITION_MIN_PASSAGES:
        return 1.0
    return len(set(zip(*(words[i:] for i in range(size)), strict=False))) / passages


def plain_form(messages: Sequence[Message]) -> str:
    """Return the texts of a conversation without case, punctuation and spacing."""
    return "\n".join(_plain_text(message["content"]) for message in messages)


def _plain_text(text: str) -> str:
    if text.isascii():  # ten times as fast, and most texts are
        return text.lower().encode("ascii").translate(None, _ASCII_NOT_ALPHANUMERIC).decode("ascii")
    return _NOT_ALPHANUMERIC.sub("", text.casefold())


def snippet(text: str) -> str:
    """Return the start of `text` in quotes, on one line, in characters that a terminal can take."""
    head = " ".join(text[: 4 * _SNIPPET_CHARACTERS].split())
    cut = len(head) > _SNIPPET_CHARACTERS or len(text) > 4 * _SNIPPET_CHARACTERS
    return f'"{printable(head[:_SNIPPET_CHARACTERS])}{"..." if cut else ""}"'


def printable(text: str) -> str:
    """Return `text` with control characters, marks of direction and half surrogates escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )

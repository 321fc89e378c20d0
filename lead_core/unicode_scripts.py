"""Which script a text is written in, by counting code points; a script is not a language."""

from __future__ import annotations

import re

import numpy as np

NO_LETTERS = "none"
OTHER = "other"

_READ_CHARACTERS = 100_000  # of one text: the script shows long before
_ASCII_LETTER = re.compile("[A-Za-z]")

# The blocks of the scripts that most text is in. Inside a block everything counts as its script, which
# for the few digits and marks there is not exact.
_BLOCKS = {
    "Latin": [
        (0x41, 0x5A),
        (0x61, 0x7A),
        (0xC0, 0xD6),
        (0xD8, 0xF6),
        (0xF8, 0x24F),
        (0x1E00, 0x1EFF),
        (0x2C60, 0x2C7F),
        (0xA720, 0xA7FF),
        (0xFF21, 0xFF3A),
        (0xFF41, 0xFF5A),
    ],
    "Greek": [(0x370, 0x3FF), (0x1F00, 0x1FFF)],
    "Cyrillic": [(0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)],
    "Armenian": [(0x531, 0x58F)],
    "Hebrew": [(0x591, 0x5F4), (0xFB1D, 0xFB4F)],
    "Arabic": [(0x600, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)],
    "Devanagari": [(0x900, 0x97F)],
    "Bengali": [(0x980, 0x9FF)],
    "Gurmukhi": [(0xA00, 0xA7F)],
    "Gujarati": [(0xA80, 0xAFF)],
    "Oriya": [(0xB00, 0xB7F)],
    "Tamil": [(0xB80, 0xBFF)],
    "Telugu": [(0xC00, 0xC7F)],
    "Kannada": [(0xC80, 0xCFF)],
    "Malayalam": [(0xD00, 0xD7F)],
    "Sinhala": [(0xD80, 0xDFF)],
    "Thai": [(0xE00, 0xE7F)],
    "Lao": [(0xE80, 0xEFF)],
    "Tibetan": [(0xF00, 0xFFF)],
    "Myanmar": [(0x1000, 0x109F)],
    "Georgian": [(0x10A0, 0x10FF), (0x1C90, 0x1CBF)],
    "Hangul": [(0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF)],
    "Ethiopic": [(0x1200, 0x139F)],
    "Khmer": [(0x1780, 0x17FF)],
    "Mongolian": [(0x1800, 0x18AF)],
    "Kana": [(0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)],
    "Han": [(0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3134F)],
}
SCRIPTS = (*_BLOCKS, OTHER)

_RANGES = sorted((first, last, name) for name, blocks in _BLOCKS.items() for first, last in blocks)
_FIRST = np.array([first for first, _, _ in _RANGES], dtype=np.uint32)
_LAST = np.array([last for _, last, _ in _RANGES], dtype=np.uint32)
_SCRIPT = np.array([SCRIPTS.index(name) for _, _, name in _RANGES])


def main_script(text: str) -> str:
    """Return the script of most letters in the first 100,000 characters of `text` (valid Unicode).

    One of `SCRIPTS`; ``other`` stands for letters of all other scripts, ``none`` for text without
    letters.
    """
    text = text[:_READ_CHARACTERS]
    if text.isascii():
        return "Latin" if _ASCII_LETTER.search(text) else NO_LETTERS
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    block = np.searchsorted(_FIRST, codes, side="right") - 1
    known = (block >= 0) & (codes <= _LAST[block])
    counts = np.bincount(_SCRIPT[block[known]], minlength=len(SCRIPTS))
    counts[-1] = sum(chr(code).isalpha() for code in codes[~known & (codes > 0x24F)])
    return SCRIPTS[int(counts.argmax())] if counts.any() else NO_LETTERS

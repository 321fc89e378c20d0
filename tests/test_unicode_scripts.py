import pytest
from hypothesis import given
from hypothesis import strategies as st

from lead_core.unicode_scripts import NO_LETTERS, OTHER, SCRIPTS, main_script


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello, world!", "Latin"),
        ("Grüße aus Łódź", "Latin"),
        ("“12 – 34”", NO_LETTERS),
        ("12 + 3 = 15", NO_LETTERS),
        ("", NO_LETTERS),
        ("🙂🙂", NO_LETTERS),
        ("Привет, world", "Cyrillic"),
        ("Καλημέρα", "Greek"),
        ("שלום", "Hebrew"),
        ("مرحبا بالعالم", "Arabic"),
        ("नमस्ते", "Devanagari"),
        ("สวัสดี", "Thai"),
        ("你好,世界 OK", "Han"),
        ("こんにちは世界", "Kana"),
        ("안녕하세요", "Hangul"),
        ("ᚠᚢᚦᚨᚱᚲ", OTHER),
        ("𠀀𠀁", "Han"),
    ],
)
def test_the_script_of_most_letters(text, script):
    assert main_script(text) == script


@given(st.text())
def test_every_text_has_one_script_or_none(text):
    assert main_script(text) in (*SCRIPTS, NO_LETTERS)

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lead_core.text_signs import Sign, find_signs, new_passages, plain_form, printable, snippet


def say(prompt, response):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def signs(response, prompt="What?"):
    return [sign for sign, _ in find_signs(say(prompt, response))]


LOOP = "and then it goes on " * 40
PROSE = " ".join(f"word{i}" for i in range(300))


@pytest.mark.parametrize(
    ("response", "sign"),
    [
        ("a caf\ufffd", Sign.REPLACEMENT_CHARACTER),
        ("itâ€™s here", Sign.MOJIBAKE),
        ("cafÃ© crème", Sign.MOJIBAKE),
        ("25 Â°C", Sign.MOJIBAKE),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", Sign.MOJIBAKE),
        ("ä½\xa0å¥½", Sign.MOJIBAKE),
        ("ring \x07", Sign.CONTROL_CHARACTER),
        ("a\ufeffb", Sign.CONTROL_CHARACTER),
        ("a\x85b", Sign.CONTROL_CHARACTER),
        ("I'm sorry, but I can't help with that.", Sign.REFUSAL),
        ("I’m sorry, I cannot do this.", Sign.REFUSAL),
        ("Unfortunately, I am unable to open links.", Sign.REFUSAL),
        ("My apologies, but I do not have access to it.", Sign.REFUSAL),
        ("I cannot fulfill that request.", Sign.REFUSAL),
        ("As an AI language model, I have no opinions.", Sign.REFUSAL),
        ("Well, I am just an AI, so no.", Sign.REFUSAL),
        ("Sure! Let me know if you have any questions.", Sign.POLITENESS_ONLY),
        ("Thank you so much for your help!", Sign.POLITENESS_ONLY),
        ("You're welcome! Have a great day.", Sign.POLITENESS_ONLY),
        ("Hello! How can I assist you today?", Sign.POLITENESS_ONLY),
        ("That's a great question!", Sign.POLITENESS_ONLY),
        ("https://example.com/a?b", Sign.URL_ONLY),
        ("<http://a.b>\n www.c.d", Sign.URL_ONLY),
        (LOOP, Sign.REPETITION),
        ("哈哈笑" * 60, Sign.REPETITION),
        ("x" * 200, Sign.REPETITION),
        ("what?", Sign.ECHO),
    ],
)
def test_a_sign_is_found(response, sign):
    assert signs(response) == [sign]


@pytest.mark.parametrize(
    "response",
    [
        "4",
        "Yes.",
        "Thanks",
        "Viel Spaß“, sagte er … CAFÉ» É«",
        "São Paulo, ÅNGSTRÖM, naïve – “quoted”",
        "tabs\tand\r\nlines\n",
        "I am sorry to hear that. Try this: restart it.",
        "The patient said: I cannot help it.",
        "Sure! The capital of France is Paris.",
        "See https://example.com for more.",
        "const text =\n  'I am an AI assistant';",
        "你好,世界。今天天气很好,我们去公园散步,看花看鸟,晚上回家做饭。",
        PROSE,
        "\n".join(f"| row {i} | {i * i} |" for i in range(100)),
    ],
)
def test_ordinary_text_shows_no_sign(response):
    assert signs(response) == []


def test_encoding_trouble_is_found_in_every_turn_and_told_with_its_place():
    [(sign, detail)] = find_signs(say("What is \x1b[31mred?", "Blood."))
    assert sign is Sign.CONTROL_CHARACTER
    assert detail == r'''U+001B in the user's text: "What is \x1b[31mred?"'''


def test_the_same_sign_is_told_once():
    assert signs("b\ufffd \ufffd", prompt="a\ufffd") == [Sign.REPLACEMENT_CHARACTER]


def test_passages_are_counted_by_hand():
    words = "a b c d " * 15  # 60 words, 57 passages of four, four different ones
    assert new_passages(words) == 4 / 57
    assert new_passages("a b c d " * 10) == 1.0  # 37 passages say nothing
    assert new_passages(PROSE) == 1.0


def test_a_plain_form_has_letters_and_digits_only():
    assert plain_form(say("Hello, World_1!", "É — ß")) == "helloworld1\néss"
    assert plain_form(say("A-b", "C")) == plain_form(say("a b", "c."))
    assert plain_form(say("ab", "c")) != plain_form(say("a", "bc"))


def test_a_snippet_is_one_printable_line():
    assert snippet("a\n\tb\x1b") == r'"a b\x1b"'
    assert snippet("x" * 100) == f'"{"x" * 60}..."'
    assert printable("a\u202eb\ud800") == r"a\u202eb\ud800"


@pytest.mark.parametrize(
    "text",
    [
        "let me know if you " * 3000,
        "thank you for a " * 3000,
        "http://a," * 5000 + " x",
        "i'm sorry " * 5000,
        "Ã" * 50_000,
        "ãx" * 25_000,
    ],
    ids=lambda text: text[:10],
)
def test_no_text_takes_long(text):
    start = time.perf_counter()
    list(find_signs(say("x", text)))
    list(find_signs(say("x", text[:390] + "#")))
    assert time.perf_counter() - start < 2


@given(st.text(), st.text())
def test_no_text_raises_and_every_detail_is_printable(prompt, response):
    for sign, detail in find_signs(say(prompt, response)):
        assert isinstance(sign, Sign)
        assert detail.isprintable()

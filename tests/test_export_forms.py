import pytest
from hypothesis import given
from hypothesis import strategies as st

from lead_core.export_forms import Form, prompt_and_completion, to_record, what_is_lost
from lead_core.records import Rejection, convert, is_blank

TURN = {"system": "Be brief.", "user": "Why?", "assistant": "Because."}


def talk(*roles):
    return [{"role": role, "content": f"{TURN[role]} {i}"} for i, role in enumerate(roles)]


SINGLE = talk("user", "assistant")
LONG = talk("system", "user", "assistant", "user", "assistant", "user", "assistant")

text = st.text(min_size=1).filter(
    lambda t: not is_blank(t) and "\0" not in t and not any(0xD800 <= ord(c) <= 0xDFFF for c in t)
)


@st.composite
def conversations(draw):
    exchanges = draw(st.lists(st.tuples(text, text), min_size=1, max_size=4))
    system = [{"role": "system", "content": draw(text)}] if draw(st.booleans()) else []
    turns = [
        {"role": role, "content": content}
        for exchange in exchanges
        for role, content in zip(("user", "assistant"), exchange, strict=True)
    ]
    return [*system, *turns]


@pytest.mark.parametrize("form", Form)
@given(messages=conversations())
def test_every_conversation_that_a_pool_may_hold_comes_back_from_every_form(form, messages):
    assert not isinstance(convert({"messages": messages}), Rejection)
    record = to_record(form, messages)
    assert convert(record) == messages
    assert what_is_lost(record, messages) is None


def test_alpaca_holds_earlier_turns_as_history_and_the_system_turn_apart():
    assert to_record(Form.ALPACA, LONG) == {
        "instruction": "Why? 5",
        "input": "",
        "output": "Because. 6",
        "system": "Be brief. 0",
        "history": [["Why? 1", "Because. 2"], ["Why? 3", "Because. 4"]],
    }
    single = to_record(Form.ALPACA, SINGLE)
    assert (single["system"], single["history"]) == (
        "",
        [],
    )  # keys that a loader finds in every row


def test_sharegpt_names_the_speakers_its_own_way():
    turns = to_record(Form.SHAREGPT, LONG)["conversations"]
    assert [turn["from"] for turn in turns] == ["system", *["human", "gpt"] * 3]
    assert turns[0] == {"from": "system", "value": "Be brief. 0"}


def test_a_completion_is_the_last_turn_alone():
    record = prompt_and_completion(LONG)
    assert record == {"prompt": LONG[:-1], "completion": LONG[-1:]}


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize(
    "roles",
    [
        ("user", "assistant", "assistant"),
        ("assistant", "user", "assistant"),
        ("user", "system", "assistant"),
        ("assistant",),
    ],
)
def test_what_a_form_cannot_hold_is_said_not_lost(form, roles):
    messages = talk(*roles)
    reason = what_is_lost(to_record(form, messages), messages)
    assert reason
    assert "\n" not in reason


def test_the_reason_says_what_our_reader_found():
    messages = talk("user", "assistant", "assistant")
    assert what_is_lost(to_record(Form.MESSAGES, messages), messages) == (
        "bad_roles: turn 3 is the assistant's, expected the user's"
    )
    assert what_is_lost(to_record(Form.ALPACA, messages), messages) == (
        "this form holds only 2 of its 3 turns as they are"
    )

"""Recognising and converting one record; the texts of refusals are part of the interface."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lead_core.records import (
    ACCEPTED_FORMS,
    Reason,
    Rejection,
    convert,
    form_of,
    is_blank,
    unfold,
)

CONVERSATION = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": CONVERSATION},
        {"conversations": CONVERSATION},
        {"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}]},
        {"messages": [{"from": "user", "value": "Hi?"}, {"from": "assistant", "value": "Hello."}]},
        {"instruction": "Hi?", "input": "", "output": "Hello."},
        {"instruction": "Hi?", "output": "Hello."},
        {"instruction": "Hi?", "input": None, "response": "Hello.", "output": "Hello."},
        {"instruction": "Hi?", "output": "", "response": "Hello."},
        {"prompt": "Hi?", "response": "Hello."},
        {"prompt": "Hi?", "completion": "Hello."},
        {"question": "Hi?", "answer": "Hello.", "id": 5, "score": float("nan")},
        {"problem": "Hi?", "solution": "Hello.", "level": "Level 1", "type": "Algebra"},
        {"messages": None, "instruction": "Hi?", "output": "Hello."},
    ],
    ids=lambda record: "+".join(record),
)
def test_every_known_form_becomes_the_same_conversation(record):
    assert convert(record) == CONVERSATION


@pytest.mark.parametrize(
    ("record", "form"),
    [
        ({"messages": CONVERSATION, "prompt": "a"}, "messages"),
        ({"messages": None, "instruction": "a", "output": "b"}, "instruction"),
        ({"question": 1, "answer": 2}, "question"),
        ({"text": "a"}, None),
        (["a"], None),
        (None, None),
    ],
)
def test_a_form_is_named_by_the_key_that_decides(record, form):
    assert form_of(record) == form


def test_the_input_of_an_alpaca_record_follows_its_instruction():
    messages = convert({"instruction": "Add.", "input": "2 and 3", "output": "5"})
    assert messages == turns(("user", "Add.\n\n2 and 3"), ("assistant", "5"))


def test_every_instance_of_an_instruction_is_a_record_of_its_own():
    record = {
        "instruction": "Add.",
        "instances": [
            {"instruction_with_input": "Add. 2 and 3", "input": "2 and 3", "output": "5"},
            {"input": "4 and 5", "constraints": "Write it as a word.", "output": "nine"},
            {"input": "", "constraints": "None.", "output": "0"},
        ],
    }
    assert [convert(one) for one in unfold(record)] == [
        turns(("user", "Add.\n\n2 and 3"), ("assistant", "5")),
        turns(("user", "Add.\nWrite it as a word.\n\n4 and 5"), ("assistant", "nine")),
        turns(("user", "Add."), ("assistant", "0")),
    ]


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "a", "output": "b", "instances": [{"output": "c"}]},
        {"messages": CONVERSATION, "instances": [{"output": "c"}]},
        {"instruction": "a", "instances": []},
        {"instruction": "a", "instances": [{"output": "b"}, "c"]},
        {"instruction": "a", "instances": "b"},
        "a",
    ],
    ids=str,
)
def test_any_other_record_stands_for_itself(record):
    [same] = unfold(record)
    assert same is record


def test_output_comes_before_response_where_a_file_has_both():
    messages = convert({"instruction": "Add.", "response": "first", "output": "second"})
    assert messages[-1]["content"] == "second"


def test_text_is_taken_over_exactly():
    text = "  é\r\n\u2028 x \t"
    assert convert({"prompt": text, "response": text}) == turns(("user", text), ("assistant", text))


def test_a_system_text_and_a_history_come_first():
    record = {
        "system": "Be brief.",
        "history": [["One?", "1"]],
        "instruction": "Two?",
        "output": "2",
    }
    expected = [("system", "Be brief."), ("user", "One?"), ("assistant", "1")]
    assert convert(record) == turns(*expected, ("user", "Two?"), ("assistant", "2"))


def test_an_empty_system_turn_is_dropped():
    assert (
        convert({"messages": [{"role": "system", "content": " "}, *CONVERSATION]}) == CONVERSATION
    )


def test_several_turns_are_kept():
    messages = [*CONVERSATION, *CONVERSATION]
    assert convert({"messages": messages}) == messages


def said(*roles):
    return {"messages": turns(*((role, "text") for role in roles))}


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        ([1], Reason.UNKNOWN_FORMAT, "a record must be an object, got a list"),
        ("text", Reason.UNKNOWN_FORMAT, "a record must be an object, got text"),
        ({"text": "a", "meta": 1}, Reason.UNKNOWN_FORMAT, "found keys text, meta; accepted: "),
        ({}, Reason.UNKNOWN_FORMAT, "found no keys; accepted: "),
        (
            {"instruction": "a", "instances": []},
            Reason.NO_RESPONSE,
            "instruction without output or response; found keys instruction, instances; accepted: ",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            Reason.PREFERENCE,
            "chosen/rejected pairs are preference data, instruction tuning needs one response each",
        ),
        ({"question": "a", "answer": 1}, Reason.NOT_TEXT, "answer is a number, expected text"),
        (
            {"instruction": ["a"], "output": "b"},
            Reason.NOT_TEXT,
            "instruction is a list, expected text",
        ),
        ({"messages": "a"}, Reason.NOT_TEXT, "messages is text, expected a list of turns"),
        ({"messages": ["a"]}, Reason.NOT_TEXT, "turn 1 of messages is text, expected an object"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
            Reason.NOT_TEXT,
            "turn 1 (user) is a list, expected text",
        ),
        (
            {"prompt": "a", "response": "b", "image": "x.png"},
            Reason.NOT_TEXT,
            "it has image; only plain",
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
            Reason.TOOL_CALL,
            "turn 1 is a tool call; only plain text is supported",
        ),
        (said("user", "tool", "assistant"), Reason.TOOL_CALL, "turn 2 is a tool call"),
        ({**said("user", "assistant"), "tools": "[...]"}, Reason.TOOL_CALL, "it defines tools"),
        (
            said("user", "user", "assistant"),
            Reason.BAD_ROLES,
            "turn 2 is the user's, expected the assis",
        ),
        (said("assistant"), Reason.BAD_ROLES, "turn 1 is the assistant's, expected the user's"),
        (
            said("system", "assistant"),
            Reason.BAD_ROLES,
            "turn 2 is the assistant's, expected the user's",
        ),
        (
            said("user", "system", "assistant"),
            Reason.BAD_ROLES,
            "turn 2 is the system's, expected the",
        ),
        (
            said("user", "narrator"),
            Reason.BAD_ROLES,
            "turn 2 has the unknown role 'narrator'; known: ",
        ),
        (
            {"messages": [{"content": "a"}]},
            Reason.BAD_ROLES,
            "turn 1 has no role or from; found keys con",
        ),
        (
            {"messages": [{"role": ["user"], "content": "a"}]},
            Reason.BAD_ROLES,
            "turn 1 has the unknown",
        ),
        (said("user", "assistant", "user"), Reason.NO_RESPONSE, "the last turn is the user's"),
        ({"prompt": "a", "response": " \n"}, Reason.NO_RESPONSE, "the response is empty"),
        ({"instruction": "a", "output": None}, Reason.NO_RESPONSE, "instruction without output or"),
        ({"prompt": " ", "response": "b"}, Reason.EMPTY_PROMPT, "an empty user turn"),
        ({"messages": []}, Reason.EMPTY_PROMPT, "there are no user and assistant turns"),
        ({"prompt": "a\0", "response": "b"}, Reason.ENCODING, "prompt holds a NUL character"),
        ({"prompt": "a", "response": "\ud800"}, Reason.ENCODING, "response is not valid Unicode"),
        (
            {"prompt": "a", "response": "b", "history": 3},
            Reason.NOT_TEXT,
            "history must be a list of",
        ),
    ],
    ids=str,
)
def test_a_refusal_has_a_reason_and_says_what_was_found(record, reason, detail):
    rejection = convert(record)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == reason
    assert rejection.detail.startswith(detail)


def test_an_unknown_form_names_what_is_accepted():
    assert ACCEPTED_FORMS in convert({"text": "a"}).detail


def test_odd_keys_are_shown_on_one_printable_line():
    detail = convert({"a\nb": 1, "\ud800": 2, **{f"k{i}": i for i in range(20)}}).detail
    assert "\n" not in detail
    detail.encode()
    assert "and 10 more" in detail


KEYS = ["messages", "conversations", "role", "content", "from", "value", "instruction", "input"]
KEYS += [
    "instances",
    "constraints",
    "output",
    "prompt",
    "question",
    "answer",
    "history",
    "system",
    "tools",
    "chosen",
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_any_json_value_is_converted_or_refused_never_an_exception(value):
    for result in map(convert, unfold(value)):
        if isinstance(result, Rejection):
            assert "\n" not in result.detail
        else:
            assert result[-1]["role"] == "assistant"
            assert not any(is_blank(message["content"]) for message in result)

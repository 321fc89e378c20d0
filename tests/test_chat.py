import pytest
from conftest import make_tokenizer

from lead_core.chat import EncodingError, assistant_header, check_tokenizer, count_tokens, encode
from lead_core.errors import LeadError


def say(*turns):
    roles = ["user", "assistant"] * len(turns)
    return [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]


def parts(tokenizer, messages):
    encoded = encode(tokenizer, messages)
    ids = encoded.input_ids
    return (
        tokenizer.decode(ids[: encoded.prompt_start]),
        tokenizer.decode(ids[encoded.prompt_start : encoded.response_start]),
        tokenizer.decode(ids[encoded.response_start :]),
    )


def test_the_response_ends_with_the_end_of_turn_token_and_nothing_behind_it(tiny_tokenizer):
    assert parts(tiny_tokenizer, say("hi", "yes")) == (
        "<s>user\n",
        "hi</s>\n<s>assistant\n",
        "yes</s>",
    )


def test_in_a_conversation_only_the_last_assistant_turn_is_the_response(tiny_tokenizer):
    head, prompt, response = parts(tiny_tokenizer, say("a", "b", "c", "d"))
    assert head == "<s>user\n"
    assert prompt == "a</s>\n<s>assistant\nb</s>\n<s>user\nc</s>\n<s>assistant\n"
    assert response == "d</s>"


def test_a_system_message_is_prompt_but_not_user_part(tiny_tokenizer):
    messages = [{"role": "system", "content": "be brief"}, *say("hi", "yes")]
    assert parts(tiny_tokenizer, messages)[0] == "<s>system\nbe brief</s>\n<s>user\n"


def test_a_response_that_quotes_the_end_token_is_kept_whole(tiny_tokenizer):
    assert parts(tiny_tokenizer, say("hi", "a </s> b"))[2] == "a </s> b</s>"


def test_a_template_without_an_end_token_gets_one():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    assert parts(tokenizer, say("hi", "yes"))[2] == "yes</s>"


def test_roles_that_the_template_refuses_are_an_encoding_error():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(EncodingError, match="the chat template refuses it: roles must alternate"):
        encode(tokenizer, say("hi", "yes"))


def test_a_template_that_rewrites_the_prompt_is_an_encoding_error():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(EncodingError, match="changes the prompt"):
        encode(tokenizer, say("hi", "yes"))


def test_the_header_is_what_opens_an_assistant_turn(tiny_tokenizer):
    assert tiny_tokenizer.decode(assistant_header(tiny_tokenizer)) == "<s>assistant\n"


def test_without_a_header_the_first_token_is_bos():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert assistant_header(tokenizer) == [tokenizer.bos_token_id]


def test_a_model_without_a_chat_template_is_refused_with_advice():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(
        LeadError, match="base has no chat template; use an instruction-tuned model"
    ):
        check_tokenizer(tokenizer, "base")


def test_counted_tokens_are_those_that_encoding_gives():
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=99)
    conversations = [say("hi", "yes"), say("a", "bé", "c", "d </s> e"), say("", "x")]
    counted = count_tokens(tokenizer, conversations)
    encoded = [encode(tokenizer, messages) for messages in conversations]
    assert counted == [
        (one.response_start, len(one.input_ids) - one.response_start) for one in encoded
    ]
    assert count_tokens(tokenizer, []) == []


def test_a_conversation_that_the_template_refuses_is_counted_as_an_error():
    tokenizer = make_tokenizer()
    refuse = "{% if messages[0]['content'] == 'no' %}{{ raise_exception('why') }}{% endif %}"
    tokenizer.chat_template = refuse + tokenizer.chat_template
    first, second, third = count_tokens(tokenizer, [say("a", "b"), say("no", "b"), say("a", "b")])
    assert first == third
    assert isinstance(second, EncodingError)
    assert str(second) == "the chat template refuses it: why"

"""A check-up: every finding with its line, counts that add up, and agreement with `prepare`."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pool import pair, pairs, prepared, rejected
from test_records import json_values

from lead_core.checkup import Problem, Tolerances, judge
from lead_core.doctor import count_words, examine, token_counter
from lead_core.records import Reason
from lead_core.sources import RawRecord, read_source
from lead_core.text_signs import Sign

EXACT = 1 << 20  # bytes of index: more than any pool here fills
TOLERANT = Tolerances(rejected=1, duplicates=1, too_long=1, suspicious=1)
STRICT = Tolerances(rejected=0, duplicates=0, too_long=0, suspicious=0)


def check(records, **changes):
    options = {
        "count_lengths": count_words,
        "max_length": None,
        "index_bytes": EXACT,
        "max_examples": 3,
    }
    return examine(records, **{**options, **changes})


def raw(values, source="a"):
    return [RawRecord(source, f"{source}.jsonl", i + 1, i, value) for i, value in enumerate(values)]


def check_values(*values, **changes):
    return check(raw(values), **changes)


def check_file(folder, name, content, **changes):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return check(read_source(str(path), name=None, workspace=folder), **changes)


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


def found(checkup, kind):
    return [(finding.line, finding.detail) for finding in checkup.examples.get(kind, ())]


@pytest.mark.parametrize(
    ("value", "sign", "detail"),
    [
        (
            pair("Say it.", "it is lost \ufffd"),
            Sign.REPLACEMENT_CHARACTER,
            'U+FFFD in the assistant\'s text: "it is lost �"',
        ),
        (
            pair("A menu â€œà la carte", "Soup."),
            Sign.MOJIBAKE,
            'U+00E2 in the user\'s text: "A menu â€œà la carte"',
        ),
        (
            pair("Ring.", "ding\x07"),
            Sign.CONTROL_CHARACTER,
            r'''U+0007 in the assistant's text: "ding\x07"''',
        ),
        (pair("Tell me more.", "TELL me more. "), Sign.ECHO, '"TELL me more."'),
        (pair("Open it.", "I'm sorry, I can't."), Sign.REFUSAL, "\"I'm sorry, I can't.\""),
        (pair("Thanks!", "You're welcome!"), Sign.POLITENESS_ONLY, '"You\'re welcome!"'),
        (pair("Where?", "https://a.b/c"), Sign.URL_ONLY, '"https://a.b/c"'),
        (
            pair("Count.", "one two three four " * 20),
            Sign.REPETITION,
            '5% of its passages are new: "one two three four one two three four one two three four '
            'one..."',
        ),
    ],
)
def test_a_suspicious_record_is_usable_and_named_with_its_line(tmp_path, value, sign, detail):
    checkup = check_file(tmp_path, "x.jsonl", lines(pair("Fine?", "Fine."), value))
    assert checkup.signs == {sign: 1}
    assert found(checkup, sign) == [(2, detail)]
    assert (checkup.read, checkup.usable, checkup.suspicious, checkup.rejected) == (2, 2, 1, {})


LONG = "a response of more than seven words, twice the same"


@pytest.mark.parametrize(
    ("first", "second", "sign", "detail"),
    [
        (
            pair("What is the capital of France?", "Paris"),
            pair("what is  the capital of France", "Paris."),
            Sign.NEAR_DUPLICATE,
            "but for case and punctuation the same as a.jsonl:1",
        ),
        (
            pair("Which?", "This one."),
            pair("Which?", "That one."),
            Sign.SAME_PROMPT,
            "another response to the prompt of a.jsonl:1",
        ),
        (
            pair("Why?", LONG),
            pair("How?", LONG),
            Sign.SAME_RESPONSE,
            "another prompt for the response of a.jsonl:1",
        ),
    ],
)
def test_a_record_that_repeats_a_part_of_another_names_it(first, second, sign, detail):
    checkup = check_values(first, second)
    assert (checkup.signs, checkup.rejected) == ({sign: 1}, {})
    assert found(checkup, sign) == [(2, detail)]


def test_short_answers_may_repeat_and_punctuation_may_be_the_point():
    checkup = check_values(pair("1 < 2?", "Yes."), pair("2 < 3?", "Yes."), pair("1 > 2?", "Yes!"))
    assert checkup.signs == {}


def test_an_exact_duplicate_is_rejected_and_nothing_else_besides():
    one = pair("Which?", LONG)
    checkup = check_values(one, {"question": "Which?", "answer": LONG, "id": 7})
    assert (checkup.rejected, checkup.signs) == ({Reason.DUPLICATE: 1}, {})
    assert found(checkup, Reason.DUPLICATE) == [(2, "the same as a.jsonl:1")]
    assert checkup.duplicates.exact
    assert checkup.duplicates.observed == 1


def said(i, n):
    """A response of `n` different words, seven characters and a space each."""
    return pair(f"Ask {i} {n}?", " ".join(f"{i:03d}{j:04d}" for j in range(n)))


def test_lengths_are_judged_against_their_own_source():
    usual = [said(i, 15 + i % 10) for i in range(200)]
    short, long = pair("Short?", "y"), said(0, 2000)
    verbose = [said(i, 2000) for i in range(300, 450)]
    checkup = check([*raw([*usual, short, long]), *raw(verbose, "b")])
    assert checkup.signs == {Sign.VERY_SHORT: 1, Sign.VERY_LONG: 1}
    assert checkup.by_source["a"].suspicious == checkup.suspicious == 2
    [(line, detail)] = found(checkup, Sign.VERY_SHORT)
    assert line == 201
    assert detail == (
        "its length is 1; half of the responses of a have 136 to 176 characters"
    )  # the quartiles are 135 and 175, told within 1 %
    [(line, detail)] = found(checkup, Sign.VERY_LONG)
    assert line == 202
    assert detail.startswith("its length is 15,999; half of the responses of a")


def test_in_a_small_source_no_length_is_unusual():
    assert check_values(*pairs(50), said(0, 5000)).signs == {}


def test_a_record_with_two_signs_is_suspicious_once():
    usual = [said(i, 15 + i % 10) for i in range(150)]
    checkup = check_values(*usual, pair("Bell?", "\x07"))
    assert checkup.signs == {Sign.CONTROL_CHARACTER: 1, Sign.VERY_SHORT: 1}
    assert checkup.suspicious == 1


@pytest.mark.parametrize(
    ("name", "content", "reason", "line"),
    [
        ("x.jsonl", lines(pair("a", "b")) + "{broken\n", Reason.BAD_JSON, 2),
        (
            "x.json",
            '[\n{"prompt": "a", "response": "b"},\n{"prompt": "c", "resp',
            Reason.CUT_OFF,
            3,
        ),
        ("x.csv", 'prompt,response\na,b\n"c,d\n', Reason.BAD_CSV, 3),
        ("x.jsonl", lines(pair("a", "b"), {"text": "c"}), Reason.UNKNOWN_FORMAT, 2),
        ("x.jsonl", lines(pair("a", "b"), pair("c", " ")), Reason.NO_RESPONSE, 2),
        ("x.jsonl", lines(pair("a", "b"), pair("", "d")), Reason.EMPTY_PROMPT, 2),
        ("x.jsonl", lines(pair("a", "b"), pair("c", "\ud800")), Reason.ENCODING, 2),
        ("x.jsonl", b'{"prompt": "a", "response": "b\xff"}\n', Reason.ENCODING, 1),
        ("x.jsonl", lines(pair("a", "b"), pair("c", "\0")), Reason.ENCODING, 2),
        ("x.jsonl", lines({"prompt": "a", "chosen": "b", "rejected": "c"}), Reason.PREFERENCE, 1),
    ],
)
def test_what_the_pipeline_refuses_is_named_with_its_line(tmp_path, name, content, reason, line):
    checkup = check_file(tmp_path, name, content)
    assert checkup.rejected == {reason: 1}
    assert [finding.line for finding in checkup.examples[reason]] == [line]


def test_facts_of_a_pool():
    checkup = check_values(
        {"messages": [{"role": "system", "content": "Be brief."}, *turn("Hi?", "Hello.")]},
        {"conversations": [*turn("a b", "c d e"), *turn("f", "g h")]},
        {"instruction": "Скажи", "output": "Привет"},
        "no record",
        pair("1 + 1", "2"),
    )
    assert checkup.forms == {
        "conversations": 1, "instruction": 1, "messages": 1, "prompt": 1, "unknown": 1
    }  # fmt: skip
    assert checkup.roles == {"assistant": 5, "user": 5, "system": 1}
    assert checkup.turns == {2: 3, 4: 1}
    assert checkup.scripts == {"Latin": 2, "Cyrillic": 1, "none": 1}
    assert checkup.lengths["prompt"].total == 3 + 6 + 1 + 3
    assert checkup.lengths["response"].total == 1 + 2 + 1 + 1
    assert (checkup.lengths["record"].min, checkup.lengths["record"].max) == (2, 8)


def test_long_conversations_are_counted_together():
    checkup = check_values(*({"messages": turn("a", str(n)) * n} for n in (10, 11, 30)))
    assert checkup.turns == {20: 1, 21: 2}


def turn(prompt, response):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def test_a_limit_costs_records_or_the_ends_of_them(tiny_tokenizer):
    short, long = pair("a", "b"), pair("a", "b" * 100)  # one token a byte, and 18 for the template
    limits = {"count_lengths": token_counter(tiny_tokenizer), "max_length": 50}
    checkup = check_values(short, long, **limits)
    length = checkup.lengths["record"].max
    assert checkup.lengths["record"].min == length - 99
    assert checkup.rejected == {Reason.TOO_LONG: 1}
    assert found(checkup, Reason.TOO_LONG) == [(2, f"{length} tokens, data.max_tokens is 50")]
    cost = checkup.limit_cost
    assert (cost.limit, cost.records, cost.refused, cost.cut_off) == (50, 1, length, length - 50)


def test_what_the_template_refuses_is_rejected(tiny_tokenizer, monkeypatch):
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    monkeypatch.setattr(tiny_tokenizer, "chat_template", strict + tiny_tokenizer.chat_template)
    system = {"system": "Be brief.", **pair("c", "d")}
    checkup = check_values(
        pair("a", "b"), system, pair("e", "f"), count_lengths=token_counter(tiny_tokenizer)
    )
    assert checkup.rejected == {Reason.TEMPLATE: 1}
    assert found(checkup, Reason.TEMPLATE) == [(2, "the chat template refuses it: no system")]


def test_it_refuses_exactly_what_prepare_refuses(tmp_path, tiny_tokenizer):
    files = {
        "a": [*pairs(300), "{broken\n", pair("x", ""), pair("What is 3?", "It is 3."), "[1]\n"],
        "b": [*pairs(5, start=299), pair("long", "x" * 500), pair("long", "x" * 500), {"text": ""}],
    }
    counts = prepared(tmp_path, tiny_tokenizer, files)
    findings = []
    checkup = check(
        [
            record
            for name in files
            for record in read_source(f"{name}.jsonl", name=None, workspace=tmp_path)
        ],
        count_lengths=token_counter(tiny_tokenizer),
        max_length=200,
        on_finding=findings.append,
    )
    assert (checkup.read, checkup.usable) == (counts.read, counts.kept)
    refused = [finding for finding in findings if isinstance(finding.kind, Reason)]
    assert [(f.file, f.line, f.index, f.source, f.kind.value, f.detail) for f in refused] == [
        (row["file"], row["line"], row["index"], row["source"], row["reason"], row["detail"])
        for row in rejected(tmp_path)
    ]


def test_examples_are_the_first_of_their_kind_and_findings_are_all():
    findings = []
    checkup = check_values(*["?"] * 10, max_examples=2, on_finding=findings.append)
    assert [finding.line for finding in checkup.examples[Reason.UNKNOWN_FORMAT]] == [1, 2]
    assert [finding.line for finding in findings] == list(range(1, 11))
    assert check_values("?", max_examples=0).examples == {}


def test_beyond_its_index_a_pool_has_estimated_duplicates_and_no_false_ones():
    rng = random.Random(0)
    distinct = pairs(12_000)
    stream = distinct + rng.choices(distinct, k=4_000)
    rng.shuffle(stream)
    checkup = check_values(*stream, index_bytes=1 << 14)
    duplicates = checkup.duplicates
    assert not duplicates.exact
    assert duplicates.observed == checkup.rejected[Reason.DUPLICATE] < 4_000
    assert abs(duplicates.estimate - 4_000) < 3 * duplicates.standard_error
    assert checkup.signs == {}  # a copy that is not followed is not taken for something else


@settings(max_examples=200)
@given(st.lists(json_values | st.builds(pair, st.text(max_size=9), st.text(max_size=9))))
def test_counts_add_up_for_any_json_values(values):
    findings = []
    checkup = check([*raw(values), *raw(values, "b")], on_finding=findings.append)
    assert checkup.read == 2 * len(values)
    assert checkup.usable + sum(checkup.rejected.values()) == checkup.read
    assert sum(checkup.forms.values()) == checkup.read
    assert sum(checkup.turns.values()) == sum(checkup.scripts.values()) == checkup.usable
    assert len(findings) == sum(checkup.rejected.values()) + sum(checkup.signs.values())
    for source in checkup.by_source.values():
        assert source.read == len(values) == source.usable + source.rejected
        assert source.suspicious <= source.usable
    signed = {(f.source, f.line) for f in findings if isinstance(f.kind, Sign)}
    assert checkup.suspicious == len(signed)
    refused = {(f.source, f.line) for f in findings if isinstance(f.kind, Reason)}
    assert not signed & refused
    judge(checkup, STRICT)


def test_a_clean_pool_is_fine_and_exactly_the_tolerated_share_still_is():
    assert judge(check_values(*pairs(10)), STRICT) == []
    nearly = check_values(*pairs(9), "no record")
    assert judge(nearly, Tolerances(0.1, 0, 0, 0)) == []
    assert judge(nearly, Tolerances(0.09, 0, 0, 0)) == [
        Problem("rejected", "1 of 10 records cannot be used", 0.1, 0.09)
    ]
    many = check_values(*pairs(71), *["no record"] * 29)  # 0.29 * 100 is less than 29 in floats
    assert judge(many, Tolerances(0.29, 0, 0, 0)) == []


def test_every_tolerance_has_its_own_share(tiny_tokenizer):
    checkup = check_values(
        *pairs(5),
        *pairs(2),
        "no record",
        pair("long", "x" * 500),
        pair("Bell?", "\x07"),
        count_lengths=token_counter(tiny_tokenizer),
        max_length=200,
    )
    assert judge(checkup, TOLERANT) == []
    assert judge(checkup, STRICT) == [
        Problem("rejected", "1 of 10 records cannot be used", 0.1, 0),
        Problem("duplicates", "2 of 10 records are duplicates", 0.2, 0),
        Problem("too_long", "1 of 10 records are too long", 0.1, 0),
        Problem("suspicious", "1 of 6 usable records are suspicious", 1 / 6, 0),
    ]


def test_a_cut_off_file_or_a_useless_source_is_never_fine(tmp_path):
    whole = lines(*pairs(200)).replace("}\n", "},\n")
    checkup = check_file(tmp_path, "x.json", f"[{whole}")
    [problem] = judge(checkup, TOLERANT)
    assert problem.name == "cut_off"
    assert problem.detail.startswith("x.json:201: the file ends before the array does")
    useless = check([*raw(pairs(3)), *raw(["?"], "b"), *raw(["?"], "c")])
    assert judge(useless, TOLERANT) == [Problem("nothing_usable", "no record of b, c can be used")]
    assert judge(check([]), TOLERANT)[0].name == "nothing_usable"

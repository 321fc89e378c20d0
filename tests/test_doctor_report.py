"""What `lead doctor` prints; its JSON is an interface."""

import json

import pytest
from test_doctor import check_values
from test_pool import pair, pairs

from lead_core.checkup import Tolerances, judge
from lead_core.doctor_report import MEANINGS, REMEDIES, Diagnosis, as_json, as_text
from lead_core.records import Reason
from lead_core.text_signs import Sign

TOLERANCES = Tolerances(rejected=0.01, duplicates=0.05, too_long=0.05, suspicious=0.05)


def diagnosis(*values, **changes):
    checkup = check_values(*values, **changes)
    return Diagnosis(
        checkup, TOLERANCES, judge(checkup, TOLERANCES), "words", "by spaces", ["a note"], ["do it"]
    )


def test_every_kind_and_every_problem_is_explained():
    assert set(MEANINGS) == {*Reason, *Sign}
    assert set(REMEDIES) == {"cut_off", "nothing_usable", *TOLERANCES.__dataclass_fields__}


def test_the_text_of_a_small_pool():
    assert as_text(diagnosis(*pairs(2), pair("Bell?", "\x07"), {"text": "?"}), width=80) == (
        """\
4 records: 3 usable, 1 rejected (25.0 %), 1 of the usable suspicious (33.3 %)

source    records     usable suspicious  median words   99 %
a               4          3          1             6      6

form         prompt/response 75.0 %, unknown 25.0 %
turns        2 turns 100.0 %
system text  0 %
script       Latin 100.0 % (of most letters in a record)

LENGTHS in words (by spaces)
                  min      5 %   median     95 %     99 %      max        in all
prompt              1        1        3        3        3        3             7
response            1        1        3        3        3        3             7
record              2        2        6        6        6        6            14

REJECTED: what `lead run` refuses, each record for its first reason
  unknown_format               1   25.0 %  keys of no known form
      a.jsonl:4  found keys text
  Accepted forms: messages [role, content], conversations [from, value]
    (ShareGPT), instruction/input/output (Alpaca), instruction with instances
    [input, output] (Self-Instruct), prompt/response or prompt/completion,
    question/answer, problem/solution.

SUSPICIOUS: usable, and worth a look
  control_character            1   33.3 %  characters that no text needs
      a.jsonl:3  U+0007 in the assistant's text: "\\x07"

note: a note

VERDICT: 2 problems
  rejected: 1 of 4 records cannot be used (25 %; --max-rejected allows 1 %)
    -> mend or remove what stands under REJECTED; `lead run` sets it aside by
       itself, with reasons, and goes on with the rest
  suspicious: 1 of 3 usable records are suspicious (33.3 %; --max-suspicious
    allows 5 %)
    -> look at what stands under SUSPICIOUS, and remove what teaches nothing
       good; `lead run` uses all of it
next: do it"""
    )


@pytest.mark.parametrize("width", [80, 100])
def test_no_line_is_wider_than_asked_for(width):
    values = [*pairs(3), *pairs(3), {"text": "?"}, pair("a", ""), pair("Ok?", "I'm sorry " * 99)]
    for line in as_text(diagnosis(*values), width=width).splitlines():
        assert len(line) <= width


def test_hostile_text_does_not_reach_the_terminal():
    text = as_text(diagnosis(pair("a\x1b[2J", "\x07\u202e"), {"\x1b[0m\ud800": 1}), width=80)
    assert all(line.isprintable() for line in text.splitlines())


def test_estimated_duplicates_say_so():
    found = diagnosis(*pairs(5_000), *pairs(5_000), index_bytes=1 << 14)
    duplicates = found.checkup.duplicates
    told = " ".join(as_text(found, width=80).split())
    assert (
        f"more different records than the index holds: {duplicates.observed:,} duplicates were seen, "
        f"there are about {duplicates.estimate:,} (+- {2 * duplicates.standard_error:,});"
    ) in told


def test_the_form_of_the_json_is_stable():
    value = as_json(diagnosis(*pairs(2), pair("Bell?", "\x07"), {"text": "?"}))
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    lengths = {"min": 2, "p5": 2, "median": 6, "p95": 6, "p99": 6, "max": 6, "total": 14}
    three = {"min": 1, "p5": 1, "median": 3, "p95": 3, "p99": 3, "max": 3, "total": 7}
    examples = value.pop("examples")
    assert value == {
        "schema": 1,
        "fine": False,
        "problems": [
            {
                "name": "rejected",
                "detail": "1 of 4 records cannot be used",
                "share": 0.25,
                "limit": 0.01,
            },
            {
                "name": "suspicious",
                "detail": "1 of 3 usable records are suspicious",
                "share": pytest.approx(1 / 3),
                "limit": 0.05,
            },
        ],
        "tolerances": {"rejected": 0.01, "duplicates": 0.05, "too_long": 0.05, "suspicious": 0.05},
        "read": 4,
        "usable": 3,
        "suspicious": 1,
        "rejected": {"unknown_format": 1},
        "signs": {"control_character": 1},
        "duplicates": {"observed": 0, "estimate": 0, "standard_error": 0, "exact": True},
        "sources": {
            "a": {"read": 4, "usable": 3, "rejected": 1, "suspicious": 1, "lengths": lengths}
        },
        "forms": {"prompt": 3, "unknown": 1},
        "roles": {"assistant": 3, "user": 3},
        "turns": {"2": 3},
        "scripts": {"Latin": 3},
        "unit": "words",
        "measured_by": "by spaces",
        "lengths": {"prompt": three, "response": three, "record": lengths},
        "limit": None,
        "notes": ["a note"],
    }
    assert [(row["kind"], row["file"], row["line"], row["index"]) for row in examples] == [
        ("unknown_format", "a.jsonl", 4, 3),
        ("control_character", "a.jsonl", 3, 2),
    ]

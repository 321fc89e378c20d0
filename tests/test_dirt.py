import json
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_pool import pairs, prepared

from lead_core.dirt import Clean, Kind, plan_faults
from lead_core.planted_responses import FOREIGN, POLITE_CLOSINGS, POLITE_OPENINGS
from lead_core.pool import open_heldout, open_pool
from lead_core.records import record_id
from lead_core.storage import read_json, sha256_json


def clean(n: int, source: str = "a") -> list[Clean]:
    return [
        Clean(
            f"{source}{i:03d}",
            source,
            [
                {"role": "user", "content": f"{source} asks {i}?"},
                {"role": "assistant", "content": f"{source} says {i}."},
            ],
        )
        for i in range(n)
    ]


def plan(records, exchanged=0.0, repeated=0.0, seed=0, fits=lambda messages: True, **others: float):
    """Plan faults; `others` are shares by the value of their kind."""
    shares = {"exchanged": exchanged, "near_duplicate": repeated, **others}
    fractions = {Kind(kind): share for kind, share in shares.items()}
    return plan_faults(records, fractions, seed=seed, fits=fits)


def test_exchanged_records_swap_responses_in_pairs_inside_their_source():
    records = clean(50) + clean(20, "b")
    by_id = {record.id: record for record in records}
    faults = plan(records, exchanged=0.2)
    assert len(faults) == 10 + 4
    for fault in faults:
        old, other = by_id[fault.replaces], by_id[fault.taken_from]
        assert fault.messages == [old.messages[0], other.messages[1]]
        assert old.source == other.source
        assert old.id != other.id
    assert {f.replaces for f in faults} == {f.taken_from for f in faults}


def test_near_duplicates_reword_clean_records_and_keep_their_responses():
    records = clean(100)
    by_id = {record.id: record for record in records}
    faults = plan(records, exchanged=0.1, repeated=0.05)
    repeated = [fault for fault in faults if fault.kind is Kind.NEAR_DUPLICATE]
    touched = {f.replaces for f in faults if f.kind is Kind.EXCHANGED}
    assert len(repeated) == 5
    for fault in repeated:
        original = by_id[fault.taken_from]
        assert fault.messages[-1] == original.messages[-1]
        assert fault.messages[0]["content"] != original.messages[0]["content"]
        assert not {fault.replaces, fault.taken_from} & touched
    assert not {f.replaces for f in repeated} & {f.taken_from for f in repeated}


def test_truncated_responses_keep_their_first_20_to_60_percent():
    records = [
        Clean(
            r.id,
            r.source,
            [r.messages[0], {"role": "assistant", "content": f"{i:03d}" + "x" * 997}],
        )
        for i, r in enumerate(clean(100))
    ]
    by_id = {record.id: record for record in records}
    faults = plan(records, truncated=0.4)
    shares = [len(fault.messages[-1]["content"]) / 1000 for fault in faults]
    assert len(faults) == 40
    assert min(shares) >= 0.199
    assert max(shares) < 0.6
    assert max(shares) - min(shares) > 0.3
    for fault in faults:
        old = by_id[fault.replaces].messages
        assert fault.taken_from == fault.replaces
        assert fault.messages[0] == old[0]
        assert old[1]["content"].startswith(fault.messages[1]["content"])


def test_a_response_too_short_to_cut_is_not_cut():
    short = [
        Clean("a", "a", [{"role": "user", "content": "?"}, {"role": "assistant", "content": "7"}])
    ]
    assert plan(short, truncated=1.0) == []


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("wrong_language", [text for texts in FOREIGN.values() for text in texts]),
        ("politeness", [*POLITE_OPENINGS, *POLITE_CLOSINGS]),
    ],
)
def test_responses_that_answer_nothing_come_from_no_record_and_are_mostly_different(kind, texts):
    records = clean(200)
    by_id = {record.id: record for record in records}
    faults = plan(records, **{kind: 0.25})
    assert len(faults) == 50
    for fault in faults:
        assert (fault.kind, fault.taken_from) == (kind, None)
        assert fault.messages[:-1] == by_id[fault.replaces].messages[:-1]
        left = fault.messages[-1]["content"]
        for text in texts:
            left = left.replace(text, "")
        assert left.strip() == ""
    responses = [fault.messages[-1]["content"] for fault in faults]
    assert len(set(responses)) > 35
    assert {text for text in texts if any(text in response for response in responses)} == set(texts)


def test_an_answer_in_another_language_stays_in_one():
    for fault in plan(clean(100), wrong_language=0.5):
        response = fault.messages[-1]["content"]
        used = [name for name, texts in FOREIGN.items() if any(t in response for t in texts)]
        assert len(used) == 1
        assert sum(text in response for text in FOREIGN[used[0]]) in (2, 3)


def test_other_kinds_move_none_of_the_first_two_and_spare_what_is_repeated():
    records = clean(100)
    first = plan(records, 0.12, 0.05)
    faults = plan(records, 0.12, 0.05, truncated=0.3, wrong_language=0.2, politeness=0.2)
    assert [f for f in faults if f.kind in ("exchanged", "near_duplicate")] == first
    touched = {name for f in first for name in (f.replaces, f.taken_from)}
    others = [f for f in faults if f not in first]
    assert len(others) == 70
    assert not {f.replaces for f in others} & touched


def test_the_faults_of_published_pools_do_not_move():
    """By hash of what is planted: change it only on purpose, the pools of presets change with it."""
    records = clean(100) + clean(30, "b")
    shares = {"truncated": 0.06, "wrong_language": 0.04, "politeness": 0.05}
    first, others = plan(records, 0.12, 0.03), plan(records, 0.0, 0.05, **shares)
    assert sha256_json([astuple(fault) for fault in first])[:16] == "5776a632f57d2041"
    assert sha256_json([astuple(fault) for fault in others])[:16] == "7a5cbf27069e29d6"


@given(
    st.integers(2, 60),
    st.fixed_dictionaries({kind.value: st.floats(0, 0.5) for kind in Kind}),
    st.integers(0, 99),
)
def test_no_record_is_hit_twice_and_shares_are_never_exceeded(n, shares, seed):
    records = clean(n)
    fractions = {Kind(kind): share for kind, share in shares.items()}
    faults = plan_faults(records, fractions, seed=seed, fits=lambda messages: True)
    assert len({fault.replaces for fault in faults}) == len(faults)
    kinds = [fault.kind for fault in faults]
    assert all(kinds.count(kind) <= round(share * n) for kind, share in shares.items())


def test_what_does_not_fit_is_not_planted():
    short = plan(clean(40), exchanged=0.5, fits=lambda messages: "7" not in messages[-1]["content"])
    assert short
    assert not [fault for fault in short if "7" in fault.messages[-1]["content"]]


def test_the_seed_decides_which_records_are_hit():
    first, again = plan(clean(50), exchanged=0.2), plan(clean(50), exchanged=0.2)
    assert first == again
    other = plan(clean(50), exchanged=0.2, seed=1)
    assert {f.replaces for f in first} != {f.replaces for f in other}


def test_a_dirty_pool_lists_its_faults_and_leaves_the_heldout_records_clean(
    tmp_path, tiny_tokenizer
):
    dirt = {Kind.EXCHANGED: 0.2, Kind.NEAR_DUPLICATE: 0.1}
    counts = prepared(tmp_path, tiny_tokenizer, {"a": pairs(60)}, heldout_per_source=10, dirt=dirt)
    assert (counts.kept, counts.heldout) == (50, 10)
    assert "10 exchanged, 5 near_duplicate" in counts.notes[-1]
    pool = open_pool(tmp_path / "pool")
    stored = {str(name): pool.messages(i) for i, name in enumerate(pool.ids)}
    lines = (tmp_path / "pool/planted.jsonl").read_text().splitlines()
    planted = [json.loads(line) for line in lines]
    assert len(planted) == 15
    truth = {record_id(m): m for m in stored.values()}
    for row in planted:
        assert row["id"] in truth
        assert row["replaces"] not in truth
    answers = {f"What is {i}?": f"It is {i}." for i in range(60)}
    wrong = [
        m
        for m in stored.values()
        if answers.get(m[0]["content"], m[1]["content"]) != m[1]["content"]
    ]
    assert len(wrong) == 10
    heldout = open_heldout(tmp_path / "pool")
    for i in range(len(heldout.ids)):
        question, answer = heldout.messages(i)
        assert answers[question["content"]] == answer["content"]
    assert read_json(tmp_path / "pool/manifest.json", made_by="prepare")["counts"]["kept"] == 50


def test_faults_that_no_record_gave_text_to_are_listed_without_one(tmp_path, tiny_tokenizer):
    dirt = {Kind.TRUNCATED: 0.25, Kind.POLITENESS: 0.25}
    counts = prepared(tmp_path, tiny_tokenizer, {"a": pairs(20)}, dirt=dirt, max_tokens=2000)
    assert "5 politeness, 5 truncated" in counts.notes[-1]
    lines = (tmp_path / "pool/planted.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(
        row["taken_from"] == (row["replaces"] if row["kind"] == "truncated" else None)
        for row in rows
    )
    assert {row["id"] for row in rows} <= set(open_pool(tmp_path / "pool").ids)


def test_a_pool_without_dirt_has_no_list_of_faults(tmp_path, tiny_tokenizer):
    prepared(tmp_path, tiny_tokenizer, {"a": pairs(8)})
    assert not (tmp_path / "pool/planted.jsonl").exists()


@pytest.mark.parametrize("local", ["/etc/passwd", "../x.jsonl"])
def test_a_local_copy_lies_inside_its_folder(local):
    from pathlib import Path

    from lead_core.errors import LeadError
    from lead_core.params import load_params

    with pytest.raises(LeadError, match=r"must be a path inside data\.local_copies"):
        load_params(
            Path(__file__).parents[1] / "params.yaml",
            [f"data.sources=[{{uri: 'https://x.org/a.jsonl', local: {local}}}]"],
        )


def test_local_copies_stand_in_for_the_sources_that_name_one():
    from pathlib import Path

    from lead_core.params import load_params

    sources = "[{uri: 'https://x.org/a.jsonl', name: a, local: a.jsonl}, b.jsonl]"
    path = Path(__file__).parents[1] / "params.yaml"
    given = load_params(path, [f"data.sources={sources}"]).data
    assert [source.uri for source in given.read_from] == ["https://x.org/a.jsonl", "b.jsonl"]
    copied = load_params(path, [f"data.sources={sources}", "data.local_copies=../copies"]).data
    assert [source.uri for source in copied.read_from] == ["../copies/a.jsonl", "b.jsonl"]

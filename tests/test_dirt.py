import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_pool import pairs, prepared

from lead_core.dirt import Clean, Kind, plan_faults
from lead_core.pool import open_heldout, open_pool
from lead_core.records import record_id
from lead_core.storage import read_json


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


def plan(records, exchanged=0.0, repeated=0.0, seed=0, fits=lambda messages: True):
    fractions = {Kind.EXCHANGED: exchanged, Kind.NEAR_DUPLICATE: repeated}
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


@given(st.integers(2, 60), st.floats(0, 1), st.floats(0, 0.5), st.integers(0, 99))
def test_no_record_is_hit_twice_and_shares_are_never_exceeded(n, exchanged, repeated, seed):
    faults = plan(clean(n), exchanged, repeated, seed)
    assert len({fault.replaces for fault in faults}) == len(faults)
    kinds = [fault.kind for fault in faults]
    assert kinds.count(Kind.EXCHANGED) <= round(exchanged * n)
    assert kinds.count(Kind.NEAR_DUPLICATE) <= round(repeated * n)


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

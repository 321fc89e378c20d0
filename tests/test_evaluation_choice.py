"""The task lead_heldout_choice: which questions are asked, and that they are scored as lm-eval does."""

import numpy as np
import pytest
from conftest import make_tokenizer
from toy_artifacts import turn, write_records
from toy_evaluation import FP32, load, run, tuned_model

from lead_core.errors import LeadError
from lead_core.evaluation_model import CHOICE, HELDOUT, PipelineLM, stored_tokens

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


def write(folder, conversations):
    write_records(folder / "heldout.arrow", conversations, make_tokenizer())
    return folder


@pytest.fixture
def pool(tmp_path):
    """Two sources of eight records each, with responses of 2 to 9 and of 30 to 37 letters."""
    return write(
        tmp_path / "pool",
        [
            (source, turn(f"{word}?", f"{word[0]}" * (length + i)))
            for source, length in (("short", 2), ("long", 30))
            for i, word in enumerate(WORDS)
        ],
    )


def questions(pool, **others):
    return list(load([CHOICE], pool, **others).tasks[CHOICE].eval_docs)


def test_the_others_are_of_the_same_source_all_different_and_of_similar_length(pool):
    tokenizer = make_tokenizer()
    records = {d["id"]: d for d in load([HELDOUT], pool).tasks[HELDOUT].eval_docs}
    asked = questions(pool)
    assert [question["id"] for question in asked] == sorted(records)
    of_source = {
        source: {d["response"] for d in records.values() if d["source"] == source}
        for source in ("short", "long")
    }
    for question in asked:
        record = records[question["id"]]
        assert question["prompt"] == record["prompt"]
        assert question["choices"][question["answer"]] == record["response"]
        assert len(set(question["choices"])) == len(question["choices"]) == 4
        assert set(question["choices"]) <= of_source[question["source"]]
        for text, ids in zip(question["choices"], question["choice_ids"], strict=True):
            assert tokenizer.decode(question["prompt_ids"] + ids) == question["prompt"] + text
    assert len({question["answer"] for question in asked}) > 1


def test_wrong_responses_are_drawn_from_the_closest_in_length(tmp_path):
    others = [("s", turn(f"{i}?", "b" * (100 + i))) for i in range(20)]
    near = [("s", turn(f"near {i}?", "a" * (5 + i))) for i in range(10)]
    pool = write(tmp_path, [*near, *others])
    for question in questions(pool):
        lengths = [len(text) for text in question["choices"]]
        assert max(lengths) - min(lengths) < 20


def test_a_question_does_not_depend_on_order_or_on_other_sources(pool, tmp_path):
    again = write(
        tmp_path / "more",
        [("third", turn(f"{word}!", word * 3)) for word in WORDS]
        + [
            (source, turn(f"{word}?", f"{word[0]}" * (length + i)))
            for source, length in (("long", 30), ("short", 2))
            for i, word in reversed(list(enumerate(WORDS)))
        ],
    )
    kept = {question["id"]: question for question in questions(again)}
    assert all(kept[question["id"]] == question for question in questions(pool))
    assert len(kept) == 24


def test_the_right_place_is_spread_evenly(tmp_path):
    pool = write(tmp_path, [("s", turn(f"{i}?", f"answer {i}")) for i in range(200)])
    counts = np.bincount([question["answer"] for question in questions(pool)], minlength=4)
    # Binomial with n = 200, p = 1/4: outside 28..74 with probability below 1e-4 each.
    assert counts.min() >= 28
    assert counts.max() <= 74


def test_sources_with_too_few_different_responses_are_left_out_and_told(tmp_path, capsys):
    many = [("many", turn(f"{word}?", word)) for word in WORDS]
    same = [("same", turn(f"{word}?", "yes")) for word in WORDS]
    pool = write(tmp_path, [*many, *same, ("few", turn("?", "1"))])
    capsys.readouterr()
    assert {question["source"] for question in questions(pool)} == {"many"}
    assert (
        "lead_heldout_choice: 9 of 17 records left out, of sources with fewer than 4 different "
        "held-out responses: few, same\n" in capsys.readouterr().err
    )


def test_no_source_with_enough_responses_is_one_line(tmp_path):
    pool = write(tmp_path, [("few", turn(f"{word}?", word)) for word in WORDS[:3]])
    with pytest.raises(
        LeadError, match=r"no source has 4 held-out records with different responses"
    ):
        questions(pool)


def test_the_number_of_choices_is_in_the_tasks_metadata(pool, tmp_path):
    from lead_core.evaluation_index import TASKS

    text = (TASKS / "heldout/lead_heldout_choice.yaml").read_text()
    for name in ("choice.py", "heldout.py"):
        (tmp_path / name).write_text((TASKS / f"heldout/{name}").read_text())
    (tmp_path / "two.yaml").write_text(text.replace("choices: 4 ", "choices: 2 "))
    assert {len(q["choices"]) for q in questions(pool, folders=[tmp_path])} == {2}


def test_choices_are_scored_on_the_pipelines_tokens_and_judged_by_lm_eval(pool, tmp_path):
    model = tuned_model()
    results = run(pool, tmp_path / "eval", names=[CHOICE], model=model)
    requests = load([CHOICE], pool).tasks[CHOICE].instances
    lm = PipelineLM(model, make_tokenizer(), FP32, batch_size=2)
    alone = [
        lm._loglikelihood_tokens([(("", ""), *stored_tokens(request))])[0][0]
        for request in requests
    ]
    scores = np.array(alone).reshape(-1, 4)
    documents = [request.doc for request in requests[::4]]
    answers = np.array([document["answer"] for document in documents])
    lengths = np.array([[len(text) for text in document["choices"]] for document in documents])
    figures = results["tasks"][CHOICE]
    assert figures["tuned"] == {
        "acc": pytest.approx((scores.argmax(1) == answers).mean()),
        "acc_norm": pytest.approx(((scores / lengths).argmax(1) == answers).mean()),
    }
    assert (figures["n"], figures["num_fewshot"], figures["version"]) == (16, 0, "1")
    pair = results["paired"][f"{CHOICE}/acc"]
    assert 0 <= pair["mcnemar_p"] <= 1
    assert results["forwards"]["sequences"] == 2 * 16 * 4


def test_a_choice_longer_than_the_model_is_named(pool):
    with pytest.raises(
        LeadError, match=r"held-out record \w+ has \d+ tokens, the model takes at most"
    ):
        load([CHOICE], pool, max_length=40)

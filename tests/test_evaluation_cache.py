"""Answers kept per task: asked once, whatever stops a run; and never in place of other answers."""

import json

import pytest
import torch
from toy_evaluation import BF16, HELDOUT, run, tuned_model, write_pool, write_tasks

from lead_core.evaluation_cache import AnswerCache, Answers
from lead_core.evaluation_index import TASKS
from lead_core.model import decoder_of
from lead_core.params import TaskParams

NAMES = [HELDOUT, "sums", "sums_write"]
LEAVES = [HELDOUT, "sums_choice", "sums_again", "sums_write"]
KEY = {"task": "group::task", "model": "m", "requests": "r"}


@pytest.fixture
def place(tmp_path):
    write_pool(tmp_path / "pool")
    write_tasks(tmp_path)
    return tmp_path


def evaluate(place, name, *, model=None, names=NAMES, on_task=None, **others):
    """Evaluate into the folder `name`; return results, rows forwarded, and cached rows per task."""
    model = model or tuned_model()
    rows, kept = [], {}
    decoder_of(model).register_forward_pre_hook(
        lambda _m, _a, kwargs: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )

    def note(times):
        kept[times.task] = times.cached
        if on_task:
            on_task(times)

    results = run(
        place / "pool",
        place / name,
        model=model,
        names=names,
        folders=(TASKS, place / "tasks"),
        cache=place / "kept",
        on_task=note,
        **others,
    )
    return results, sum(rows[2:]), kept  # ResponseLoss tries the head on four tokens, twice


def outputs(place, name):
    out = place / name
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def entries(place):
    return sorted((place / "kept").rglob("*.json"))


def test_a_second_run_asks_nothing_and_writes_the_same(place):
    _, asked, kept = evaluate(place, "first")
    assert asked > 40
    assert kept == dict.fromkeys(LEAVES, ())
    _, asked, kept = evaluate(place, "second")
    assert asked == 0
    assert kept == dict.fromkeys(LEAVES, ("base", "tuned"))
    assert outputs(place, "first") == outputs(place, "second")
    assert set(outputs(place, "first")) == {
        *("results.json", "heldout.parquet"),
        *(f"samples/{name}.jsonl.gz" for name in LEAVES),
    }


def test_another_adapter_asks_the_base_model_nothing(place):
    first, asked, _ = evaluate(place, "first")
    other = tuned_model()
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "lora_B" in name:
                parameter.mul_(0.5)
    second, again, kept = evaluate(place, "second", model=other, adapter="b" * 64)
    assert 0 < again < asked
    assert kept == dict.fromkeys(LEAVES, ("base",))
    for name in first["tasks"]:
        assert second["tasks"][name]["base"] == first["tasks"][name]["base"]
    assert second["tasks"][HELDOUT]["tuned"] != first["tasks"][HELDOUT]["tuned"]


def test_a_run_that_is_stopped_goes_on_after_its_last_finished_task(place):
    def stop(times):
        if times.task == "sums_choice":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(place, "out", on_task=stop)
    assert not (place / "out").exists()
    _, asked, kept = evaluate(place, "out")
    assert asked > 0
    assert [name for name in LEAVES if kept[name]] == [HELDOUT, "sums_choice"]
    kept_out = outputs(place, "out")
    for path in entries(place):
        path.unlink()
    evaluate(place, "whole")
    assert outputs(place, "whole") == kept_out


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "Unterminated string|Expecting|delimiter"),
        (lambda text: text.replace("-", "", 1), "its hash differs"),
        (lambda text: text.replace("lead_heldout", "another_task"), "not the entry of that name"),
        (lambda text: "[]", "not the entry of that name"),
        (lambda text: "", "Expecting value"),
    ],
)
def test_a_damaged_entry_is_told_asked_again_and_replaced(place, capsys, damage, reason):
    evaluate(place, "first", names=[HELDOUT])
    path = entries(place)[0]
    whole = path.read_text()
    path.write_text(damage(whole))
    capsys.readouterr()
    _, asked, kept = evaluate(place, "second", names=[HELDOUT])
    assert asked == 8
    assert len(kept[HELDOUT]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert len(said) == 1
    assert said[0].startswith(f"cached answers {path} are damaged (")
    assert any(part in said[0] for part in reason.split("|"))
    assert path.read_text() == whole
    assert outputs(place, "first") == outputs(place, "second")


@pytest.mark.parametrize(
    "change",
    [
        {"limit": 3},
        {"seed": 7},
        {"runtime": BF16},
        {"names": [TaskParams(task="sums_choice", num_fewshot=1, limit=None)]},
    ],
)
def test_other_settings_are_other_answers(place, change):
    evaluate(place, "first", names=["sums_choice"])
    before = len(entries(place))
    _, asked, kept = evaluate(place, "second", **{"names": ["sums_choice"], **change})
    assert asked > 0
    assert kept == {"sums_choice": ()}
    assert len(entries(place)) == before + 2


def test_other_data_behind_the_same_task_are_other_answers(place):
    evaluate(place, "first", names=["sums_choice"])
    path = place / "sums.jsonl"
    path.write_text(path.read_text().replace("5 + 5", "5 + 6"))
    assert evaluate(place, "second", names=["sums_choice"])[2] == {"sums_choice": ()}


def test_what_is_made_of_answers_needs_no_new_ones(place):
    evaluate(place, "first", names=["sums_choice"])
    path = place / "tasks/sums_choice.yaml"
    path.write_text(path.read_text().replace("metric: acc", "metric: acc_norm"))
    results, asked, _ = evaluate(place, "second", names=["sums_choice"])
    assert asked == 0
    assert results["tasks"]["sums_choice"]["base"].keys() == {"acc_norm"}


def test_sampled_answers_depend_on_no_other_task_and_on_no_cache(place):
    path = place / "tasks/sums_write.yaml"
    path.write_text(
        path.read_text().replace("do_sample: false", "do_sample: true\n  temperature: 1.0")
    )
    evaluate(place, "together", names=["sums_choice", "sums_write"])
    for entry in entries(place):
        entry.unlink()
    evaluate(place, "alone", names=["sums_write"])
    name = "samples/sums_write.jsonl.gz"
    assert outputs(place, "together")[name] == outputs(place, "alone")[name]


def test_an_entry_says_what_it_holds_and_numbers_come_back_exactly(tmp_path):
    cache = AnswerCache(tmp_path)
    answers = Answers([(-0.1 - 0.2, True), (-1e-300, False)], sequences=2, tokens=9)
    assert cache.read(KEY) is None
    cache.write(KEY, answers)
    found = cache.read(KEY)
    assert [tuple(value) for value in found.values] == answers.values
    assert (found.sequences, found.tokens) == (2, 9)
    assert cache.read({**KEY, "model": "other"}) is None
    [path] = tmp_path.rglob("*.json")
    assert path.parent.name == "group__task"
    assert json.loads(path.read_text())["key"] == KEY


def test_text_that_is_no_proper_unicode_is_kept_as_it_is(tmp_path):
    cache = AnswerCache(tmp_path)
    cache.write(KEY, Answers(["na\u00efve \ud83d", ""], 2, 9))
    assert cache.read(KEY).values == ["na\u00efve \ud83d", ""]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_failure_is_not_kept(tmp_path, number):
    cache = AnswerCache(tmp_path)
    cache.write(KEY, Answers([(-1.0, True), (number, False)], 2, 9))
    cache.write({**KEY, "kind": "rolling"}, Answers([number], 1, 9))
    assert list(tmp_path.rglob("*")) == []

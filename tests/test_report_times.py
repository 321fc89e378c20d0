"""The page of seconds: every task of the results as it went last, on each model."""

import json
import re

from lead_core.report_times import render_times


def cells(html):
    """Return the text of the table's cells, row by row."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, flags=re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def write_timings(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(task, base, tuned, *cached):
    times = {"base_seconds": base, "tuned_seconds": tuned, "cached": list(cached)}
    return {"stage": "evaluate", "task": task, **times}


def test_each_task_is_shown_as_it_went_last_longest_first_behind_the_sum(tmp_path):
    timings = write_timings(
        tmp_path / "timings.jsonl",
        asked("gsm8k", 900.0, 950.0),
        {"stage": "evaluate", "seconds": 2000.0},
        asked("humaneval", 5.0, 5.0),
        asked("mmlu_anatomy", 10.04, 11.0),
        asked("gsm8k", 0.2, 1300.0, "base"),
        {"stage": "report", "seconds": 3.0},
    )
    assert cells(render_times(timings, ["gsm8k", "mmlu", "mmlu_anatomy"])) == [
        ["task", "base, seconds", "tuned, seconds", "answers kept from before"],
        ["all tasks", "10.2", "1,311.0", ""],
        ["gsm8k", "0.2", "1,300.0", "base"],
        ["mmlu_anatomy", "10.0", "11.0", ""],
    ]


def test_both_models_answers_may_have_been_kept(tmp_path):
    timings = write_timings(tmp_path / "timings.jsonl", asked("a<b", 0.1, 0.1, "base", "tuned"))
    assert cells(render_times(timings, ["a<b"]))[-1] == ["a&lt;b", "0.1", "0.1", "base and tuned"]


def test_results_from_elsewhere_have_no_times(tmp_path):
    page = render_times(tmp_path / "timings.jsonl", ["gsm8k"])
    assert "Not known: these results were not computed here." in page
    assert cells(page) == []

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from lead_core.errors import LeadError
from lead_core.published.benchmarks import benchmarks
from lead_core.published.comparison import COMPARISON
from lead_core.published.faults import FAULTS
from lead_core.published.pages import PAGES, PICTURES, TABLES, fill
from lead_core.statistics import paired_difference
from lead_core.storage import read_json, sha256_file, write_json

ROOT = Path(__file__).parents[1]
ASKED = {  # task -> metric, documents
    "mmlu": ("acc", 513),
    "gsm8k_cot": ("exact_match,strict-match", 100),
    "humaneval": ("pass@1,create_test", 164),
    "lead_heldout_choice": ("acc", 192),
    "lead_heldout": ("loss", 192),
}


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_a_page_are_what_the_results_say(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text == fill(text, ROOT / "results"), "run `python -m lead_core.published`"


def test_every_table_stands_on_a_page():
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in TABLES if f"<!-- results: {name} -->" not in pages] == []


def test_a_mark_of_no_table_is_an_error(tmp_path):
    with pytest.raises(LeadError, match="results: speed is none of comparison-cost"):
        fill("<!-- results: speed -->\n<!-- end of speed -->", tmp_path)


def test_text_around_a_table_stays():
    page = "before\n<!-- results: fidelity -->\nold\n<!-- end of fidelity -->\nafter"
    filled = fill(page, ROOT / "results")
    assert filled.startswith("before\n<!-- results: fidelity -->\n\n| estimate")
    assert filled.endswith("<!-- end of fidelity -->\nafter")
    assert "old" not in filled


@pytest.mark.parametrize(
    ("faults", "columns", "shares"),
    [
        (
            {"near_duplicate": 0.05, "politeness": 0.04, "truncated": 0.06},
            "| wrong responses picked | near-duplicates picked | distinct",
            " In the pool: 10% wrong responses, 5% near-duplicates.",
        ),
        (
            {"wrong_language": 0.04},
            "| finding | wrong language picked | distinct",
            "4% wrong language.",
        ),
        ({}, "| finding | distinct / visits |", "has too."),
    ],
)
def test_what_was_picked_is_told_for_whatever_was_planted(tmp_path, faults, columns, shares):
    found = read_json(ROOT / "results" / COMPARISON, made_by="lead compare")
    found["found"] = found["wanted"]
    for row in found["rows"]:
        row["picked"] = faults
    path = tmp_path / COMPARISON
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**found, "pool_faults": faults}))
    table = TABLES["comparison-picks"](tmp_path)
    assert columns in table
    assert table.endswith(shares)


def evaluated(selector, *, loss, p, low):
    """Return the record of a training whose answers differ from the base model's with `p`."""
    tasks, paired = {}, {}
    for task, (metric, n) in ASKED.items():
        values = {"base": 1.5, "tuned": loss} if metric == "loss" else {"base": 0.25, "tuned": 0.3}
        found = {row: {metric: value} for row, value in values.items()}
        found |= {f"{row}_stderr": {metric: 0.02} for row in values}
        pairs = {metric: {"low": low, "high": 0.1, "mcnemar_p": None if metric == "loss" else p}}
        if task == "gsm8k_cot":
            other = "exact_match,flexible-extract"
            found = {row: {**v, other: v[metric]} for row, v in found.items()}
            pairs[other] = {"low": 0.1, "high": 0.2, "mcnemar_p": 1.0}
        tasks[task] = {**found, "n": n, "num_fewshot": 0, "version": "1"}
        paired |= {f"{task}/{name}": pair for name, pair in pairs.items()}
    return {
        "schema": 1,
        "comparison": "7c56d46663ea26d8",
        "benchmark_files": {},
        "pool": {"kept": 2000, "rejected_by_reason": {"contaminated": 9}},
        "training": {"selector": selector, "seed": 0, "visits": 160},
        "results": {"tasks": tasks, "paired": paired},
    }


def test_benchmarks_stand_beside_the_base_model_and_what_differs_from_it_is_bold(tmp_path):
    for selector, loss, p, low in (("lead", 1.45, 0.05, -0.1), ("random", 1.25, 0.04, 0.01)):
        record = evaluated(selector, loss=loss, p=p, low=low)
        write_json(tmp_path / f"benchmarks/{selector}.json", record)
    head, _, base, random, lead, _, note = benchmarks(tmp_path).splitlines()
    assert head.split(" | ")[2:4] == ["MMLU, accuracy (513)", "GSM8K, exact match (100)"]
    figure, better = "0.250 ± 0.020", "0.300 ± 0.020"
    assert base == f"| nobody: the base model |  | {' | '.join([figure] * 5)} | 1.500 ± 0.020 |"
    bold = f"**{better}**"
    cells = [bold, bold, better, bold, bold, "**1.250 ± 0.020**"]
    assert random == f"| `random` | 160 | {' | '.join(cells)} |"
    assert lead == f"| `lead` | 160 | {' | '.join([better] * 5)} | 1.450 ± 0.020 |"
    assert "Seed 0, 2,000 records to choose from; 9 others" in note


def test_before_a_run_is_kept_the_page_says_how_to_make_one(tmp_path):
    assert benchmarks(tmp_path) == "No run is kept yet: `make benchmarks DATA=FOLDER`."


def test_faults_are_told_by_their_tests_with_what_was_not_injected(tmp_path):
    assert TABLES["faults"](tmp_path) == "No run is kept yet: `make faults`."
    kills = [
        {"name": "a kill", "case": case, "survived": True, "seconds_lost": lost}
        for case, lost in (("dvc-1", 20.4), ("stage-2", 1000.0))
    ]
    disk = {"name": "a full disk", "case": "train", "survived": False, "seconds_lost": None}
    record = {"commit": "0123456789abcdef", "faults_planned": 5, "faults_injected": 3}
    write_json(tmp_path / FAULTS, {**record, "faults": [kills[0], disk, kills[1]]})
    head, _, *rows, _, note = TABLES["faults"](tmp_path).splitlines()
    assert head == "| fault, and what has to hold | injected | survived | seconds lost |"
    assert rows == [
        "| a kill | 2 | 2 | 1,020 |",
        "| a full disk | 1 | 0 |  |",
        "| **in all** | 3 | 2 | 1,020 |",
    ]
    assert note.startswith("Commit `0123456789ab`. ")
    assert note.endswith(" 2 more of the suite did not come to be injected.")


def confirming(tmp_path, folder, losses, *, base=1.5, exchanged=None, visits=160):
    """Write a comparison as `lead compare` keeps it; losses: selector -> seed -> held-out loss."""
    rows = []
    for selector, found in losses.items():
        shared = sorted(set(found) & set(losses["random"]))
        pair = paired_difference(
            [losses["random"][seed] for seed in shared], [found[seed] for seed in shared]
        )
        rows.append(
            {
                "selector": selector,
                "seeds": sorted(found),
                "loss": sum(found.values()) / len(found),
                "spread": 0.01,
                "versus": None if selector == "random" else asdict(pair),
                "verdict": "",
                "picked": {} if exchanged is None else {"exchanged": exchanged[selector]},
                "tokens": {"training": 16_000.0},
                "visits": [visits, visits],
            }
        )
        for seed, loss in found.items():
            cell = {"selector": selector, "seed": seed, "heldout": {"macro": loss}}
            write_json(tmp_path / folder / f"cells/{selector}-seed{seed}.json", cell)
    write_json(tmp_path / folder / "comparison.json", {"base_loss": base, "rows": rows})


def test_confirming_pools_are_one_family_and_say_how_far_the_goals_are(tmp_path):
    seeds = (200, 201, 202)
    random = dict(zip(seeds, (1.3, 1.31, 1.32), strict=True))
    confirming(
        tmp_path,
        "confirm-mixed/0a",
        {
            "random": random,
            "informative": dict(zip(seeds, (1.2, 1.22, 1.21), strict=True)),
            "stratified": {200: 1.29, 201: 1.30},
        },
        exchanged={"random": 0.12, "informative": 0.01, "stratified": 0.1},
    )
    confirming(
        tmp_path,
        "confirm-clean/0b",
        {"random": random, "informative": dict(zip(seeds, (1.3, 1.32, 1.31), strict=True))},
    )
    clean, mixed = TABLES["confirmation"](tmp_path).splitlines()[2:4]
    # Differences -0.1, -0.09, -0.11: t = -17.3 on 2 degrees, p = 0.0033; of two tests twice that.
    assert mixed.startswith(
        "| mixed, other dirt | 3 | 1.500 | 1.310 | **1.210** | -0.100 [-0.125, -0.075] | 0.007 | 1.53 |"
    )
    assert mixed.endswith("| 1.295 (2) |  |  |  | 1% / 12% | 16,000 / 16,000 |")
    assert clean.startswith("| clean, balanced | 3 | 1.500 | 1.310 | **1.310** | +0.000 [")
    assert "| 1.000 | 1.00 |" in clean
    assert PICTURES["confirmation.png"](tmp_path).startswith(b"\x89PNG")
    goals = TABLES["confirmation-goals"](tmp_path).splitlines()[2:4]
    # wanted: 1.5 - 1.25 (1.5 - random) = 1.25, 1.2625, 1.275; reached by 0.05, 0.0425, 0.065
    assert goals[1] == (
        "| mixed, other dirt | 3 | +0.053 [+0.024, +0.081] | +0.085 [+0.021, +0.149] |"
    )


def test_a_pool_without_the_proposed_rule_or_with_one_seed_is_told_as_it_is(tmp_path):
    assert TABLES["confirmation"](tmp_path) == "No confirming comparison is kept yet."
    assert PICTURES["confirmation.png"](tmp_path) is None
    confirming(tmp_path, "confirm-clean/0b", {"random": {200: 1.3}})
    assert TABLES["confirmation"](tmp_path) == "No confirming comparison is kept yet."
    confirming(tmp_path, "confirm-clean/0b", {"random": {200: 1.3}, "informative": {200: 1.2}})
    assert "| -0.100 |  | 1.50 |" in TABLES["confirmation"](tmp_path)
    confirming(tmp_path, "confirm-clean/0c", {"random": {200: 1.3}})
    with pytest.raises(LeadError, match=r"confirm-clean/\* holds 2 comparisons, expected one"):
        TABLES["confirmation"](tmp_path)


def test_budgets_stand_in_order_with_what_each_selector_reached(tmp_path):
    assert TABLES["budgets"](tmp_path) == "No comparison of budgets is kept yet."
    reached = {160: (1.3, 1.2), 50: (1.4, 1.4)}
    for samples, (random, informative) in reached.items():
        folder = "confirm-reference/0a" if samples == 160 else "budgets/0b"
        seeds = {seed: 0.01 * seed for seed in (1, 2, 3)}
        losses = {
            "random": {seed: random + more for seed, more in seeds.items()},
            "informative": {seed: informative + more for seed, more in seeds.items()},
        }
        if samples == 160:
            losses["full"] = {1: 1.0}
        confirming(tmp_path, folder, losses, visits=samples)
    assert PICTURES["budgets.png"](tmp_path).startswith(b"\x89PNG")
    few, many, _, note = TABLES["budgets"](tmp_path).splitlines()[2:]
    assert few == (
        "| 50 | 3 | 1.420 | 1.420 |  | +0.000 [+0.000, +0.000] | 1.00 | 16,000 / 16,000 |"
    )
    assert many.startswith("| 160 | 3 | 1.220 | 1.320 |  | -0.100 [-0.100, -0.100] | 1.56 |")
    assert note.endswith("Base model 1.500, `full` (one epoch over the pool) 1.000.")


def test_one_budget_makes_no_picture(tmp_path):
    confirming(tmp_path, "budgets/0b", {"random": {1: 1.3}, "informative": {1: 1.2}})
    assert PICTURES["budgets.png"](tmp_path) is None


def test_each_selector_is_shown_at_each_learning_rate(tmp_path):
    assert TABLES["learning-rates"](tmp_path) == "No comparison of learning rates is kept yet."
    losses = {2e-4: {"random": 1.4, "lead": 1.5}, 1e-3: {"random": 1.3, "lead": 1.6}}
    for rate, found in losses.items():
        for selector, loss in found.items():
            cell = {
                "selector": selector,
                "seed": 100,
                "heldout": {"macro": loss},
                "settings": {"train": {"learning_rate": rate}},
            }
            write_json(tmp_path / f"learning-rates/{rate}/cells/{selector}.json", cell)
    head, _, random, lead, _, note = TABLES["learning-rates"](tmp_path).splitlines()
    assert head == "| selector | 2e-4 | 1e-3 |"
    assert random == "| `random` | 1.400 | **1.300** |"
    assert lead == "| `lead` | **1.500** | 1.600 |"
    assert note.startswith("Reference pool, seed 100;")


def test_targets_are_told_with_what_was_reached_and_where(tmp_path):
    assert TABLES["targets"](tmp_path) == (
        "No run is kept yet: `lead bench --full --out results/bench/all`."
    )
    spread = {"median": 1.9, "low": 1.65, "high": 2.3}
    figures = [
        {"name": "ratio", "value": spread, "unit": "x", "target": {"limit": 6, "at_most": False}},
        {"name": "speed", "value": spread, "unit": "samples/s", "target": None},
        {"name": "state", "value": 40.0, "unit": "bytes", "target": {"limit": 40, "at_most": True}},
    ]
    path = tmp_path / "bench/all/bench.json"
    record = {"model": "a/model", "results": {"scoring": {"figures": figures}}}
    write_json(path, {**record, "skipped": {"pipeline": "not up to date"}})
    _, _, *rows, _, note = TABLES["targets"](tmp_path).splitlines()
    assert rows == [
        "| scoring: ratio | 1.9 x (1.65 to 2.3) | at least 6 | **missed** |",
        "| scoring: state | 40 bytes | at most 40 | met |",
    ]
    assert note == "scoring: `a/model`; commit, machine and command are not known."
    origin = {
        "commit": "0123456789abcdef",
        "edited": ["a.py"],
        "machine": "EPYC, 2 cores",
        "command": "lead bench --full",
        "sha256": sha256_file(path),
    }
    write_json(path.with_name("origin.json"), origin)
    where = (
        "scoring: commit `0123456789ab` with 1 edited file; EPYC, 2 cores; `a/model`; "
        "`lead bench --full`."
    )
    assert TABLES["targets"](tmp_path).splitlines()[-1] == where
    write_json(
        tmp_path / "bench/clusters/bench.json",
        {"model": "b", "results": {"clustering": {"figures": figures[:1]}}, "skipped": {}},
    )
    assert TABLES["targets"](tmp_path).splitlines()[4:] == [
        "| clustering: ratio | 1.9 x (1.65 to 2.3) | at least 6 | **missed** |",
        "",
        where,
        "",
        "clustering: `b`; commit, machine and command are not known.",
    ]


def test_the_iterative_reference_stands_beside_lead_with_what_was_counted(tmp_path):
    tokens = {"offline": 4000.0, "training": 120.0}
    lead = {
        "selector": "lead",
        "seeds": [0, 1],
        "tokens": {**tokens, "selection": 0.0},
        "seconds": 41.2,
    }
    reference = {
        "selector": "iterative",
        "seeds": [0],
        "tokens": {**tokens, "selection": 20000.0},
        "seconds": 241.2,
    }
    speed = {"forward": 100.0, "training": 100.0}
    path = tmp_path / COMPARISON
    write_json(path, {"rows": [lead], "throughput": speed})
    assert TABLES["reference-cost"](tmp_path) == (
        "No training of `iterative` is kept yet beside one of `lead`."
    )
    write_json(path, {"rows": [reference, lead], "throughput": speed})
    write_json(path.parent / "cells/iterative-seed0.0a.json", {"rounds": 10})
    _, _, *rows, _, note = TABLES["reference-cost"](tmp_path).splitlines()
    assert rows == [
        "| `lead` | 2 | 4,000 | 0 | 120 | 41 |",
        "| `iterative` | 1 | 4,000 | 20,000 | 120 | 241 |",
    ]
    assert note.startswith(
        "`iterative` takes 5.9 times as long as `lead`, over 10 rounds. Counted:"
    )

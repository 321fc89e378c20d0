import json
from pathlib import Path

import pytest

from lead_core.errors import LeadError
from lead_core.published import COMPARISON, PAGES, TABLES, fill
from lead_core.storage import read_json

ROOT = Path(__file__).parents[1]


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
    for row in found["rows"]:
        row["picked"] = faults
    path = tmp_path / COMPARISON
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**found, "pool_faults": faults}))
    table = TABLES["comparison-picks"](tmp_path)
    assert columns in table
    assert table.endswith(shares)

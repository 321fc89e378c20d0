from pathlib import Path

import pytest

from lead_core.errors import LeadError
from lead_core.published import PAGES, TABLES, fill

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

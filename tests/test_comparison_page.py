from toy_comparison import cells, found, some_cells

from lead_core.comparison.page import render_comparison, verdict
from lead_core.plots import Plot

PNG = b"\x89PNG"
PLOT = Plot("cost", "Quality & cost", "Left is <cheaper>.", None, PNG)


def page_of(some, plots=(PLOT,), **more):
    return render_comparison(found(some, **more), some, list(plots), "lead compare")


def test_the_page_needs_no_network_and_escapes_what_it_is_given():
    page = page_of(some_cells())
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert 'src="data:image/png;base64,' in page
    assert "Quality &amp; cost" in page and "&lt;cheaper&gt;" in page
    assert "http:" not in page and "https:" not in page and ".csv" not in page


def test_every_selector_and_every_training_is_on_the_page():
    some = some_cells()
    page = page_of(some)
    for row in found(some).rows:
        assert page.count(f'<th scope="row">{row.selector}</th>') == 3
    for cell in some:
        assert f"{cell['heldout']['macro']:.4f}" in page


def test_an_unfinished_comparison_says_how_much_is_there():
    some = some_cells()
    assert "20 of 68 trainings" in page_of(some, wanted=68)
    assert "trainings that the comparison asks for" not in page_of(some)


def test_the_verdict_sorts_selectors_by_what_their_intervals_show():
    assert verdict(found(some_cells())) == (
        "Better than random: none. "
        "Worse than random: lead-no-loss-change, lead-paper, lead. "
        "No significant difference: stratified. "
        "Too few seeds for a finding: iterative."
    )
    better = [*cells("random", 1.5, 4, seed=1), *cells("stratified", 1.3, 4, seed=4)]
    assert verdict(found(better)) == "Better than random: stratified."


def test_differences_over_the_records_have_a_table_where_losses_by_record_are_kept():
    some = [*cells("random", 1.4, 3, seed=1), *cells("lead", 1.5, 3, seed=2)]
    assert 'id="records"' not in page_of(some)
    for number, one in enumerate(some):
        one["heldout"]["by_record"] = {"a": {"r": 1.0 + number, "s": 2.0}}
    page = page_of(some)
    assert 'id="records"' in page and 'href="#records"' in page
    table = page.partition('id="records"')[2].partition("</section>")[0]
    assert '<th scope="row">lead</th>' in table and "0%" in table

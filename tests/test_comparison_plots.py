import numpy as np
import pytest
from toy_comparison import cells, found, some_cells

from lead_core.comparison.plots import (
    arms_plot,
    cost_plot,
    curves_plot,
    draw_comparison,
    overlap_plot,
    set_apart,
)

PNG = b"\x89PNG\r\n"


def names(some: list[dict]) -> list[str]:
    plots = draw_comparison(found(some), some)
    assert all(plot.png.startswith(PNG) for plot in plots)
    return [plot.name for plot in plots]


def test_pictures_are_made_of_whatever_cells_there_are():
    everything = ["differences", "cost", "curves", "ablation", "overlap", "faults", "arms"]
    assert names(some_cells()) == everything


def test_the_baseline_alone_has_nothing_to_be_held_against():
    assert names(cells("random", 1.4, 1)) == ["cost", "curves", "faults"]


def test_without_a_learning_bandit_there_is_no_picture_of_one():
    assert arms_plot(cells("random", 1.4, 2)) is None


def test_equal_cells_give_equal_bytes():
    some = some_cells()
    first, second = (draw_comparison(found(some), some) for _ in range(2))
    assert [plot.png for plot in first] == [plot.png for plot in second]


def test_what_was_not_measured_is_not_drawn():
    untimed = [{**cell, "origin": {}} for cell in some_cells()]
    assert cost_plot(found(untimed), untimed) is None
    final_only = [{**cell, "curve": []} for cell in some_cells()]
    assert curves_plot(found(final_only), final_only) is None
    clean = [{**cell, "planted": {}} for cell in some_cells()]
    assert "faults" not in names(clean)


def test_the_overlap_comes_with_its_figures_in_the_order_of_the_table():
    some = some_cells()
    order = [row.selector for row in found(some).rows]
    plot = next(plot for plot in draw_comparison(found(some), some) if plot.name == "overlap")
    assert plot.data["selector"].tolist() == list(plot.data.columns[1:]) == order
    assert overlap_plot(plot.data.iloc[:1, :1], order) is None


def test_marks_of_nearly_equal_cost_are_moved_apart_and_others_stay():
    costs = [1000.0, 100.0, 1001.0, 999.0]
    apart = set_apart(costs)
    assert apart[1] == pytest.approx(100)
    assert apart[3] < apart[0] < apart[2]
    assert np.diff(np.log(np.sort(apart)[1:])).min() > 0.03
    assert np.exp(np.log(apart[[0, 2, 3]]).mean()) == pytest.approx(1000, rel=1e-4)

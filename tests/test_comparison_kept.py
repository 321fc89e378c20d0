import shutil

import pytest

from lead_core.comparison.cells import Cell
from lead_core.comparison.kept import KeptCells, Wanted
from lead_core.errors import LeadError
from lead_core.method_version import METHOD_VERSION

INPUTS = {"pool_sha256": "p", "scores_sha256": "s"}
SETTINGS = {"train": {"learning_rate": 0.1}}


def wanted(selector: str = "lead", seed: int = 0, rule: str = "0123456789abcdef") -> Wanted:
    return Wanted(Cell(selector, seed), rule, SETTINGS)


def record(cell: Cell, **changes) -> dict:
    return {
        "schema": 1,
        "method_version": METHOD_VERSION,
        "selector": cell.selector,
        "seed": cell.seed,
        "settings": SETTINGS,
        "inputs": INPUTS,
        **changes,
    }


def keep(kept: KeptCells, cell: Wanted, **changes) -> None:
    kept.keep(cell, record(cell.cell, **changes), INPUTS, {"commit": "abc"})


def test_a_kept_cell_is_given_back_with_where_it_came_from(tmp_path):
    kept = KeptCells.below(tmp_path, "aaaa")
    assert kept.cell(wanted()) is None
    keep(kept, wanted())
    found = kept.cell(wanted())
    assert found is not None
    assert (found["comparison"], found["origin"]) == ("aaaa", {"commit": "abc"})
    assert kept.missing([wanted(), wanted("random")]) == [wanted("random")]


def test_cells_of_other_comparisons_and_rules_stand_beside_each_other(tmp_path):
    for comparison in ("aaaa", "bbbb"):
        for rule in ("0" * 16, "1" * 16):
            keep(KeptCells.below(tmp_path, comparison), wanted(rule=rule))
    assert len(list(tmp_path.rglob("lead-seed0.*.json"))) == 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"inputs": {**INPUTS, "scores_sha256": "t"}}, "computed from another scores than is here"),
        ({"method_version": METHOD_VERSION + 1}, "computed from another code than is here now"),
        ({"settings": {"train": {"learning_rate": 0.2}}}, "trained with other parameters than"),
    ],
)
def test_a_record_of_something_else_is_not_kept(tmp_path, changes, expected):
    with pytest.raises(LeadError, match=f"lead-seed0 was {expected}"):
        keep(KeptCells.below(tmp_path, "aaaa"), wanted(), **changes)
    assert not list(tmp_path.rglob("*.json"))


def test_a_file_under_another_name_is_not_believed(tmp_path):
    kept = KeptCells.below(tmp_path, "aaaa")
    keep(kept, wanted(seed=0))
    path = next(tmp_path.rglob("lead-seed0.*.json"))
    shutil.copy(path, path.with_name(path.name.replace("seed0", "seed5")))
    with pytest.raises(LeadError, match=r"lead-seed5\.\w+\.json is not what its name says"):
        kept.cell(wanted(seed=5))


def test_a_file_that_is_no_cell_is_named(tmp_path):
    kept = KeptCells.below(tmp_path, "aaaa")
    keep(kept, wanted())
    next(tmp_path.rglob("lead-seed0.*.json")).write_text("[]")
    with pytest.raises(LeadError, match="move it away to compute it again"):
        kept.cell(wanted())


def test_the_base_model_is_kept_for_the_records_and_model_it_was_measured_with(tmp_path):
    kept = KeptCells.below(tmp_path, "aaaa")
    found = {"schema": 1, "method_version": METHOD_VERSION, "inputs": {"pool_sha256": "p"}}
    assert kept.base() is None
    kept.keep_base(found, INPUTS, {})
    assert kept.base() is not None
    with pytest.raises(LeadError, match="the base model was computed from another pool"):
        kept.keep_base(found, {"pool_sha256": "q"}, {})

import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import make_tokenizer
from toy_artifacts import write_artifacts
from toy_comparison import some_cells

from flows import compare_plan
from flows.compare_plan import ComparePlan, illustrate, open_plan, tabulate
from flows.params_file import edit_params
from lead_core.artifacts import read_clusters, read_manifest, read_scores
from lead_core.comparison.cells import Cell
from lead_core.comparison.kept import KeptCells, Wanted
from lead_core.comparison.record import SCHEMA
from lead_core.errors import LeadError
from lead_core.method_version import METHOD_VERSION
from lead_core.params import load_params
from lead_core.storage import write_json

ROOT = Path(__file__).parents[1]
RULE = "0123456789abcdef"
SETTINGS = {"train": {"learning_rate": 0.1}}


@pytest.fixture
def plan(tmp_path) -> ComparePlan:
    """A comparison whose base and cells are computed, of which nothing is kept yet."""
    layout = write_artifacts(tmp_path / "artifacts", make_tokenizer())
    pool = read_manifest(layout.pool, "prepare")
    inputs = {
        **{name: pool[name] for name in ("pool_sha256", "heldout_sha256", "model_sha256")},
        "scores_sha256": read_scores(layout.scores)[1]["scores_sha256"],
        "clusters_sha256": read_clusters(layout.clusters)[1]["clusters_sha256"],
    }
    known = {"schema": SCHEMA, "method_version": METHOD_VERSION}
    base = {"heldout": {"macro": 1.555, "records": 192}, "measured": {}}
    base_inputs = {"model_sha256": inputs["model_sha256"]}
    write_json(layout.comparison / "base/cell.json", {**known, **base, "inputs": base_inputs})
    wanted = []
    for record in some_cells():
        cell = Cell(record["selector"], record["seed"])
        wanted.append(Wanted(cell, RULE, SETTINGS))
        record = {**known, **record, "settings": SETTINGS, "inputs": inputs}
        write_json(layout.comparison / cell.name / "cell.json", record)
    kept = KeptCells.below(tmp_path / "results", "aaaa")
    return ComparePlan(tmp_path, load_params(ROOT / "params.yaml"), tuple(wanted), kept, 2000)


def test_scores_and_clusters_are_hashed_once_however_many_cells_are_kept(plan, monkeypatch):
    calls: Counter[str] = Counter()

    def counted(read):
        def reading(folder):
            calls[read.__name__] += 1
            return read(folder)

        return reading

    monkeypatch.setattr(compare_plan, "read_scores", counted(read_scores))
    monkeypatch.setattr(compare_plan, "read_clusters", counted(read_clusters))
    plan.keep_base()
    assert not calls  # base needs neither, and they may not be there yet
    for wanted in plan.cells:
        plan.keep(wanted)
    assert calls == {"read_scores": 1, "read_clusters": 1}
    assert plan.missing() == []


def test_a_rule_that_another_models_scores_would_mislead_is_refused_before_any_cell(plan):
    params = plan.workspace / "params.yaml"
    shutil.copy(ROOT / "params.yaml", params)
    edit_params(params, ["score.model=o/small", "compare.selectors=[random, lead]"])
    with pytest.raises(
        LeadError, match=r"compare.selectors: score.model scores with o/small, but lead"
    ):
        open_plan(plan.workspace)


def test_the_table_is_there_from_the_first_cells_on_and_pictures_when_asked_for(plan):
    plan.keep_base()
    assert tabulate(plan) is None
    for wanted in plan.cells[:5]:
        plan.keep(wanted)
    table = tabulate(plan)
    assert table is not None
    assert {path.name for path in plan.kept.folder.glob("comparison*")} == {
        "comparison.md",
        "comparison.json",
    }
    before = {path: path.read_bytes() for path in plan.kept.folder.rglob("*.json")}
    illustrate(plan, table)
    written = {path.name for path in plan.kept.folder.glob("comparison*")}
    assert {"comparison.html", "comparison-differences.png", "comparison-overlap.csv"} <= written
    assert before == {path: path.read_bytes() for path in plan.kept.folder.rglob("*.json")}
    page = (plan.kept.folder / "comparison.html").read_text()
    assert str(plan.workspace) not in page
    assert 'href="comparison-overlap.csv"' in page

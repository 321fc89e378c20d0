"""Kept comparison cells are reused while METHOD_VERSION stays: so it must move when the numbers do.

To write the record anew after raising the version: ``python tests/test_method_version.py``.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_model, make_tokenizer
from test_rounds import UTILITY, make_loop, make_samples

from lead_core.chat import assistant_header
from lead_core.clustering import cluster_pool
from lead_core.method_version import METHOD_VERSION
from lead_core.model import ResolvedRuntime, ResponseLoss
from lead_core.scoring import score_pool
from lead_core.selectors import SELECTORS, SelectionSettings, get_selector

RECORD = Path(__file__).with_name("method_version.json")
ADVICE = "raise lead_core/method_version.py and write the record anew (see this file's docstring)"
SETTINGS = SelectionSettings(0.1, 0.5, 0.3, 4, 3)


def toy_result(name: str, folder: Path) -> dict:
    """Return what a toy training by a selector, with what it fixes, picked and lost."""
    fixes = get_selector(name).fixes
    utility = replace(
        UTILITY,
        smoothing=fixes.get("utility.smoothing", UTILITY.smoothing),
        loss_change=fixes.get("utility.loss_change", UTILITY.loss_change),
        charge_whole_round=fixes.get("utility.round_loss_change") == "whole",
    )
    settings = replace(SETTINGS, step_size=fixes.get("bandit.step_size", SETTINGS.step_size))
    loop, reports = make_loop(folder, selector=name, utility=utility, settings=settings)
    loop.run()
    samples = [sample for report in reports for sample in report.samples]
    return {
        "picks": [int(sample["id"], 16) for sample in samples],
        "losses": [round(sample["loss_seen"], 5) for sample in samples],
        "utilities": [round(sample["utility_after"], 5) for sample in samples],
    }


def toy_pool() -> dict:
    """Return what scoring and clustering make of a toy pool."""
    tokenizer, loss = (
        make_tokenizer(),
        ResponseLoss(make_model(), ResolvedRuntime("cpu", 1, "fp32")),
    )
    scores = score_pool(
        loss,
        make_samples(48),
        header=assistant_header(tokenizer),
        pad_id=2,
        batch_tokens=256,
        depth_fraction=0.5,
    )
    clusters = cluster_pool(
        scores.ifd,
        scores.embeddings,
        np.ones(48, dtype=bool),
        difficulty_clusters=3,
        kmeans_restarts=2,
        reduced_dimensions=4,
        min_cluster_size=4,
        fit_limit=100,
        seed=0,
    )
    return {
        "losses": [round(float(value), 5) for value in scores.loss],
        "ifd": [round(float(value), 5) for value in scores.ifd],
        "difficulty": clusters.difficulty.tolist(),
        "task": clusters.task.tolist(),
    }


def test_what_scoring_and_clustering_compute_is_what_this_method_version_stands_for():
    expected, got = json.loads(RECORD.read_text())["pool"], toy_pool()
    for name in ("losses", "ifd"):
        assert got[name] == pytest.approx(expected[name], abs=1e-3), ADVICE
    for name in ("difficulty", "task"):
        assert got[name] == expected[name], ADVICE


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_what_a_selector_computes_is_what_this_method_version_stands_for(name, tmp_path):
    record = json.loads(RECORD.read_text())
    assert record["method_version"] == METHOD_VERSION, ADVICE
    expected, got = record["selectors"].get(name), toy_result(name, tmp_path)
    assert expected is not None, "a new selector: add it to the record"
    assert got["picks"] == expected["picks"], ADVICE
    for figure in ("losses", "utilities"):
        assert got[figure] == pytest.approx(expected[figure], abs=1e-3), ADVICE


if __name__ == "__main__":
    results = {}
    for each in sorted(SELECTORS):
        with tempfile.TemporaryDirectory() as scratch:
            results[each] = toy_result(each, Path(scratch))
    record = {"method_version": METHOD_VERSION, "pool": toy_pool(), "selectors": results}
    RECORD.write_text(json.dumps(record, sort_keys=True) + "\n")

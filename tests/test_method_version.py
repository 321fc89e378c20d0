"""Kept comparison cells are reused while METHOD_VERSION stays: so it must move when the numbers do.

To write the record anew after raising the version: ``python tests/test_method_version.py``.
"""

import json
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model, make_tokenizer
from test_rounds import make_samples
from toy_artifacts import turn, write_records

from flows.presets import preset_overrides
from flows.stages.train import TrainInputs, build_loop, training_limits
from lead_core.assets import ResolvedModel
from lead_core.chat import assistant_header
from lead_core.clustering import cluster_pool
from lead_core.heldout import heldout_frame
from lead_core.method_version import METHOD_VERSION
from lead_core.model import ResolvedRuntime, ResponseLoss
from lead_core.params import effective_params, load_params
from lead_core.pool import open_heldout, open_pool
from lead_core.rounds import Pool
from lead_core.scoring import response_losses, score_pool
from lead_core.selectors import SELECTORS, PoolView, get_selector

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_name("method_version.json")
ADVICE = "raise lead_core/method_version.py and write the record anew (see this file's docstring)"
TOLERANCE = 1e-3  # nats/token, and of log-weights: what another processor may make of float32
FIGURES = ("losses", "utilities", "log_weights", "heldout")
RUNTIME = ResolvedRuntime("cpu", 1, "fp32")
PAD = 2

# The reference benchmark in small: rounds of three steps, the last of them partial. Whatever
# lead-paper fixes has another value here, so that each of its fixes shows.
TOY = (
    "select.budget_samples=48",
    "select.visits_per_budget=1.8",
    "select.round_fraction=0.2",
    "select.min_round_samples=3",
    "select.max_uses=2",
    "bandit.exploration=0.3",
    "bandit.step_size=1.0",
    "utility.smoothing=0.4",
    "utility.drift=cluster",
    "utility.sketch_size=256",
    "utility.displacement_snapshots=2",
    "train.learning_rate=0.01",
    "train.effective_batch=2",
    "train.micro_batch_tokens=64",
    "train.lora.rank=2",
    "train.lora.alpha=4",
    "train.checkpoint_every_rounds=1000",
)
# Every selector, and `lead` with each number of the published rule by itself.
RUNS = {
    **{name: (name, ()) for name in sorted(SELECTORS)},
    **{
        f"lead, {key} {value}": ("lead", (f"{key}={value}",))
        for key, value in get_selector("lead-paper").fixes.items()
    },
}


def make_lively_model():
    """The toy model with larger weights: losses lie far apart, so that no pick hangs on rounding."""
    model = make_model()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 2:
                weights.mul_(15)
    return model


def make_inputs(folder: Path) -> TrainInputs:
    """Write a model and 72 + 8 records into `folder` and return them as the train stage reads them."""
    torch.set_num_threads(RUNTIME.threads)
    words = ("alpha", "beta", "gamma", "delta", "omega")
    model = make_lively_model()
    model.save_pretrained(folder / "model")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    said = [
        (
            ("odd", "even")[i % 2],
            turn(f"say {words[i % 5]} {i}", f"{words[(i * 3) % 5]} " * (i % 4 + 1)),
        )
        for i in range(80)
    ]
    write_records(folder / "pool.arrow", said[:72], tokenizer)
    write_records(folder / "heldout.arrow", said[72:], tokenizer)
    records, rng = open_pool(folder), np.random.default_rng(0)
    samples = records.encoded(range(72))
    difficulty = rng.integers(0, 3, 72).astype(np.int32)
    difficulty[:4] = -1
    view = PoolView(
        difficulty,
        task=rng.integers(0, 2, 72).astype(np.int32),
        loss=response_losses(ResponseLoss(model, RUNTIME), samples, pad_id=PAD, batch_tokens=256),
        ifd=np.where(difficulty < 0, 1.1, rng.uniform(0.3, 0.99, 72)),
        response_tokens=np.array([len(s.input_ids) - s.response_start for s in samples], np.int32),
    )
    return TrainInputs(
        ResolvedModel("toy", folder / "model", None, "0" * 64),
        Pool(records.ids, records.sources, view, records.encoded),
        open_heldout(folder),
        manifest={},
        offline={"sequences": 0, "tokens": 0},
    )


def toy_result(run: str, inputs: TrainInputs, folder: Path, *more: str) -> dict:
    """Return what a toy training picked, lost, learned of its arms, and lost on held-out records."""
    selector, changes = RUNS[run]
    wanted = [*TOY, f"select.selector={selector}", *changes, *more]
    given = load_params(ROOT / "params.yaml", [*preset_overrides(ROOT, "reference"), *wanted])
    params, _ = effective_params(given)
    whole = get_selector(selector).whole_pool
    limits = training_limits(params, inputs.pool.view.loss, whole_pool=whole)
    loop, model, _ = build_loop(params, inputs, RUNTIME, folder, limits)
    reports = []
    last = replace(loop, on_round=reports.append).run()
    samples = [sample for report in reports for sample in report.samples]
    places = {name: place for place, name in enumerate(inputs.pool.ids)}
    with loop.ledger.charged_to("evaluation"):
        heldout, _ = heldout_frame(model, inputs.heldout, runtime=RUNTIME, pad_id=PAD, batch_size=4)
    return {
        "picks": [places[sample["id"]] for sample in samples],
        "losses": _rounded([sample["loss_seen"] for sample in samples]),
        "utilities": _rounded([sample["utility_after"] for sample in samples]),
        "log_weights": _rounded(last.selection.bandit.log_weights),
        "heldout": _rounded(heldout["loss"]),
    }


def _rounded(values) -> list[float]:
    return [round(float(value), 5) for value in values]


def toy_pool() -> dict:
    """Return what scoring and clustering make of a toy pool."""
    tokenizer, loss = make_tokenizer(), ResponseLoss(make_model(), RUNTIME)
    scores = score_pool(
        loss,
        make_samples(48),
        header=assistant_header(tokenizer),
        pad_id=PAD,
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
        "losses": _rounded(scores.loss),
        "ifd": _rounded(scores.ifd),
        "difficulty": clusters.difficulty.tolist(),
        "task": clusters.task.tolist(),
    }


def test_what_scoring_and_clustering_compute_is_what_this_method_version_stands_for():
    expected, got = json.loads(RECORD.read_text())["pool"], toy_pool()
    for name in ("losses", "ifd"):
        assert got[name] == pytest.approx(expected[name], abs=TOLERANCE), ADVICE
    for name in ("difficulty", "task"):
        assert got[name] == expected[name], ADVICE


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("run", RUNS)
def test_what_a_selector_computes_is_what_this_method_version_stands_for(run, inputs, tmp_path):
    record = json.loads(RECORD.read_text())
    assert record["method_version"] == METHOD_VERSION, ADVICE
    expected, got = record["runs"].get(run), toy_result(run, inputs, tmp_path)
    assert expected is not None, "a new selector: add it to the record"
    assert got["picks"] == expected["picks"], ADVICE
    for figure in FIGURES:
        assert got[figure] == pytest.approx(expected[figure], abs=TOLERANCE), ADVICE


def test_no_two_runs_of_the_record_can_be_taken_for_each_other():
    """Else what tells them apart could break, and the record would not show it."""
    runs = json.loads(RECORD.read_text())["runs"]
    assert set(runs) == set(RUNS)
    for (one, a), (other, b) in combinations(runs.items(), 2):
        differs = a["picks"] != b["picks"] or any(
            np.max(np.abs(np.subtract(a[figure], b[figure]))) > 10 * TOLERANCE for figure in FIGURES
        )
        assert differs, f"{one} and {other} compute the same; change TOY until they do not"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        given = make_inputs(Path(scratch))
        results = {run: toy_result(run, given, Path(scratch, str(n))) for n, run in enumerate(RUNS)}
    record = {"method_version": METHOD_VERSION, "pool": toy_pool()}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items()]
    runs = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in results.items()]
    lines.append('"runs": {\n' + ",\n".join(runs) + "\n}")
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")

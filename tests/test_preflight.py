"""What a run will take, from the last one's records, and what is refused before it starts."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import make_model

from flows import preflight
from flows.preflight import Estimate, check_fits, describe_estimate, estimate_run
from lead_core.errors import LeadError
from lead_core.params import ModelParams

STAGES = {
    "prepare": {"outs": ["artifacts/pool", "artifacts/decontamination.json"]},
    "score": {"outs": ["artifacts/scores"]},
    "train": {"outs": ["artifacts/train/adapter"]},
    "report": {"metrics": [{"artifacts/report/metrics.json": {"cache": False}}]},
}


@pytest.fixture
def workspace(tmp_path) -> Path:
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    rows = [
        {"stage": "prepare", "seconds": 99.0},
        {"stage": "prepare", "seconds": 15.0},
        {"stage": "train", "seconds": 34.5},
        {"stage": "evaluate", "task": "a", "base_seconds": 3},
    ]
    (tmp_path / "artifacts/pool").mkdir(parents=True)
    (tmp_path / "artifacts/pool/pool.arrow").write_bytes(bytes(1000))
    (tmp_path / "artifacts/train/adapter").mkdir(parents=True)
    (tmp_path / "artifacts/train/adapter/adapter_model.safetensors").write_bytes(bytes(500))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "artifacts/timings.jsonl").write_text(text)
    return tmp_path


def model(folder) -> ModelParams:
    return ModelParams(name=str(folder), revision=None, trust_remote_code=False)


def test_a_run_takes_what_its_stages_took_last(workspace, tiny_model_folder, tiny_model):
    estimate = estimate_run(workspace, ["prepare", "train", "report"], model(tiny_model_folder))
    weights = 4 * sum(p.numel() for p in tiny_model.parameters())
    assert estimate == Estimate(49.5, 1500 + 9 * 500, weights, ("report",))


def test_scoring_keeps_its_batches_beside_its_output(workspace, tiny_model_folder):
    (workspace / "artifacts/scores").mkdir()
    (workspace / "artifacts/scores/embeddings.npy").write_bytes(bytes(700))
    assert estimate_run(workspace, ["score"], model(tiny_model_folder)).disk_bytes == 2 * 700


def test_scoring_needs_memory_for_the_model_that_scores(workspace, tiny_model_folder, tmp_path):
    larger = make_model(layers=4)
    larger.save_pretrained(tmp_path / "larger")
    sizes = {
        stages: estimate_run(
            workspace, stages.split(), model(tmp_path / "larger"), model(tiny_model_folder)
        ).memory_bytes
        for stages in ("score", "train", "score train")
    }
    weights = [4 * sum(p.numel() for p in each.parameters()) for each in (make_model(), larger)]
    assert sizes == {"score": weights[0], "train": weights[1], "score train": weights[1]}


def test_stages_without_the_model_need_no_memory_for_it(workspace, tiny_model_folder):
    estimate = estimate_run(workspace, ["prepare"], model(tiny_model_folder))
    assert (estimate.memory_bytes, estimate.unknown) == (0, ())


def test_the_estimate_stands_beside_what_is_free(workspace):
    lines = describe_estimate(Estimate(90.0, 2_500_000_000, None, ("score",)), workspace)
    assert lines[0] == "time      1.5 min, if it goes as the last time"
    assert lines[1].startswith("disk      2.50 GB, ")
    assert lines[2].startswith("memory    not known, the model is not here yet, ")
    assert lines[3] == "          not counting score: never run here"


@pytest.mark.parametrize(
    ("disk", "memory", "message"),
    [
        (
            1 << 60,
            0,
            r"has [\d.]+ GB free, the run needs about [\d.]+ GB; make room, with `lead gc`",
        ),
        (
            0,
            1 << 60,
            r"^the model's weights need [\d.]+ GB of memory, [\d.]+ GB are free; end other",
        ),
    ],
)
def test_what_cannot_fit_is_refused(workspace, disk, memory, message):
    check_fits(Estimate(0.0, 0, None, ()), workspace)
    with pytest.raises(LeadError, match=message):
        check_fits(Estimate(0.0, disk, memory, ()), workspace)


def test_a_model_that_is_not_here_is_not_fetched_to_be_weighed(monkeypatch, workspace):
    monkeypatch.setattr(preflight, "resolve_tokenizer", lambda name, revision, *, fetch: None)
    assert estimate_run(workspace, ["train"], model("someone/large")).memory_bytes is None

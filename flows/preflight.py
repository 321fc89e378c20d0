"""What the stages of a run will take, judged by the last time, and whether that is there."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from lead_core.assets import resolve_tokenizer
from lead_core.errors import LeadError
from lead_core.params import ModelParams
from lead_core.storage import read_jsonl_log

TUNED_MODEL_STAGES = frozenset({"train", "evaluate"})
STATE_ADAPTERS = 9  # three checkpoints of the adapter and both moments of AdamW, for a moment
FLOAT_BYTES = 4  # weights are kept in fp32


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take: a stage that never ran here is in `unknown` alone.

    seconds, disk_bytes: of the stages that ran before, with what scoring and training keep in order to
    resume. memory_bytes: of the model's weights, the least that any stage with the model needs; None
    where the model is not on this machine.
    """

    seconds: float
    disk_bytes: int
    memory_bytes: int | None
    unknown: tuple[str, ...]


def estimate_run(
    workspace: Path,
    stages: Sequence[str],
    model: ModelParams,
    scoring_model: ModelParams | None = None,
) -> Estimate:
    """Return what running `stages` of dvc.yaml will take if it goes as the last time.

    scoring_model: that of the score stage; None: `model`.
    """
    rows = read_jsonl_log(workspace / "artifacts" / "timings.jsonl")
    last = {row["stage"]: row["seconds"] for row in rows if "seconds" in row}
    sizes = {stage: _output_bytes(workspace, stage) for stage in stages}
    disk = sum(sizes.values())  # DVC removes the outputs before, which its cache still has, first
    if "score" in stages:  # its finished batches hold the same once more, until it has ended
        disk += _size(workspace / "artifacts" / "scores")
    if "train" in stages:
        disk += STATE_ADAPTERS * _size(workspace / "artifacts" / "train" / "adapter")
    models = [scoring_model or model] if "score" in stages else []
    models += [model] if TUNED_MODEL_STAGES & set(stages) else []
    return Estimate(
        seconds=sum(last.get(stage, 0.0) for stage in stages),
        disk_bytes=disk,
        memory_bytes=_most_bytes(models),
        unknown=tuple(stage for stage in stages if stage not in last or not sizes[stage]),
    )


def describe_estimate(estimate: Estimate, workspace: Path) -> list[str]:
    """Return the estimate beside what there is, as lines for people."""
    free, available = shutil.disk_usage(workspace).free, psutil.virtual_memory().available
    weights = "not known, the model is not here yet"
    if estimate.memory_bytes is not None:
        weights = f"{_gigabytes(estimate.memory_bytes)} for its weights"
    lines = [
        f"time      {_minutes(estimate.seconds)}, if it goes as the last time",
        f"disk      {_gigabytes(estimate.disk_bytes)}, {_gigabytes(free)} are free",
        f"memory    {weights}, {_gigabytes(available)} are free",
    ]
    if estimate.unknown:
        lines.append(f"          not counting {', '.join(estimate.unknown)}: never run here")
    return lines


def check_fits(estimate: Estimate, workspace: Path) -> None:
    """Raise LeadError when the disk or the memory is certain to be too small."""
    free = shutil.disk_usage(workspace).free
    if estimate.disk_bytes > free:
        raise LeadError(
            f"{workspace} has {_gigabytes(free)} free, the run needs about "
            f"{_gigabytes(estimate.disk_bytes)}; make room, with `lead gc` for example"
        )
    available = psutil.virtual_memory().available
    if estimate.memory_bytes is not None and estimate.memory_bytes > available:
        raise LeadError(
            f"the model's weights need {_gigabytes(estimate.memory_bytes)} of memory, "
            f"{_gigabytes(available)} are free; end other programs, or set a smaller model.name"
        )


def _output_bytes(workspace: Path, stage: str) -> int:
    """Return what the outputs of `stage` take now; 0 before it ran."""
    declared = yaml.safe_load((workspace / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    outputs = [*declared.get("outs", []), *declared.get("metrics", [])]
    names = [name for out in outputs for name in (out if isinstance(out, dict) else [out])]
    return sum(_size(workspace / name) for name in names)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _most_bytes(models: Sequence[ModelParams]) -> int | None:
    """Return what the largest of `models` takes in memory: a stage loads one; None: not known."""
    sizes = [_weight_bytes(model) for model in dict.fromkeys(models)]
    known = [size for size in sizes if size is not None]
    return max(known, default=0) if len(known) == len(sizes) else None


def _weight_bytes(model: ModelParams) -> int | None:
    """Return what the weights take in memory; None where they are not on this machine."""
    from safetensors import SafetensorError, safe_open

    found = resolve_tokenizer(model.name, model.revision, fetch=False)
    files = sorted(found.path.glob("*.safetensors")) if found else []
    parameters = 0
    try:
        for file in files:
            with safe_open(file, framework="np") as weights:
                parameters += sum(
                    math.prod(weights.get_slice(name).get_shape())
                    for name in weights.keys()  # noqa: SIM118
                )
    except SafetensorError:
        return None  # whoever loads it says what is wrong with it
    return FLOAT_BYTES * parameters if files else None


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB"

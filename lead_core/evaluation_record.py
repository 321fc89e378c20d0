"""A finished run's evaluation as one small file to commit, with all that its figures depend on.

``python -m lead_core.evaluation_record FOLDER``, in the run's workspace, writes FOLDER/SELECTOR.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lead_core.artifacts import Layout, check_chain
from lead_core.benchmark_check import read_check
from lead_core.comparison.identity import comparison_id
from lead_core.errors import LeadError
from lead_core.lock_file import LOCK_FILE, read_lock
from lead_core.origin import describe_origin
from lead_core.params import Params, load_params
from lead_core.report_data import read_training_manifests
from lead_core.storage import read_json, write_json

SCHEMA = 1
MADE_BY = "make benchmarks DATA=FOLDER"


def describe_evaluation(layout: Layout, params: Params, lock: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of the run in `layout`, made with `params`, without where it was computed.

    lock: `sources.lock.json`. ``comparison`` is the identity that `lead compare` gives to trainings
    that may stand in one table. Raises LeadError when outputs and `params` do not belong together.
    """
    pool, train = read_training_manifests(layout)
    results = read_json(layout.evaluation / "results.json", made_by="dvc repro evaluate")
    evaluated = results["inputs"]["adapter_sha256"]
    check_chain("the evaluation", evaluated, train["adapter_sha256"], "evaluate")
    for name, asked in (("select.selector", params.select.selector), ("seed", params.seed)):
        if (trained := train[name.rpartition(".")[2]]) != asked:
            raise LeadError(
                f"params.yaml: {name} is {asked}, the training is of {trained}; run `lead run` first"
            )
    data_dir = params.evaluate.data_dir
    return {
        "schema": SCHEMA,
        "comparison": comparison_id(params.model_dump(mode="json"), pool, train["precision"]),
        "settings": params.model_dump(
            mode="json",
            exclude={
                "data": {"local_copies"},  # a place on a machine, as is data_dir: hashes tell more
                "evaluate": {"data_dir"},
                "compare": True,
                "report": True,
                "tracking": True,
            },
        ),
        "benchmark_files": {
            Path(file["path"]).relative_to(data_dir).as_posix(): file["sha256"]
            for file in lock["evaluation"]
            if data_dir is not None
        },
        "decontamination": asdict(read_check(layout.decontamination)),
        "pool": pool["counts"],
        "training": train,
        "results": results,
    }


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Return the records in `folder`, those of the lowest held-out loss first.

    Raises LeadError when they are of different comparisons, questions or answers of the base model.
    """
    paths = sorted(folder.glob("*.json"))
    records = [read_json(path, made_by=MADE_BY) for path in paths]
    for path, record in zip(paths, records, strict=True):
        first = _shared(records[0])
        if record.get("schema") != SCHEMA or path.stem != record["training"]["selector"]:
            raise LeadError(f"{path} is not what its name says; run `{MADE_BY}` again")
        other = [name for name, value in _shared(record).items() if value != first[name]]
        if other:
            raise LeadError(
                f"{path} and {paths[0].name} are of different runs ({', '.join(other)}); "
                f"run `{MADE_BY}` for both"
            )
    return sorted(records, key=lambda r: r["results"]["tasks"]["lead_heldout"]["tuned"]["loss"])


def _shared(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the rows of one table have in common: trainings, questions, base model's answers."""
    tasks = record["results"]["tasks"].items()
    return {
        "comparison": record["comparison"],
        "benchmark files": record["benchmark_files"],
        "tasks": {name: (task["n"], task["num_fewshot"], task["version"]) for name, task in tasks},
        "base model's row": {name: task["base"] for name, task in tasks},
    }


def main(folder: Path) -> None:
    """Write the record of the current folder's run to `folder`."""
    workspace = Path.cwd()
    params = load_params(workspace / "params.yaml")
    lock = read_lock(workspace / LOCK_FILE)
    record = describe_evaluation(Layout.below(Path("artifacts")), params, lock)
    origin = {**describe_origin(workspace), "command": MADE_BY}
    path = folder / f"{params.select.selector}.json"
    write_json(path, {**record, "origin": origin})
    print(f"written: {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m lead_core.evaluation_record")
    parser.add_argument("folder", type=Path, help="where SELECTOR.json goes")
    try:
        main(parser.parse_args().folder)
    except LeadError as error:
        sys.exit(f"error: {error}")

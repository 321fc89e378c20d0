"""A pool that grows, measured: the run that goes on from an earlier one against one that starts anew.

    python tests/growth.py --old 300 --new 60 --seeds 0 1 2 --out results/growth

The docstring pool is cut in two, at random or by package (`--by source`: real drift). Per seed there
is a run on the old part; from it one goes on with the whole, once with the earlier clusters and once
with clusters fitted anew; and one starts from null, with the budget that the first and the grown run
had together. Held-out records are the same for all three.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from sklearn.metrics import adjusted_rand_score

from flows.source_lock import update_source_lock
from lead_core.artifacts import Layout, read_clusters
from lead_core.origin import write_origin
from lead_core.params import override, parse_params
from lead_core.pool import open_pool
from lead_core.statistics import paired_difference
from lead_core.storage import read_json, write_json, write_jsonl, write_text

ROOT = Path(__file__).parents[1]
BUDGET_FRACTION = 0.15
ANYTHING = ["grow.max_new_fraction=1", "grow.max_ifd_distance=1", "grow.max_noise_rise=1"]
STAGES = ("prepare", "score", "cluster", "train", "evaluate")


class Workspace:
    """A folder with a params.yaml in which the stages run, in this process."""

    def __init__(self, folder: Path, settings: list[str]):
        self.folder, self._settings = folder, settings
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, *settings: str) -> dict[str, Any]:
        """Run the stages from nothing with these settings; return what they cost and came to."""
        shutil.rmtree(self.folder / "artifacts", ignore_errors=True)
        said, seconds = self.run_stages(STAGES, *settings)
        layout = Layout.below(self.folder / "artifacts")
        manifest = read_json(layout.train / "manifest.json", made_by="train")
        uses = pd.read_parquet(layout.train / "utilities.parquet")
        clusters = read_clusters(layout.clusters)[0]
        return {
            "records": manifest["pool_size"],
            "forwards": {name: row["sequences"] for name, row in manifest["ledger"].items()},
            "seconds": seconds,
            "clusters": said["cluster"].splitlines()[-1],
            "labels": dict(
                zip(clusters["id"], clusters["difficulty"] * 10_000 + clusters["task"], strict=True)
            ),
            "picks": set(uses["id"][uses["uses"] > 0]),
            "heldout": pd.read_parquet(layout.evaluation / "heldout.parquet"),
        }

    def run_stages(
        self, stages: Sequence[str], *settings: str
    ) -> tuple[dict[str, str], dict[str, float]]:
        """Return what each stage said, and its seconds (loading the model included)."""
        shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        plain = override(shipped, [*self._settings, *settings])
        write_text(self.folder / "params.yaml", yaml.safe_dump(plain))
        params, said, seconds = parse_params(plain), {}, {}
        with contextlib.chdir(self.folder):
            update_source_lock(self.folder)
            for name in stages:
                stage = getattr(import_module(f"flows.stages.{name}"), name)
                started = time.monotonic()
                said[name] = stage(params, Layout.below(Path("artifacts")), self.folder)
                seconds[name] = round(time.monotonic() - started, 1)
                print(said[name], flush=True)
        return said, seconds


def write_sources(
    folder: Path, settings: list[str], old: int, new: int, by: str
) -> tuple[list[str], int]:
    """Cut the docstring pool into the files old-*.jsonl and, aside, new-*.jsonl, one per package.

    Returns the entries of data.sources that read them, and the number of old records: those of a
    package stay together by source, else a package that grows would hold out what was trained on.
    """
    mined = Workspace(folder / "mined", settings)
    sources = "docstrings://stdlib,numpy,pandas,scipy,sklearn,torch"
    wanted = [f"data.sources=['{sources}']", f"data.limit={old + new}", "data.heldout_per_source=0"]
    mined.run_stages(["prepare"], *wanted)
    pool = open_pool(mined.folder / "artifacts/pool")
    order = np.random.default_rng(0).permutation(len(pool))
    if by == "source":  # whole packages last, so that the new ones are of another kind
        order = order[np.argsort(pool.sources[order], kind="stable")]
        old = int(np.searchsorted(pool.sources[order], pool.sources[order[old]]))
    rows: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for place, index in enumerate(order):
        part = "old" if place < old else "new"
        rows[part, pool.sources[index]].append({"messages": pool.messages(index)})
    for (part, source), messages in rows.items():
        write_jsonl(folder / "aside" / f"{part}-{source}.jsonl", messages)
    names = sorted({source for _, source in rows})
    return [f"{{uri: 'pool/*-{name}.jsonl', name: {name}}}" for name in names], old


def reveal(folder: Path, part: str) -> list[str]:
    """Put the files of `part` where the sources look; return their packages."""
    (folder / "pool").mkdir(exist_ok=True)
    files = sorted((folder / "aside").glob(f"{part}-*.jsonl"))
    for file in files:
        shutil.copy(file, folder / "pool")
    return [file.stem.partition("-")[2] for file in files]


def measure_seed(
    folder: Path, seed: int, settings: list[str], args: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Run all rows of one seed; return what each came to."""
    sources, cut = write_sources(folder, settings, args.old, args.new, args.by)
    workspace = Workspace(folder, [*settings, f"seed={seed}"])
    first, more = (round(BUDGET_FRACTION * records) for records in (cut, args.old + args.new - cut))

    def reading(packages: list[str]) -> str:
        entries = [s for s in sources if any(f"-{name}.jsonl'" in s for name in packages)]
        return f"data.sources=[{', '.join(entries)}]"

    old = reveal(folder, "old")
    budget = "select.budget_samples="
    workspace.run(reading(old), f"{budget}{first}")
    shutil.copytree(folder / "artifacts", folder / "first")
    everything = reading(sorted({*old, *reveal(folder, "new")}))
    go_on = [everything, "grow.start_from=first", f"{budget}{more}"]
    return {
        "grown": workspace.run(*go_on, *ANYTHING),
        "grown, fitted anew": workspace.run(*go_on, *ANYTHING[1:], "grow.max_new_fraction=0"),
        "from null": workspace.run(everything, f"{budget}{first + more}"),
    }


def describe(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the figures of each row beside the run from null."""
    return {name: _figures(row, rows["from null"]) for name, row in rows.items()}


def _figures(row: dict[str, Any], null: dict[str, Any]) -> dict[str, Any]:
    ids = sorted(row["labels"])
    cells = [[run["labels"][name] for name in ids] for run in (row, null)]
    both = row["heldout"].merge(null["heldout"], on="id", suffixes=("", "_null"))
    change = paired_difference(both["tuned_loss_null"], both["tuned_loss"])
    return {
        "records": row["records"],
        "forwards": row["forwards"],
        "seconds": row["seconds"],
        "clusters": row["clusters"],
        "adjusted_rand": float(adjusted_rand_score(cells[1], cells[0])),
        "jaccard_picks": len(row["picks"] & null["picks"]) / len(row["picks"] | null["picks"]),
        "heldout_loss": change.tuned,
        "heldout_change": [change.difference, change.low, change.high],
        "heldout_records": change.n,
    }


def as_markdown(results: dict[str, dict[str, dict[str, Any]]], command: str) -> str:
    """Return the means over seeds as a table."""
    lines = [
        "| run | forwards offline | forwards training | seconds: score + cluster | train | labels "
        "(adj. Rand) | picks (Jaccard) | held-out loss | against null |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in next(iter(results.values())):
        rows = [seed[name] for seed in results.values()]

        def mean(path: str, rows: list[dict[str, Any]] = rows) -> float:
            first, _, second = path.partition("/")
            values = [row[first][second] if second else row[first] for row in rows]
            return statistics.fmean(values)

        change = statistics.fmean(row["heldout_change"][0] for row in rows)
        lines.append(
            f"| {name} | {mean('forwards/offline'):.0f} | {mean('forwards/training'):.0f} | "
            f"{mean('seconds/score') + mean('seconds/cluster'):.0f} | {mean('seconds/train'):.0f} | "
            f"{mean('adjusted_rand'):.2f} | {mean('jaccard_picks'):.2f} | "
            f"{mean('heldout_loss'):.4f} | {change:+.4f} |"
        )
    seeds = ", ".join(results)
    return "\n".join(
        [
            *lines,
            "",
            f"Means over seeds {seeds}; per seed with intervals in growth.json.",
            "",
            f"    {command}",
            "",
        ]
    )


def main() -> None:
    """Measure and write growth.json, growth.md and origin.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--old", type=int, default=300, help="records of the first run")
    parser.add_argument("--new", type=int, default=60, help="records that come later")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--by", choices=["random", "source"], default="random")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("results/growth"))
    args = parser.parse_args()
    settings = ["data.limit=null", "data.heldout_per_source=8", "select.budget_fraction=null"]
    settings += ["select.budget_samples=1", *args.set]
    results: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="lead-growth-") as scratch:
        for seed in args.seeds:
            rows = measure_seed(Path(scratch, str(seed)), seed, settings, args)
            results[str(seed)] = describe(rows)
            _write(args.out, results)  # what is finished is kept, whatever happens to the next seed
    print((args.out / "growth.md").read_text(encoding="utf-8"))


def _write(folder: Path, results: dict[str, dict[str, dict[str, Any]]]) -> None:
    command = shlex.join(["python", "tests/growth.py", *sys.argv[1:]])
    write_json(folder / "growth.json", results)
    write_text(folder / "growth.md", as_markdown(results, command))
    write_origin(folder / "growth.json", ROOT, {"command": command})


if __name__ == "__main__":
    main()

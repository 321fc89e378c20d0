"""The fidelity benchmark on the prepared pool: train a few rounds per seed, measure, and report.

It reads the workspace's artifacts and writes only to its own folder: no stage's output, no MLflow run.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from flows.stages.train import TrainInputs, build_loop, read_inputs
from lead_core.artifacts import Layout
from lead_core.comparison.identity import TRAINED, deciding
from lead_core.errors import LeadError
from lead_core.fidelity import Estimator, estimators_for
from lead_core.fidelity_plot import fidelity_plot
from lead_core.fidelity_probe import FidelityProbe
from lead_core.fidelity_report import (
    FIGURES,
    figures_frame,
    judge,
    last_rounds,
    markdown,
    rounds_reached,
)
from lead_core.method_version import METHOD_VERSION
from lead_core.model import ResolvedRuntime, resolve_runtime
from lead_core.params import Params, effective_params, load_params
from lead_core.round_rule import Limits
from lead_core.rounds import RoundReport
from lead_core.storage import read_json, sha256_json, write_bytes, write_json, write_text
from lead_core.tracking_process import git_origin


@dataclass(frozen=True)
class FidelityPlan:
    """What to measure: rounds per seed, records probed beside the trained ones, where results go."""

    rounds: int
    probe_samples: int
    seeds: tuple[int, ...]
    out: Path
    overrides: tuple[str, ...]

    def command(self, workspace: Path) -> str:
        """Return the command line that makes this; a folder outside of the workspace is left out."""
        seeds = ",".join(str(seed) for seed in self.seeds)
        words = ["lead", "fidelity", "--rounds", str(self.rounds)]
        words += ["--probe-samples", str(self.probe_samples), "--seeds", seeds]
        if self.out.is_relative_to(workspace):
            words += ["--out", self.out.relative_to(workspace).as_posix()]
        for text in self.overrides:
            words += ["--set", text]
        return shlex.join(words)

    def file_of(self, seed: int) -> Path:
        """Return where the result of one seed goes."""
        return self.out / f"fidelity-seed{seed}.json"


def measure_fidelity(workspace: Path, plan: FidelityPlan) -> list[str]:
    """Measure all seeds that are not finished, write table and picture, and return the verdict."""
    given, changes = effective_params(load_params(workspace / "params.yaml", plan.overrides))
    for change in changes:
        print(change, flush=True)
    configured = configured_estimator(given)
    inputs = read_inputs(given, Layout.below(workspace / "artifacts"), workspace)
    runtime = resolve_runtime(given.runtime.device, given.runtime.threads, given.runtime.precision)
    runs = {seed: probed_params(given, seed) for seed in plan.seeds}
    identities = {
        seed: {
            "method_version": METHOD_VERSION,
            "params": deciding_params(params),
            "configured": configured.name,
            "runtime": asdict(runtime),
            "rounds": plan.rounds,
            "probe_samples": plan.probe_samples,
            "hashes": inputs.manifest,
        }
        for seed, params in runs.items()
    }
    pending = pending_seeds(plan, identities)
    for seed in plan.seeds:
        if seed not in pending:
            print(f"seed {seed}: measured already, see {plan.file_of(seed).name}", flush=True)
            continue
        result = _measure_seed(runs[seed], inputs, runtime, plan, configured)
        write_json(
            plan.file_of(seed),
            {
                "schema": 1,
                "identity": sha256_json(identities[seed]),
                **identities[seed],
                **_commit(workspace),
                **result,
            },
        )
    results = [read_json(plan.file_of(seed), made_by="lead fidelity") for seed in plan.seeds]
    write_text(plan.out / "fidelity.md", markdown(results, plan.command(workspace)))
    write_bytes(plan.out / "fidelity.png", fidelity_plot(results))
    return _verdict(results, configured.name)


def deciding_params(params: Params) -> dict[str, Any]:
    """Return the parameters that decide a result; no probed step may be skipped, whatever the limit."""
    values = params.model_dump(mode="json", exclude={"train": {"max_skipped_steps"}})
    return {"seed": values["seed"], **deciding(values, TRAINED, neutral=frozenset())}


def configured_estimator(params: Params) -> Estimator:
    """Return the estimator that the loop itself would use with these parameters."""
    utility = params.utility
    whole = utility.round_loss_change == "whole" and utility.loss_change != "none"
    return Estimator(utility.loss_change, whole, utility.smoothing, utility.drift == "cluster")


def probed_params(params: Params, seed: int) -> Params:
    """Return the parameters of the probed loop: what its reports must hold, and nothing else changed.

    All variants are computed beside the loop, whose own choices follow displacement without drift.
    """
    plain = {"loss_change": "displacement", "round_loss_change": "remaining", "drift": "none"}
    return params.model_copy(
        update={
            "seed": seed,
            "utility": params.utility.model_copy(update=plain),
            "train": params.train.model_copy(update={"monitor_every_rounds": None}),
        }
    )


def pending_seeds(plan: FidelityPlan, identities: Mapping[int, dict[str, Any]]) -> list[int]:
    """Return the seeds that are yet to be measured, in order.

    Raises LeadError when a seed's file was made from something else, or is none of ours: it may be the
    only copy of hours of work.
    """
    pending = []
    for seed in plan.seeds:
        path = plan.file_of(seed)
        if not path.exists():
            pending.append(seed)
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        identity = found.get("identity") if isinstance(found, dict) else None
        if identity != sha256_json(identities[seed]):
            raise LeadError(
                f"{path} was measured with {_difference(found, identities[seed])} than now; "
                "give another folder with --out, or delete it to measure again"
            )
    return pending


def _difference(found: Any, wanted: dict[str, Any]) -> str:
    """Name what differs between a result and the identity it should have."""
    old = found if isinstance(found, dict) else {}
    names = [name for name, value in wanted.items() if old.get(name) != value]
    return f"other {', '.join(names)}" if names else "another version of LEAD"


def _measure_seed(
    params: Params,
    inputs: TrainInputs,
    runtime: ResolvedRuntime,
    plan: FidelityPlan,
    configured: Estimator,
) -> dict[str, Any]:
    """Train the rounds of one seed under the probe; return its rounds, trajectory and ledger."""
    pool_size = len(inputs.pool.ids)
    # Only the number of rounds ends this training: a budget would cut the last ones short.
    limits = Limits(pool_size, pool_size * params.select.max_uses, plan.rounds)
    variants = estimators_for(params.utility.smoothing)
    estimators = tuple(dict.fromkeys([*variants, configured]))
    reports: list[RoundReport] = []
    with tempfile.TemporaryDirectory(prefix="lead-fidelity-") as state:
        loop, _, _ = build_loop(params, inputs, runtime, Path(state), limits)
        probe = FidelityProbe(loop, estimators, plan.probe_samples)
        on_round = _telling(probe, reports, params.seed, configured.name)
        # A seed is measured as a whole or not at all, so its rounds need no checkpoint.
        loop = replace(
            loop,
            on_round=on_round,
            checkpoint_every_rounds=plan.rounds + 1,
            max_skipped_steps=0,  # estimates need the loss of every sample
        )
        last = loop.run()
    if not last.round:
        raise LeadError(
            f"{loop.selector.name} finds no record to train on; see artifacts/clusters/clusters.json"
        )
    trajectory = {
        "arms": [report.round["arm"] for report in reports],
        "samples": [report.round["n_selected"] for report in reports],
        "mean_losses": [report.round["mean_loss"] for report in reports],
        "loss_changes": [report.round["loss_change"] for report in reports],
        "visits": last.visits,
        "distinct": last.selection.distinct,
    }
    return {
        "seed": params.seed,
        "selector": loop.selector.name,
        "pool_size": pool_size,
        "estimators": [estimator.name for estimator in estimators],
        "trajectory": trajectory,
        "rounds": probe.rounds,
        "ledger": loop.ledger.as_dict(),
    }


def _telling(
    probe: FidelityProbe, reports: list[RoundReport], seed: int, name: str
) -> Callable[[RoundReport], None]:
    """Return an `on_round` that probes, keeps the report and prints a line."""

    def on_round(report: RoundReport) -> None:
        probe.take(report)
        reports.append(report)
        row = probe.rounds[-1]
        figures = row["groups"]["trained"]["estimators"][name]
        spearman = figures["spearman"]
        print(
            f"seed {seed}, round {row['round']}: {figures['n']} samples trained so far, "
            f"Spearman {'not defined' if spearman is None else f'{spearman:.3f}'}, "
            f"MAE {figures['mae']:.3f}",
            flush=True,
        )

    return on_round


def _commit(workspace: Path) -> dict[str, Any]:
    """Return the commit that the code is of, and whether it was edited since; None without git."""
    origin = git_origin(workspace)
    commit = origin.get("commit")
    return {"commit": f"{commit} (edited)" if origin.get("edited") else commit}


def _verdict(results: Sequence[dict[str, Any]], name: str) -> list[str]:
    """Return one line per target for the setting of params.yaml and its selector."""
    last: pd.DataFrame = last_rounds(figures_frame(results))
    means = last.groupby(["group", "estimator"])[list(FIGURES)].mean()
    verdicts = judge(means, name, rounds_reached(results))
    return [f"{target}: {verdict}" for target, verdict in verdicts.items()]

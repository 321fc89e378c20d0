"""The `lead` command. Heavy imports wait until a command needs them: `lead --help` is instant."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lead_core.errors import LeadError, TransientError
from lead_core.export_forms import Form

if TYPE_CHECKING:
    from flows.reproduce import StageRun
    from lead_core.bench.report import BenchReport


def _examples(*lines: str) -> str:
    """Return `lines` as a command's epilog, one below the other, brackets taken as text."""
    return "\n\n".join(["Examples:", *lines]).replace("[", r"\[")


app = typer.Typer(
    help="LEAD: iterative data selection for LLM instruction tuning, as a versioned pipeline.",
    epilog=_examples(
        "lead doctor my_data.jsonl",
        "lead run --set data.sources='[my_data.jsonl]' --set seed=1",
        "lead export subset --format sharegpt",
    ),
    pretty_exceptions_enable=False,
)


def _preset_names() -> list[str]:
    """Return what --preset takes here, for the shell's completion."""
    from flows.workspace import find_workspace

    try:
        return sorted(path.stem for path in (find_workspace(Path.cwd()) / "presets").glob("*.yaml"))
    except LeadError:
        return []


Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Apply presets/NAME.yaml to params.yaml first.",
        autocompletion=_preset_names,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="Edit params.yaml first, after a preset."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only warnings and the final table.")]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the outcome as JSON, for programs; the log is on stderr."),
]


# What to do about errors of the machine, not of ours.
NEXT_STEPS = {
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "name a place that can be written to",
    errno.EEXIST: "that is in the way; name another place",
    errno.ENOTDIR: "that is no folder; name another place",
    errno.ENOSPC: "make room, or name a place on another disk",
    errno.EDQUOT: "make room, or name a place on another disk",
}


def main() -> None:
    """Run the `lead` command; what the user can act on becomes one line on stderr and an exit code."""
    from flows.reproduce import StageError

    try:
        sys.exit(app(sys.argv[1:] or ["--help"], prog_name="lead", standalone_mode=False))
    except typer.TyperException as error:  # else it comes as a box
        _fail(_usage_line(error), error.exit_code)
    except StageError as error:  # its log has been on the screen already
        _fail(error.line, error.exit_code)
    except LeadError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in NEXT_STEPS or error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; {NEXT_STEPS[error.errno]}", LeadError.exit_code)


def _enter_workspace() -> Path:
    """Return the workspace, entered: what params.yaml names is relative to it."""
    from flows.workspace import find_workspace

    workspace = find_workspace(Path.cwd())
    os.chdir(workspace)
    return workspace


def _usage_line(error: typer.TyperException) -> str:
    """Return what is wrong with a command line: the command, Typer's reason, and where to read on."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "lead"
    reason = " ".join(error.format_message().split()).removesuffix(".")
    return f"{command}: {reason[:1].lower()}{reason[1:]} (see `{command} --help`)"


def _fail(text: str, exit_code: int) -> None:
    for line in text.splitlines():
        print(f"error: {line}", file=sys.stderr)
    sys.exit(exit_code)


@app.command(epilog=_examples("lead lock && dvc repro"))
def lock() -> None:
    """Record what sources, benchmarks and model are, by hash, in sources.lock.json.

    DVC sees them only through that file. `lead run` does this first; do it by hand before
    `dvc repro`.
    """
    from flows.source_lock import SOURCE_LOCK, update_source_lock
    from flows.workspace import hold_workspace

    workspace = _enter_workspace()
    with hold_workspace(workspace):
        changed = update_source_lock(workspace)
    print(f"{SOURCE_LOCK}: {'written' if changed else 'up to date'}")


@app.command(
    epilog=_examples(
        "lead run --set data.sources='[my_data.jsonl, \"more/*.parquet\"]' --set seed=1",
        "lead run --preset paper --dry-run",
        "lead run train --quiet",
        "lead run --json > outcome.json",
    )
)
def run(
    stages: Annotated[
        list[str] | None, typer.Argument(help="Only these and what they need (default: all).")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Run and write nothing. Show which stages would run and why, what that will take, and "
            "refuse what cannot fit; with --preset or --set, check those and show what they would use.",
        ),
    ] = False,
    preset: Preset = None,
    set_: Set = None,
    force: Annotated[
        bool, typer.Option("--force", help="Run stages that are up to date as well.")
    ] = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Bring the pipeline up to date and show what came of it.

    Nothing is started when DVC finds nothing to do; otherwise the stages run as a Prefect flow.
    """
    from flows.presets import preset_overrides
    from flows.workspace import hold_workspace

    workspace = _enter_workspace()
    overrides = [*(preset_overrides(workspace, preset) if preset else []), *(set_ or [])]
    if dry_run:
        if overrides:
            _show_settings(workspace, overrides, as_json=json_)
        else:
            _show_plan(workspace, stages or [], as_json=json_)
        return
    runs: list[StageRun] = []
    with hold_workspace(workspace):
        changes = _edit_params(workspace, overrides, show=not json_)
        if force or _is_stale(workspace, stages or []):
            runs = _run_flow(workspace, stages or [], force=force, quiet=quiet)
        elif not json_:
            print("Everything is up to date.")
    reported = not stages or "report" in stages  # else the report is of an earlier run
    if json_:
        _print_outcome(workspace, changes, runs, reported=reported)
    elif reported:
        _show_results(workspace)


@app.command(
    epilog=_examples(
        "lead compare --set compare.selectors='[lead, random]' --set compare.seeds='[0, 1, 2]'",
        "lead compare --jobs 2 --set runtime.threads=1",
        "lead compare --preset reference --dry-run",
    )
)
def compare(
    jobs: Annotated[int, typer.Option(min=1, help="Cells trained at the same time.")] = 1,
    preset: Preset = None,
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run and write nothing; show what would be used.")
    ] = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Compare selectors: every one of `compare.selectors` with every seed, on the same pool.

    Finished cells are kept (`compare.results`) and never computed twice; a stopped comparison goes
    on where it was.
    """
    from flows.presets import preset_overrides
    from flows.workspace import hold_workspace

    workspace = _enter_workspace()
    overrides = [*(preset_overrides(workspace, preset) if preset else []), *(set_ or [])]
    if dry_run:
        _show_settings(workspace, overrides, comparison=True, as_json=json_)
        return
    with hold_workspace(workspace):
        _edit_params(workspace, overrides, show=not json_)
        _compare(workspace, jobs, quiet=quiet, as_json=json_)


@app.command(
    epilog=_examples(
        "lead export subset --format sharegpt",
        "lead export --adapter adapter --merged model",
        "lead export --champion --adapter champion",
    )
)
def export(
    out: Annotated[
        Path | None,
        typer.Argument(help="Folder for the selected subset (default: export, if nothing else)."),
    ] = None,
    format_: Annotated[
        Form,
        typer.Option(
            "--format",
            help="messages, sharegpt or alpaca: JSONL; dataset: Parquet that load_dataset reads.",
        ),
    ] = Form.MESSAGES,
    scores: Annotated[
        bool,
        typer.Option(
            "--with-scores/--no-scores",
            help="Keep id, source, utility, round, uses and clusters beside each conversation.",
        ),
    ] = True,
    adapter: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Folder for the adapter (peft) with its tokenizer."),
    ] = None,
    merged: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Folder for the base model with the adapter merged in: loads without us. "
            "Needs memory for all weights in float32.",
        ),
    ] = None,
    champion: Annotated[
        bool,
        typer.Option(
            "--champion",
            help="Take MLflow's champion (`tracking.champion`), not the training of this workspace.",
        ),
    ] = False,
) -> None:
    """Take the selected subset, the adapter or the tuned model to other tools.

    Beside the subset lie configs for LLaMA-Factory, TRL and axolotl, and a
    README.md that says how to train with each. Folders are written whole or not
    at all; one that is there is replaced only if `lead export` wrote it and
    nobody changed it since.
    """
    import warnings

    from flows.workspace import hold_workspace

    # Other people's deprecations are nothing that a user can act on.
    warnings.filterwarnings("ignore", category=FutureWarning)
    wanted = {"subset": out, "adapter": adapter, "merged": merged}
    if not any(wanted.values()):
        wanted["subset"] = Path("export")
    folders = {name: path.resolve() if path else None for name, path in wanted.items()}
    workspace = _enter_workspace()
    with hold_workspace(workspace):
        from flows.export import export as write

        for line in write(workspace, champion=champion, form=format_, scores=scores, **folders):
            print(line)


@app.command(epilog=_examples("lead ui --port 5001"))
def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000) -> None:
    """Open the recorded runs in MLflow's web interface, on this machine only."""
    from flows.process import run_server
    from flows.workspace import find_workspace
    from lead_core.params import load_params
    from lead_core.tracking import resolve_settings, share_view
    from lead_core.tracking_names import redact
    from lead_core.tracking_view import view_address

    workspace = find_workspace(Path.cwd())
    tracking = load_params(workspace / "params.yaml").tracking
    settings = resolve_settings(workspace, tracking.uri, tracking.experiment)
    uri = settings.uri
    if uri.startswith("http"):
        print(f"The runs are recorded on a server that has its own interface: {redact(uri)}")
        return
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its workers are of no use here
        "MLFLOW_BACKEND_STORE_URI": uri,  # not on the command line: it may hold a password
    }
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    runs = view_address(f"http://127.0.0.1:{port}", share_view(settings))
    print(f"The runs, once the server has started: {runs}", flush=True)
    code = run_server(
        [sys.executable, "-m", "mlflow", "ui", *options], cwd=workspace, environment=environment
    )
    raise LeadError(f"MLflow's interface ended with exit code {code}; is port {port} in use?")


@app.command(epilog=_examples('lead serve --cron "0 3 * * *"'))
def serve(
    cron: Annotated[str, typer.Option(help='When to run, for example "0 3 * * *" (03:00, UTC).')],
) -> None:
    """Stay here and run the pipeline on a schedule, one run at a time; Ctrl-C ends it."""
    from flows.schedule import serve_schedule
    from flows.workspace import find_workspace

    serve_schedule(find_workspace(Path.cwd()), cron)


@app.command(epilog=_examples("lead sync"))
def sync() -> None:
    """Send to MLflow what could not be sent while runs were going on."""
    from flows.workspace import find_workspace
    from lead_core.params import load_params
    from lead_core.tracking import resolve_settings
    from lead_core.tracking import sync as send

    workspace = find_workspace(Path.cwd())
    tracking = load_params(workspace / "params.yaml").tracking
    report = send(resolve_settings(workspace, tracking.uri, tracking.experiment))
    print(
        f"sent {report.sent}, in use {report.active}, waiting {report.waiting}, "
        f"refused {report.refused}; {report.killed} dead runs marked as killed"
    )
    if report.failure:
        raise LeadError(f"MLflow: {report.failure}; run `lead sync` again when it is there")


@app.command(epilog=_examples("lead gc --dry-run", "lead gc --eval-cache-mb 200"))
def gc(
    eval_cache_mb: Annotated[
        int, typer.Option(min=0, help="Size of the evaluation's kept answers; the newest stay.")
    ] = 1024,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing; show what would be removed.")
    ] = False,
) -> None:
    """Free the disk of what no run needs any more, and say how much that was.

    Resume states of trainings and scorings that params.yaml no longer asks for, old answers of
    evaluations, and what kills left of unfinished writes; nothing written within the last hour.
    """
    from flows.workspace import hold_workspace

    workspace = _enter_workspace()
    with hold_workspace(workspace):
        from flows.gc import collect_garbage

        for line in collect_garbage(workspace, eval_cache_mb=eval_cache_mb, dry_run=dry_run):
            print(line)


@app.command(
    epilog=_examples(
        "lead doctor my_data.jsonl",
        "lead doctor --model Qwen/Qwen2.5-0.5B-Instruct --max-tokens 1024 'data/*.jsonl'",
        "lead doctor --json --findings findings.jsonl my_data.jsonl",
    )
)
def doctor(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Whatever data.sources takes: paths, globs, URLs."),
    ],
    tokens: Annotated[
        bool | None,
        typer.Option(
            "--tokens/--no-tokens",
            help="Lengths in the tokens of the workspace's model, fetched if need be, or in words "
            "(fast). Default: tokens if the model is on this machine.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Lengths in this model's tokens: a hub id, a folder, a .gguf file."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=8, help="Longer records are rejected (default: data.max_tokens)."),
    ] = None,
    max_rejected: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Tolerated share of records that cannot be used (the next two apart).",
        ),
    ] = 0.01,
    max_duplicates: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Tolerated share of records equal to an earlier one.",
        ),
    ] = 0.05,
    max_too_long: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="Tolerated share of records that are too long."
        ),
    ] = 0.05,
    max_suspicious: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="Tolerated share of usable records that look odd."
        ),
    ] = 0.05,
    examples: Annotated[int, typer.Option(min=0, help="Records shown of each kind.")] = 3,
    findings: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write every finding here, as JSON lines.")
    ] = None,
    index_mb: Annotated[
        int,
        typer.Option(
            min=1,
            help="Memory for finding repeats. 64 are exact up to 786,432 different records; beyond, "
            "duplicates are estimated.",
        ),
    ] = 64,
    json_: Annotated[
        bool, typer.Option("--json", help="The report as JSON, for machines.")
    ] = False,
) -> None:
    """Check a pool before training: what would be rejected, what looks odd, what a limit costs.

    Works in any folder and changes nothing. Exit code 0: fine; 1: a file breaks off, or there is
    more of something than the --max options tolerate; 2: nothing to read, or a wrong option.
    """
    from flows.doctor import DoctorOptions, diagnose
    from lead_core.checkup import Tolerances
    from lead_core.doctor_report import as_json, as_text

    tolerances = Tolerances(max_rejected, max_duplicates, max_too_long, max_suspicious)
    options = DoctorOptions(tokens, model, max_tokens, tolerances, examples, index_mb, findings)
    diagnosis = diagnose(files, Path.cwd(), options)
    if json_:
        print(json.dumps(as_json(diagnosis), indent=2))
    else:
        columns = shutil.get_terminal_size((90, 24)).columns
        text = as_text(diagnosis, width=min(max(columns, 80), 100))
        print(text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding))
    raise typer.Exit(1 if diagnosis.problems else 0)


@app.command(
    epilog=_examples("lead fidelity --rounds 12 --seeds 0,1,2 --set select.selector=lead-paper")
)
def fidelity(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to train per seed.")] = 12,
    probe_samples: Annotated[
        int, typer.Option(min=1, help="Random records whose true loss is measured every round.")
    ] = 256,
    seeds: Annotated[str, typer.Option(help="Seeds of the trainings, with commas.")] = "0,1,2",
    out: Annotated[
        Path | None, typer.Option(help="Where results go (default: results/fidelity).")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Differ from params.yaml here."),
    ] = None,
) -> None:
    """Measure how close utilities are to true losses, on the pool that is prepared.

    Seeds that are finished are not measured again. No stage's output and no params.yaml changes.
    """
    import warnings

    from flows.fidelity import FidelityPlan, measure_fidelity

    # Other people's deprecations are nothing that a user can act on.
    warnings.filterwarnings("ignore", category=FutureWarning)
    given = out.resolve() if out else None  # before the folder changes
    workspace = _enter_workspace()
    folder = given or workspace / "results" / "fidelity"
    plan = FidelityPlan(rounds, probe_samples, _parse_seeds(seeds), folder, tuple(set_ or []))
    for line in measure_fidelity(workspace, plan):
        print(line)
    print(f"written: {folder / 'fidelity.md'}, fidelity.png and one JSON file per seed")


@app.command(
    epilog=_examples("lead bench", "lead bench scoring training", "lead bench --full --out FOLDER")
)
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Only these measurements (default: all)."),
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full/--quick", help="As for publication, most of an hour; or within minutes."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write JSON, table and origin here as well."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Benchmarks as files, for `evaluation`."),
    ] = None,
    subjects: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=57,
            help="Of MMLU, for `evaluation`: 4 questions each (default: 2, full: 57).",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Differ from params.yaml here."),
    ] = None,
) -> None:
    """Measure how fast the stages are, side by side with what people use otherwise.

    Medians of interleaved repetitions, on the model and settings of params.yaml. Nothing of the
    workspace changes. See docs/performance.md.
    """
    import warnings

    from flows.bench import BenchPlan, run_bench

    # Other people's deprecations are nothing that a user can act on.
    warnings.filterwarnings("ignore", category=FutureWarning)
    out, data_dir = (path.resolve() if path else None for path in (out, data_dir))
    workspace = _enter_workspace()
    plan = BenchPlan(tuple(names or ()), full, out, data_dir, subjects, tuple(set_ or ()))
    _show_bench(run_bench(workspace, plan))


def _parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds in ``0,1,2``, each once."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise LeadError(
            f"--seeds must be whole numbers with commas between, like 0,1,2; got {text!r}"
        )
    return tuple(dict.fromkeys(int(part) for part in parts))


def _is_stale(workspace: Path, stages: list[str]) -> bool:
    """Ask DVC whether there is anything to do: a second against the start of a Prefect flow."""
    from flows.graph import plan_run
    from flows.source_lock import update_source_lock

    try:
        update_source_lock(workspace)
    except TransientError:
        return True  # the flow will meet it again, and tries more than once
    return any(plan.reasons for plan in plan_run(workspace, stages))


def _edit_params(workspace: Path, overrides: list[str], *, show: bool) -> list[str]:
    """Apply `overrides` to params.yaml and return what changed, one line each."""
    from flows.params_file import edit_params

    if not overrides:
        return []
    changes = edit_params(workspace / "params.yaml", overrides)
    if show:
        print("\n".join(f"params.yaml: {change}" for change in changes or ["unchanged"]))
    return changes


def _run_flow(workspace: Path, stages: list[str], *, force: bool, quiet: bool) -> list[StageRun]:
    from flows.server import prefect_server

    if quiet:
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "WARNING"
    with prefect_server(workspace):
        from flows.pipeline import lead_pipeline

        return lead_pipeline(workspace, stages or None, force)


def _compare(workspace: Path, jobs: int, *, quiet: bool, as_json: bool) -> None:
    from flows.server import prefect_server

    if quiet:
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "WARNING"
    with prefect_server(workspace):
        from flows.compare import compare_selectors

        result = compare_selectors(workspace, jobs)
    if result is None:
        raise LeadError(
            "neither base model nor baseline are measured yet; run `lead compare` again"
        )
    from flows.compare_plan import COMMAND
    from lead_core.comparison.table import as_markdown

    if as_json:
        print(json.dumps(asdict(result), indent=2))
    else:
        print(as_markdown(result, COMMAND))


def _show_settings(
    workspace: Path, overrides: list[str], *, comparison: bool = False, as_json: bool
) -> None:
    from flows.dry_run import describe_comparison, describe_run
    from lead_core.params import load_params

    params = load_params(workspace / "params.yaml", overrides)
    lines = describe_run(params, workspace)
    if as_json:
        print(json.dumps({"params": params.model_dump(mode="json")}, indent=2))
        return
    print("\n".join([*lines, *(describe_comparison(params) if comparison else [])]))


def _show_plan(workspace: Path, stages: list[str], *, as_json: bool) -> None:
    from flows.graph import plan_run
    from flows.preflight import check_fits, describe_estimate, estimate_run
    from flows.source_lock import SOURCE_LOCK, source_lock_problem
    from lead_core.params import load_params

    problem = source_lock_problem(workspace)
    plans = plan_run(workspace, stages, [SOURCE_LOCK] if problem else [])
    wanted = [plan.stage for plan in plans if plan.reasons]
    params = load_params(workspace / "params.yaml")
    estimate = estimate_run(workspace, wanted, params.model, params.score.model)
    if as_json:
        found = {"lock": problem, "stages": [asdict(plan) for plan in plans]}
        print(json.dumps({**found, "estimate": asdict(estimate)}, indent=2))
    else:
        if problem:
            print(f"{SOURCE_LOCK} would be written anew: {problem}")
        for plan in plans:
            print(f"{plan.stage}: {'; '.join(plan.reasons) or 'up to date'}")
        if wanted:
            print("\n".join(describe_estimate(estimate, workspace)))
    check_fits(estimate, workspace)


def _print_outcome(
    workspace: Path, changes: list[str], runs: Sequence[StageRun], *, reported: bool
) -> None:
    from flows.summary import REPORT, figures

    outcome = {
        "params_changed": changes,
        "stages": [asdict(run) for run in runs],
        "metrics": figures(workspace) if reported else {},
        "report": REPORT.as_posix() if reported and (workspace / REPORT).exists() else None,
    }
    print(json.dumps(outcome, indent=2))


def _show_bench(report: BenchReport) -> None:
    from rich.console import Console
    from rich.table import Table

    from lead_core.bench.report import COLUMNS

    table = Table(*COLUMNS)
    for row in report.rows():
        table.add_row(*row)
    Console().print(table)
    print("\n".join(report.notes()))


def _show_results(workspace: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from flows.summary import headline, next_steps

    figures = headline(workspace)
    if not figures:
        return
    table = Table(show_header=False)
    for name, text in figures:
        table.add_row(name, text)
    table.add_section()
    for name, place in next_steps(workspace):
        table.add_row(name, f"[cyan]{place}[/cyan]")
    Console().print(table)

"""What a run with some parameters would use, resolved and checked without downloading or writing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lead_core.benchmark_files import files_in
from lead_core.comparison.cells import planned_cells
from lead_core.errors import LeadError
from lead_core.params import DirtParams, Params, ScoreParams, SelectParams, TrainParams
from lead_core.resolution import Resolved, resolve_model_name, resolve_source
from lead_core.scoring_model import blamed_on_score_model
from lead_core.selectors import get_selector

if TYPE_CHECKING:
    from lead_core.evaluation_index import ResolvedTask


def describe_comparison(params: Params) -> list[str]:
    """Return the cells that a comparison would want as lines for people."""
    compare = params.compare
    cells = planned_cells(compare.selectors, compare.seeds, compare.fewer_seeds)
    counts = Counter(cell.selector for cell in cells)
    lines = [f"{name} x {counts[name]}" for name in compare.selectors]
    return [
        f"compare   {len(cells)} trainings, selectors x seeds: {', '.join(lines)}",
        f"          against {compare.baseline}; finished cells kept in "
        f"{compare.results or 'artifacts/compare'}",
    ]


def describe_run(params: Params, workspace: Path) -> list[str]:
    """Return what a run would use as lines for people, notes last.

    Raises LeadError with one line for each thing that names nothing: the model, a source, a task
    (looked up in lm-eval's own index).
    """
    from lead_core.evaluation_index import resolve_tasks

    problems: list[str] = []
    resolved: list[Resolved] = []
    scorers: list[Resolved] = []  # at most one: score.model
    tasks: tuple[ResolvedTask, ...] = ()
    with _noting(problems):
        resolved.append(resolve_model_name(params.model))
    if params.score.model is not None:
        with _noting(problems), blamed_on_score_model(params):
            scorers.append(resolve_model_name(params.score.model))
    for source in params.data.read_from:
        with _noting(problems):
            resolved.append(resolve_source(source, workspace))
    with _noting(problems):
        tasks = resolve_tasks(
            params.evaluate.task_names,
            data_dir=_folder(params.evaluate.data_dir, workspace),
        )
    if problems:
        raise LeadError("\n".join(problems))
    model, *sources = resolved
    rows = [
        ("model", model.text),
        *(("scored by", scorer.text) for scorer in scorers),
        *(("source", source.text) for source in sources),
        *_settings(params),
        *(("evaluate", _task_text(task)) for task in tasks),
        ("download", _downloads([*resolved, *scorers], tasks)),
    ]
    allowed = params.evaluate.run_generated_code
    return [*(f"{name:<9} {text}" for name, text in rows), *_notes(tasks, allowed)]


def _folder(name: str | None, workspace: Path) -> Path | None:
    """Return the folder with benchmarks as files, if one is named and there."""
    if name is None:
        return None
    files_in(workspace / name)
    return workspace / name


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """Add a LeadError of the block to `problems` instead of letting it out."""
    try:
        yield
    except LeadError as error:
        problems.append(str(error))


def _settings(params: Params) -> Iterator[tuple[str, str]]:
    """Yield what the schema has checked: the settings that decide a result."""
    data, bandit, utility = params.data, params.bandit, params.utility
    yield (
        "prepare",
        f"{'all' if data.limit is None else f'at most {data.limit}'} records of at most "
        f"{data.max_tokens} tokens, {data.heldout_per_source} of each source held out",
    )
    if data.dirt is not None:
        yield "", f"planted faults: {_faults_text(data.dirt)}"
    yield "score", _score_text(params.score)
    yield "cluster", f"{params.cluster.difficulty_clusters} difficulty clusters"
    start = params.grow.start_from
    if start is not None:
        run = "the champion's run" if start == "champion" else f"the run in {start}"
        yield (
            "start",
            f"from {run}: scores, labels, adapter, utilities",
        )
    yield "select", _select_text(params.select)
    if get_selector(params.select.selector).reads_utilities:
        yield (
            "",
            f"EXP3 with exploration {bandit.exploration:g} and step size {bandit.step_size:g}; "
            f"utility: smoothing {utility.smoothing:g}, loss change {utility.loss_change} "
            f"({utility.round_loss_change}), drift {utility.drift}",
        )
    yield from (("train" if not i else "", text) for i, text in enumerate(_train(params.train)))
    yield "", f"precision {params.runtime.precision}, device {params.runtime.device}"


def _faults_text(dirt: DirtParams) -> str:
    shares = {
        "exchanged responses": dirt.exchanged_fraction,
        "near-duplicates": dirt.near_duplicate_fraction,
        "truncated responses": dirt.truncated_fraction,
        "responses in another language": dirt.wrong_language_fraction,
        "empty politeness": dirt.politeness_fraction,
    }
    return (
        ", ".join(f"{_percent(share)} {what}" for what, share in shares.items() if share) or "none"
    )


def _score_text(score: ScoreParams) -> str:
    warmup, model = score.warmup, "the model" if score.model is None else score.model.name
    if warmup is None:
        return f"losses and IFD of {model} as it is"
    return (
        f"losses of {model} as it is, IFD of one warmed up: {warmup.samples} records x "
        f"{warmup.epochs}, LoRA rank {warmup.rank}, alpha {warmup.alpha:g}, learning rate "
        f"{warmup.learning_rate:g}, {warmup.effective_batch} samples a step"
    )


def _select_text(select: SelectParams) -> str:
    if select.budget_samples is not None:
        budget = f"{select.budget_samples} distinct samples"
    else:
        budget = f"{_percent(select.budget_fraction or 0)} of the pool as distinct samples"
    visits = select.visits_per_budget
    repeats = "until they are spent" if visits is None else f"visits per sample {visits:g}"
    smallest = select.min_round_samples or "one batch"
    rounds = "" if select.max_rounds is None else f"at most {select.max_rounds} rounds, "
    return (
        f"{select.selector}: {budget}, {repeats}; {rounds}{_percent(select.round_fraction)} of a "
        f"cluster per round (at least {smallest}), each sample at most {select.max_uses} times"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _train(train: TrainParams) -> Iterator[str]:
    lora, clipping = train.lora, train.max_grad_norm
    modules = lora.target_modules
    yield (
        f"LoRA rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g} on "
        f"{modules if isinstance(modules, str) else ', '.join(modules)}"
    )
    yield (
        f"AdamW, learning rate {train.learning_rate:g} x {train.decay_factor:g} every "
        f"{train.decay_steps} steps, weight decay {train.weight_decay:g}, "
        f"{'no clipping' if clipping is None else f'clipping at {clipping:g}'}, "
        f"{train.effective_batch} samples a step"
    )


def _task_text(task: ResolvedTask) -> str:
    parts = "" if task.kind == "task" else f" of {len(task.leaves)} tasks"
    data = f", data {', '.join(task.datasets)}" if task.datasets else ""
    return f"{task.name}, a {task.kind}{parts}{data}"


def _downloads(resolved: Sequence[Resolved], tasks: Sequence[ResolvedTask]) -> str:
    names = [entry.download for entry in resolved if entry.download is not None]
    names += [name for task in tasks for name in task.datasets]
    wanted = ", ".join(dict.fromkeys(names))
    return f"{wanted} (what is not in the local caches)" if wanted else "nothing"


def _notes(tasks: Sequence[ResolvedTask], run_generated_code: bool) -> Iterator[str]:
    unsafe = ", ".join(task.name for task in tasks if task.runs_code)
    if unsafe and run_generated_code:
        yield f"note: {unsafe} runs code that the model writes, isolated; see docs/security.md"
    elif unsafe:
        safe = ", ".join(task.name for task in tasks if not task.runs_code)
        yield (
            f"note: {unsafe} runs code that the model writes, and the evaluate stage refuses it; allow "
            "it, isolated, with --set evaluate.run_generated_code=true (docs/security.md), or run the "
            f"others with --set evaluate.tasks='[{safe}]'"
        )

"""Reading DVC's graph: the order of the stages, and which of them would run and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lead_core.errors import LeadError

if TYPE_CHECKING:
    from dvc.repo import Repo


@dataclass(frozen=True)
class StagePlan:
    """A stage and why it would run: the reasons are empty when it is up to date.

    A stage that only follows one that would run says so, and may turn out unchanged.
    """

    stage: str
    reasons: tuple[str, ...]


def stage_order(workspace: Path, targets: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the stages of the workspace's dvc.yaml, each after what it depends on.

    With `targets` only those stages and what they depend on, as `dvc repro` takes targets.
    Other dvc.yaml files below the workspace (comparisons) hold graphs of their own.
    """
    with _opened(workspace) as repo:
        return tuple(stage.name for stage in _ordered(repo, workspace, targets)[0])


def plan_run(
    workspace: Path, targets: Sequence[str] = (), outdated: Sequence[str] = ()
) -> tuple[StagePlan, ...]:
    """Return the plan of every stage in the order of `stage_order`, running nothing.

    `outdated` names dependencies (as dvc.yaml writes them) known to change before the run.
    """
    with _opened(workspace) as repo, repo.lock:
        order, graph = _ordered(repo, workspace, targets)
        plans: dict[str, StagePlan] = {}
        for stage in order:
            reasons = _own_reasons(stage, outdated)
            stale = [before.name for before in graph[stage] if plans[before.name].reasons]
            reasons += [f"follows {', '.join(sorted(stale))}"] if stale else []
            plans[stage.name] = StagePlan(stage.name, tuple(reasons))
    return tuple(plans.values())


@contextmanager
def _opened(workspace: Path) -> Iterator[Repo]:
    """Open the workspace's DVC repository; what DVC cannot read becomes one line."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(workspace)) as repo:
            yield repo
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise LeadError(f"DVC cannot use {workspace}: {reason}") from error


def _ordered(repo: Repo, workspace: Path, targets: Sequence[str]) -> tuple[list[Any], Any]:
    """Return the wanted stages in order, and the graph whose edges lead to what one needs."""
    import networkx

    path = str(workspace.resolve() / "dvc.yaml")
    position = {stage: place for place, stage in enumerate(repo.index.stages) if stage.path == path}
    graph = repo.index.graph.subgraph(position)
    names = {stage.name: stage for stage in position}
    wanted = set(position)
    if targets:
        for unknown in (name for name in targets if name not in names):
            raise LeadError(f"dvc.yaml has no stage {unknown}; it has {', '.join(names)}")
        wanted = {names[name] for name in targets}
        for stage in list(wanted):
            wanted |= networkx.descendants(graph, stage)
    graph = graph.subgraph(wanted)
    order = networkx.lexicographical_topological_sort(graph.reverse(), key=position.__getitem__)
    return list(order), graph


def _own_reasons(stage: Any, outdated: Sequence[str]) -> list[str]:
    """Return why DVC would run this stage, whatever the others do."""
    if stage.outs and not any(out.hash_info for out in stage.outs):
        return ["never run"]
    status: list[Any] = next(iter(stage.status(check_updates=True).values()), [])
    needs = {dependency.def_path for dependency in stage.deps}
    return [text for entry in status for text in _explain(entry)] + [
        f"{path} is outdated" for path in outdated if path in needs
    ]


def _explain(entry: str | dict[str, dict[str, Any]]) -> Iterator[str]:
    """Turn one entry of `dvc status` into phrases like ``params.yaml:data.limit modified``."""
    if isinstance(entry, str):
        yield entry
        return
    for changes in entry.values():
        for name, state in changes.items():
            if isinstance(state, dict):
                yield from (f"{name}:{key} {inner}" for key, inner in state.items())
            else:
                yield f"{name} {state}"

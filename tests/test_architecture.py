"""The directions that imports take, and what dvc.yaml must say of them."""

import ast
from pathlib import Path

import pytest
import yaml

from flows.stages import COMPARISON_STAGES, STAGES
from lead_core.comparison.identity import SHARED, TRAINED
from lead_core.params import Params

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("lead_core/**/*.py"), *ROOT.glob("flows/**/*.py")])
ALGORITHM = ["bandit", "reward", "utility", "selectors"]
STANDARD = ["__future__", "abc", "collections", "dataclasses", "functools", "itertools", "typing"]
OWNERS = {
    "prefect": "flows/",
    "mlflow": "lead_core/tracking",
    "lm_eval": ("lead_core/evaluation", "lead_core/tasks/"),
    "hdbscan": "lead_core/clustering.py",
    "flows": ("flows/", "tests/"),
}
# What these do changes what people see, never what a stage computes.
NOT_COMPUTING = {
    "champion_runs",
    "errors",
    "origin",
    "params",
    "progress",
    "storage",
    "training_state",
}


def imports_of(path: Path) -> set[str]:
    """Return the absolute names of all modules that a file imports at run time, wherever it does."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("package", OWNERS)
def test_each_tool_is_imported_only_by_its_owner(package):
    for path in SOURCES:
        if any(name.partition(".")[0] == package for name in imports_of(path)):
            assert name_of(path).startswith(OWNERS[package]), f"{name_of(path)} imports {package}"


def test_the_algorithm_imports_numpy_and_nothing_heavier():
    allowed = {*STANDARD, "numpy", "lead_core"}
    for path in SOURCES:
        if (
            name_of(path).removeprefix("lead_core/").partition("/")[0].removesuffix(".py")
            in ALGORITHM
        ):
            top_level = {name.partition(".")[0] for name in imports_of(path)}
            assert top_level <= allowed, name_of(path)
            for name in imports_of(path):
                if name.startswith("lead_core."):
                    assert name.split(".")[1] in [*ALGORITHM, "errors"], f"{name_of(path)}: {name}"


def test_importing_the_command_line_loads_nothing_heavy():
    import subprocess
    import sys

    code = "import sys, flows.cli; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    heavy = {"torch", "transformers", "mlflow", "prefect", "dvc", "lm_eval", "datasets", "pandas"}
    assert not heavy & set(loaded.stdout.split())


def code_behind(stage: str) -> set[str]:
    """Return the files of this repository whose code decides what a stage computes."""
    start = ROOT / f"flows/stages/{stage}.py"
    found, todo = {name_of(start)}, list(imports_of(start))
    while todo:
        module = todo.pop().split(".")
        if module[0] not in ("lead_core", "flows") or len(module) < 2:
            continue
        if module[1] in NOT_COMPUTING or module[1].startswith("tracking"):
            continue
        for path in (ROOT / Path(*module), (ROOT / Path(*module)).with_suffix(".py")):
            files = sorted(path.glob("*.py")) if path.is_dir() else [path]
            for file in files:
                if file.exists() and name_of(file) not in found:
                    found.add(name_of(file))
                    todo += imports_of(file)
    return found


def covering(declared: set[str], name: str) -> bool:
    return any(name == dep or name.startswith(dep.rstrip("/") + "/") for dep in declared)


def stages_in(file: str) -> dict:
    return yaml.safe_load((ROOT / file).read_text())["stages"]


@pytest.mark.parametrize(
    ("file", "stage"),
    [("dvc.yaml", name) for name in STAGES]
    + [("compare/dvc.yaml", name) for name in COMPARISON_STAGES],
)
def test_dvc_sees_the_code_that_decides_a_stages_result(file, stage):
    graph = stages_in(file)
    declared = {dep for dep in graph[stage]["deps"] if dep.startswith(("lead_core", "flows"))}
    missing = sorted(name for name in code_behind(stage) if not covering(declared, name))
    assert missing == [], f"add these to the deps of {stage} in dvc.yaml"


def test_every_section_of_the_params_belongs_to_a_stage():
    stages = [*stages_in("dvc.yaml").values(), *stages_in("compare/dvc.yaml").values()]
    used = {str(name).partition(".")[0] for stage in stages for name in stage["params"]}
    assert set(Params.model_fields) - used == {"tracking"}, "tracking is never part of a result"


def test_a_comparison_cell_depends_on_every_parameter_that_decides_its_numbers():
    """`seed` is the data's there; the selector and the training's seed are the matrix.

    Scoring and clustering reach a cell as files, and DVC sees those.
    """
    declared = set(stages_in("compare/dvc.yaml")["cell"]["params"])
    sections = [Params.model_fields[name].annotation.model_fields for name in TRAINED]
    keys = {
        f"{name}.{key}" for name, fields in zip(TRAINED, sections, strict=True) for key in fields
    }
    keys -= {"select.selector"}
    missing = sorted(k for k in keys if k not in declared and k.partition(".")[0] not in declared)
    assert missing == []
    assert "seed" in declared
    assert set(SHARED) - set(TRAINED) == {"score", "cluster"}

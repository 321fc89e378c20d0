"""What README and docs/ point to in this repository is there."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
LINK = re.compile(r"\]\(([^()\s]+)\)")
NAMED_TEST = re.compile(r"(tests/\w+\.py)::(\w+)")


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_the_repository_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link} is not there"
        if anchor:
            assert anchor in anchors_of(target), f"{page.name}: {link} names no heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_named_as_evidence_exist(page):
    for file, name in NAMED_TEST.findall(page.read_text()):
        path = ROOT / file
        assert path.exists(), f"{page.name}: {file} is not there"
        functions = {
            node.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, f"{page.name}: {file} has no {name}"


def test_footnotes_of_the_comparison_are_all_used_and_all_defined():
    text = (ROOT / "docs/peers.md").read_text()
    defined = set(re.findall(r"^\[\^([\w-]+)\]:", text, flags=re.MULTILINE))
    assert set(re.findall(r"\[\^([\w-]+)\](?!:)", text)) == defined


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_to_say_about_the_units_of_the_operations_page(tmp_path):
    page = (ROOT / "docs/operations.md").read_text()
    units = dict(
        re.findall(r"^```ini\n# (\S+\.service)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    )
    assert set(units) == {
        "lead.service",
        "lead-failed@.service",
        "prefect-server.service",
        "mlflow-server.service",
        "lead-worker.service",
    }
    for name in ("lead", "prefect", "mlflow"):
        program = tmp_path / ".venv/bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch(mode=0o755)
    for name, unit in units.items():
        (tmp_path / name).write_text(unit.replace("/srv/lead", str(tmp_path)))
    for name in units:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", name.replace("@", "@lead.service")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (name, done.returncode, done.stdout + done.stderr) == (name, 0, "")

from pathlib import Path

import yaml

from lead_core.params_reference import render_reference

ROOT = Path(__file__).parents[1]


def test_the_parameters_page_is_what_the_schema_says():
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    page = (ROOT / "docs/parameters.md").read_text()
    assert page == render_reference(shipped), (
        "run `python -m lead_core.params_reference > docs/parameters.md`"
    )


def test_every_key_has_a_meaning():
    for line in (ROOT / "docs/parameters.md").read_text().splitlines():
        if line.startswith("| `"):
            assert line.split(" | ")[-1].strip("| "), line

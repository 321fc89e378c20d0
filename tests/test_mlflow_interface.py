"""Our runs in MLflow's own web interface: real runs, its real server, a real browser."""

import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from test_stages import call, make_workspace
from test_tracking import client_of, mlflow_server

from lead_core.params import override
from lead_core.storage import read_json, sha256_file
from lead_core.tracking import open_run, resolve_settings, share_view
from lead_core.tracking_view import COLUMNS, view_address

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="neither Chromium nor Chrome is on the PATH"),
]


@dataclass(frozen=True)
class Interface:
    """A workspace, the server that records it, and the ids of its experiment and its training."""

    workspace: Path
    server: str
    experiment: str
    training: str

    def run(self, run_id: str) -> str:
        """Return the address of a run's page."""
        return f"{self.server}/#/experiments/{self.experiment}/runs/{run_id}"


@pytest.fixture(scope="module")
def interface(tmp_path_factory):
    """The pipeline on the tiny model, recorded by a server, with its adapter as champion."""
    folder = make_workspace(tmp_path_factory.mktemp("interface") / "workspace")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = f"http://127.0.0.1:{port}"
    params = folder / "params.yaml"
    changed = [f"tracking.uri={server}", "compare.selectors=[random, lead]", "compare.seeds=[0]"]
    params.write_text(yaml.safe_dump(override(yaml.safe_load(params.read_text()), changed)))
    with mlflow_server(resolve_settings(folder, "sqlite:///served.db", "lead"), port):
        call(folder, "lead", "lock")
        call(folder, "dvc", "repro", "evaluate")
        settings = resolve_settings(folder, server, "lead")
        train = folder / "artifacts/train/manifest.json"
        key = {"lead.train_hash": sha256_file(train)}
        with open_run(settings, name="evaluate", key=key, tags={}, params={}) as run:
            model = read_json(train, made_by="dvc repro")["model_sha256"]
            run.offer_champion("night", folder / "artifacts/eval/heldout.parquet", model)
        version = client_of(settings).get_model_version_by_alias("night", "champion")
        yield Interface(folder, server, share_view(settings), version.run_id)


def shown(url: str, profile: Path, height: int = 1500) -> str:
    """Return the page behind `url` as a browser has drawn it after a minute of the page's own time.

    height: of the window, in pixels; what lies outside of it may not be drawn.
    """
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    options += [f"--window-size=2600,{height}", "--virtual-time-budget=60000", "--dump-dom", url]
    done = subprocess.run([str(BROWSER), *options], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_runs_are_listed_with_the_columns_that_matter(interface, tmp_path):
    page = shown(view_address(interface.server, interface.experiment), tmp_path)
    named = [column.partition("`")[2].rstrip("`") for column in COLUMNS]
    for column in named:
        if not column.startswith("compare/"):  # there when something was compared
            assert f">{column}<" in page
    assert ">lead-seed0<" in page


def test_a_run_names_its_data_sets_and_its_registered_adapter(interface, tmp_path):
    page = shown(interface.run(interface.training), tmp_path)
    for text in ("lead.train_hash", "pool (", "night"):
        assert text in page


def test_the_selected_subset_is_a_table(interface, tmp_path):
    page = shown(f"{interface.run(interface.training)}/artifacts/selection.json", tmp_path)
    assert "View as table" in page
    for column in ("round", "id", "difficulty", "task", "utility_before", "utility_after"):
        assert f">{column}<" in page


def test_the_registered_model_shows_which_version_is_champion(interface, tmp_path):
    page = shown(f"{interface.server}/#/models/night", tmp_path)
    assert "Version 1" in page
    assert "champion" in page


def test_the_figures_of_the_rounds_are_charts(interface, tmp_path):
    page = shown(f"{interface.run(interface.training)}/model-metrics", tmp_path, height=7000)
    assert page.count("js-plotly-plot") > 20
    assert "round/arm_probability" in page
    for chart in ("reward", "utility_before", "utility_after", "distinct"):
        assert f">{chart}<" in page


def test_the_trainings_of_a_comparison_lie_under_its_run(interface, tmp_path):
    call(interface.workspace, "lead", "compare")
    page = shown(view_address(interface.server, interface.experiment), tmp_path / "list")
    assert ">compare/heldout_loss<" in page
    assert ">comparison of 2 selectors<" in page
    assert ">random-seed0<" not in page, "its run is folded"
    client = client_of(resolve_settings(interface.workspace, interface.server, "lead"))
    (child,) = client.search_runs([interface.experiment], "attributes.run_name = 'random-seed0'")
    page = shown(interface.run(child.info.run_id), tmp_path / "run")
    assert "random-seed0" in page
    assert "comparison of 2 selectors" in page

"""Two runs of the stages on a tiny model, the second on a pool that has grown, from the first."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from test_stages import hashes, make_workspace

from flows.source_lock import update_source_lock
from flows.stages.cluster import cluster
from flows.stages.prepare import prepare
from flows.stages.score import score
from flows.stages.train import train
from lead_core.artifacts import Layout
from lead_core.errors import LeadError
from lead_core.params import load_params, override

GROWN = ("grow.start_from=first", "select.budget_samples=4")


def sums(numbers) -> str:
    return json.dumps(
        [{"instruction": "add", "input": f"{i}+{i}", "output": f"{2 * i}"} for i in numbers]
    )


class Workspace:
    """The stages up to training, in this process."""

    def __init__(self, folder: Path):
        self.folder = make_workspace(folder)
        self.layout = Layout.below(Path("artifacts"))

    def set(self, *settings: str) -> None:
        path = self.folder / "params.yaml"
        path.write_text(yaml.safe_dump(override(yaml.safe_load(path.read_text()), settings)))

    def run(self, *stages) -> str:
        """Lock and run `stages`; return what the last one said."""
        update_source_lock(self.folder)
        params = load_params(self.folder / "params.yaml")
        return [stage(params, self.layout, self.folder) for stage in stages][-1]

    def manifest(self, run: str, stage: str) -> dict:
        return json.loads((self.folder / run / stage / "manifest.json").read_text())

    def frame(self, run: str, file: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / run / file)


@pytest.fixture(scope="module")
def module_workspace(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        workspace = Workspace(tmp_path_factory.mktemp("growing") / "workspace")
        patch.chdir(workspace.folder)
        workspace.set("select.budget_samples=12")
        workspace.run(prepare, score, cluster, train)
        shutil.copytree(workspace.folder / "artifacts", workspace.folder / "first")
        yield workspace


@pytest.fixture
def grown(module_workspace):
    """The workspace, its second source grown by twelve records and prepared again."""
    workspace = module_workspace
    (workspace.folder / "sums.json").write_text(sums(range(52)))
    workspace.set(*GROWN, "grow.max_ifd_distance=1", "grow.max_noise_rise=1")
    workspace.run(prepare)
    return workspace


def test_a_pool_that_grew_costs_what_is_new_and_keeps_its_labels(grown):
    assert "records have their scores of the earlier run" in grown.run(score)
    said = grown.run(cluster)
    before, now = (grown.frame(run, "clusters/clusters.parquet") for run in ("first", "artifacts"))
    both = now.merge(before, on="id", suffixes=("", "_before"))
    new = len(now) - len(both)
    assert 6 <= new <= 18  # the twelve, and who changed places with a held-out record
    assert (both["difficulty"] == both["difficulty_before"]).all()
    assert (both["task"] == both["task_before"]).all()
    assert f"{len(both)} records keep their earlier labels, {new} got theirs" in said
    scores = grown.manifest("artifacts", "scores")
    assert scores["ledger"]["offline"]["sequences"] == 2 * new
    assert scores["taken_over"] == len(both)
    fit = grown.manifest("artifacts", "cluster_fit")
    assert fit["fit_sha256"] == grown.manifest("first", "cluster_fit")["fit_sha256"]
    assert fit["growth"]["labels_kept"] == len(both)


def test_training_goes_on_where_the_earlier_run_ended_and_again_to_the_same_bits(grown):
    grown.run(score, cluster, train)
    trained = grown.manifest("artifacts", "train")
    lock = json.loads((grown.folder / "sources.lock.json").read_text())
    assert trained["started_from"] == lock["start"]["sha256"]
    assert trained["budget"] == trained["visits"] == trained["distinct"] == 4
    first, now = (grown.frame(run, "train/utilities.parquet") for run in ("first", "artifacts"))
    kept = first[first["id"].isin(grown.frame("artifacts", "scores/scores.parquet")["id"])]
    assert now["uses"].sum() == kept["uses"].sum() + 4
    made = hashes(grown.folder / "artifacts/train")
    shutil.rmtree(grown.folder / ".lead_state")
    grown.run(score, cluster, train)
    assert hashes(grown.folder / "artifacts/train") == made


def test_beyond_a_limit_the_clusters_are_fitted_anew_and_the_stage_says_why(grown):
    grown.set("grow.max_new_fraction=0.01")
    said = grown.run(score, cluster).splitlines()[-1]
    assert said.startswith("fitted anew, no earlier label is kept: share of new records 0.")
    assert said.endswith(", at most 0.01")
    fits = [grown.manifest(run, "cluster_fit")["fit_sha256"] for run in ("first", "artifacts")]
    assert fits[0] != fits[1]
    grown.set("grow.max_new_fraction=1")


def test_labels_do_not_outlive_the_embeddings_that_they_are_of(grown):
    """Another layer gives the same IFD to the bit, and other clusters."""
    path = grown.folder / "params.yaml"
    before = path.read_text()
    grown.set("score.embedding_depth_fraction=0.9")
    said = grown.run(score, cluster).splitlines()[-1]
    assert (
        said == "fitted anew, no earlier label is kept: the settings of the clustering are others"
    )
    path.write_text(before)


def test_a_rule_that_goes_by_losses_does_not_start_from_another_models(grown):
    path, manifest = grown.folder / "params.yaml", grown.folder / "first/scores/manifest.json"
    before, scores = path.read_text(), manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(scores), "scoring_model_sha256": "f" * 64}))
    grown.set("select.selector=lead")
    grown.run(score, cluster)
    with pytest.raises(LeadError, match="that run was scored by another model"):
        grown.run(train)
    path.write_text(before)
    manifest.write_text(scores)


def test_held_out_records_that_the_earlier_run_was_trained_on_are_refused(grown):
    """As another seed would hold out, or a small source that grows."""
    grown.set("seed=7")
    grown.run(prepare, score, cluster)
    with pytest.raises(
        LeadError, match=r"held-out records were trained on by the run to start from"
    ):
        grown.run(train)
    grown.set("seed=0")


def test_with_a_start_of_null_nothing_of_it_is_left_in_any_output(grown):
    """A run that never knew of another one is the one to compare with."""
    grown.set("grow.start_from=null")
    grown.run(score, cluster, train)
    assert "taken_over" not in grown.manifest("artifacts", "scores")
    assert grown.manifest("artifacts", "cluster_fit")["growth"] is None
    assert "started_from" not in grown.manifest("artifacts", "train")

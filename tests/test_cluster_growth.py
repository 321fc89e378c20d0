"""A pool that grows: what keeps its labels, what gets some, and when all are made anew."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from lead_core.artifacts import Layout, write_clusters, write_scores
from lead_core.cluster_fit import read_fit, write_fit
from lead_core.cluster_growth import Drift, grow_clusters, measure_drift
from lead_core.clustering import fit_clusters, merge_labels, predict_clusters
from lead_core.errors import LeadError
from lead_core.scoring import Scores

SETTINGS = {
    "difficulty_clusters": 2,
    "kmeans_restarts": 2,
    "reduced_dimensions": 4,
    "min_cluster_size": 8,
    "fit_limit": 100,
}
NO_LIMITS = Drift(1.0, 1.0, 1.0)


def records(n, seed=0):
    """Return ids, IFD around 0.3 and 0.6 (a few set aside), and embeddings of three tasks [n, 8]."""
    rng, centres = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(3, 8)) * 20
    truth = np.arange(n) % 3
    ifd = np.where(rng.random(n) < 0.5, 0.3, 0.6) + rng.normal(0, 0.02, n)
    ifd[:: n // 5] = 1.2
    ids = np.array([f"{seed:04x}{i:012x}" for i in range(n)])
    return ids, ifd, (centres[truth] + rng.normal(size=(n, 8))).astype(np.float32), truth


def fitted(ids, ifd, embeddings):
    return fit_clusters(list(ids), ifd, embeddings, ifd < 1, **SETTINGS, seed=0)


def settings(**changes):
    return {"seed": 0, "cluster": {**SETTINGS, **changes}}


@pytest.fixture
def earlier(tmp_path):
    """The artifacts of an earlier run, as far as clustering reads them, and its records."""
    layout = Layout.below(tmp_path / "earlier")
    ids, ifd, embeddings, _ = records(240)
    loss = np.ones(len(ids))
    write_scores(
        layout.scores,
        Scores(loss, loss / ifd, ifd, embeddings),
        ids=list(ids),
        tokens=np.full(len(ids), 9),
        response_tokens=np.full(len(ids), 4),
        pool_sha256="p" * 64,
        model_sha256="m" * 64,
        ledger={},
    )
    clusters, fit = fitted(ids, ifd, embeddings)
    write_clusters(layout.clusters, clusters, ids=list(ids), ifd=ifd, scores_sha256="s" * 64)
    write_fit(layout.cluster_fit, fit, clusters_sha256="c" * 64, settings=settings(), growth=None)
    return layout, (ids, ifd, embeddings), clusters


def grown(before, *more):
    return [np.concatenate([old, *new]) for old, *new in zip(before, *more, strict=True)]


def test_the_fit_survives_its_files_bit_for_bit_and_equal_fits_are_equal_files(tmp_path):
    ids, ifd, embeddings, _ = records(240)
    _, fit = fitted(ids, ifd, embeddings)
    for name in ("one", "two"):
        write_fit(tmp_path / name, fit, clusters_sha256="c", settings=settings(), growth=None)
    files = [(tmp_path / name / "fit.npz").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    read, manifest = read_fit(tmp_path / "one")
    assert manifest["settings"] == settings()
    for name in ("ids", "ifd", "centroids", "tasks"):
        np.testing.assert_array_equal(getattr(read, name), getattr(fit, name))
    np.testing.assert_array_equal(read.reduction.components, fit.reduction.components)
    assert [len(points) for points in read.points] == [len(points) for points in fit.points]
    assert read.noise_fraction == fit.noise_fraction
    (tmp_path / "one/fit.npz").write_bytes(b"other")
    with pytest.raises(LeadError, match=r"one was made from another input .* run `dvc repro clus"):
        read_fit(tmp_path / "one")


def test_records_that_were_fitted_get_their_own_labels_when_they_come_again():
    """At most a border point differs: `approximate_predict` does not know it from the fit."""
    ids, ifd, embeddings, _ = records(90)
    clusters, fit = fitted(ids, ifd, embeddings)
    difficulty, task = predict_clusters(fit, ifd, embeddings, ifd < 1, min_cluster_size=8)
    np.testing.assert_array_equal(difficulty, clusters.difficulty)
    real = ~clusters.is_noise() & ~merge_labels(fit, difficulty, task).is_noise()
    assert real.mean() > 0.5
    np.testing.assert_array_equal(task[real], clusters.task[real])


def test_new_records_join_the_earlier_clusters_and_old_ones_stay_where_they_were(earlier):
    layout, before, clusters = earlier
    *new, truth = records(30, seed=1)
    ids, ifd, embeddings = grown(before, new)
    order = np.argsort(ids[::-1])  # any: rows are found by id
    ids, ifd, embeddings = ids[order], ifd[order], embeddings[order]
    growth = grow_clusters(
        layout, ids, ifd, embeddings, ifd < 1, settings=settings(), limits=NO_LIMITS
    )
    assert (growth.kept, growth.reasons) == (240, ())
    labels, _ = growth.labelled
    place = {name: row for row, name in enumerate(ids)}
    old = [place[name] for name in before[0]]
    np.testing.assert_array_equal(labels.difficulty[old], clusters.difficulty)
    np.testing.assert_array_equal(labels.task[old], clusters.task)
    fresh = np.array([place[name] for name in new[0]])
    np.testing.assert_array_equal(labels.difficulty[fresh] < 0, new[1] >= 1)
    for arm in (0, 1):
        inside = labels.difficulty[fresh] == arm
        real = inside & ~labels.is_noise()[fresh]
        assert adjusted_rand_score(truth[real], labels.task[fresh][real]) == 1
    assert growth.drift.new_fraction == pytest.approx(30 / 270)
    assert growth.drift.ifd_distance == 0


def test_a_pool_that_has_not_grown_has_the_same_labels_and_no_drift(earlier):
    layout, (ids, ifd, embeddings), clusters = earlier
    growth = grow_clusters(
        layout, ids, ifd, embeddings, ifd < 1, settings=settings(), limits=Drift(0, 0, 0)
    )
    np.testing.assert_array_equal(growth.labelled[0].task, clusters.task)
    assert growth.labelled[0].noise_tasks == clusters.noise_tasks
    assert growth.drift == Drift(0, 0, 0)


def test_each_kind_of_drift_is_told_by_its_figure(earlier):
    layout, before, _ = earlier
    ids, ifd, embeddings, _ = records(60, seed=2)
    noise = np.random.default_rng(0).uniform(-200, 200, embeddings.shape)
    cases = {
        "share of new records 0.200, at most 0.1": (ifd, embeddings, Drift(0.1, 1, 1)),
        "distance of their IFD 0.": (np.full(60, 0.9), embeddings, Drift(1, 0.3, 1)),
        "rise of noise 0.": (ifd, noise.astype(np.float32), Drift(1, 1, 0.3)),
    }
    for reason, (theirs, vectors, limits) in cases.items():
        everything = grown(before, (ids, theirs, vectors))
        eligible = everything[1] < 1
        growth = grow_clusters(layout, *everything, eligible, settings=settings(), limits=limits)
        assert growth.labelled is None
        assert len(growth.reasons) == 1
        assert growth.reasons[0].startswith(reason)
        assert growth.as_json()["fitted_anew_for"] == list(growth.reasons)


def test_few_new_records_of_the_same_kind_are_no_drift_of_ifd_however_they_fall():
    ids, ifd, embeddings, _ = records(240)
    clusters, fit = fitted(ids, ifd, embeddings)
    rng = np.random.default_rng(5)
    for _ in range(20):
        again = rng.choice(240, 10, replace=False)
        drift = measure_drift(
            fit,
            merge_labels(fit, clusters.difficulty[again], clusters.task[again]),
            np.array([f"new {i}" for i in range(10)]),
            ifd[again],
        )
        assert drift.ifd_distance < 0.1


def test_labels_go_on_only_from_the_same_settings_and_the_same_scores(earlier):
    layout, (ids, ifd, embeddings), _ = earlier
    other = grow_clusters(
        layout,
        ids,
        ifd,
        embeddings,
        ifd < 1,
        settings=settings(min_cluster_size=9),
        limits=NO_LIMITS,
    )
    assert other.reasons == ("the settings of the clustering are others",)
    moved = ifd + 1e-9
    other = grow_clusters(
        layout, ids, moved, embeddings, moved < 1, settings=settings(), limits=NO_LIMITS
    )
    assert other.reasons == ("the IFD of earlier records has changed",)

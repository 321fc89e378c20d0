import json

import numpy as np
from sklearn.metrics import adjusted_rand_score

from lead_core.clustering import cluster_difficulty, cluster_pool, cluster_tasks, reduce_embeddings


def blobs(n=300, dimensions=8, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3
    centres = rng.normal(size=(3, dimensions)) * 20
    return centres[truth] + rng.normal(size=(n, dimensions)), truth


def test_arms_are_numbered_by_rising_difficulty():
    ifd = np.array([0.9, 0.1, 0.5, 0.11, 0.91, 0.52])
    labels, centroids = cluster_difficulty(ifd, np.ones(6, bool), 3, restarts=3, seed=0)
    assert labels.tolist() == [2, 0, 1, 0, 2, 1]
    np.testing.assert_allclose(centroids, [0.105, 0.51, 0.905])


def test_records_set_aside_get_no_arm():
    ifd = np.array([0.2, 1.4, 0.8, np.nan])
    labels, _ = cluster_difficulty(ifd, np.array([True, False, True, False]), 2, restarts=2, seed=0)
    assert labels.tolist() == [0, -1, 1, -1]


def test_the_number_of_arms_is_lowered_to_the_distinct_values_with_a_message(capsys):
    ifd = np.array([0.5, 0.5, 0.7])
    labels, centroids = cluster_difficulty(ifd, np.ones(3, bool), 7, restarts=2, seed=0)
    assert labels.tolist() == [0, 0, 1]
    assert len(centroids) == 2
    assert "only 2 distinct IFD values, so 2 arms instead of 7" in capsys.readouterr().out


def test_a_pool_with_nothing_eligible_has_no_arm():
    labels, centroids = cluster_difficulty(np.ones(3), np.zeros(3, bool), 7, restarts=2, seed=0)
    assert labels.tolist() == [-1, -1, -1]
    assert len(centroids) == 0


def test_tasks_are_found():
    points, truth = blobs()
    labels = cluster_tasks(points, 15, 20_000, rng=np.random.default_rng(0))
    assert adjusted_rand_score(truth, labels) > 0.95


def test_above_the_fit_limit_the_rest_is_assigned_to_the_fitted_clusters():
    points, truth = blobs(600)
    labels = cluster_tasks(points, 15, 200, rng=np.random.default_rng(0))
    assert adjusted_rand_score(truth, labels) > 0.9


def test_too_few_points_for_two_clusters_are_one():
    labels = cluster_tasks(np.zeros((5, 2)), 15, 100, rng=np.random.default_rng(0))
    assert labels.tolist() == [0] * 5


def test_reduction_keeps_the_direction_that_varies():
    rng = np.random.default_rng(0)
    points = np.outer(rng.normal(size=50), [3.0, 4.0, 0.0]) + 7
    reduced = reduce_embeddings(points, 2, seed=0)
    assert reduced.shape == (50, 2)
    np.testing.assert_allclose(reduced[:, 1], 0, atol=1e-6)
    assert reduce_embeddings(points[:1], 2, seed=0).tolist() == [[0.0]]


def test_an_embedding_that_is_no_number_lies_at_the_origin():
    points = np.random.default_rng(0).normal(size=(20, 3))
    points[4, 1] = np.nan
    reduced = reduce_embeddings(points, 2, seed=0)
    assert np.isfinite(reduced).all()
    assert reduced[4].tolist() == [0.0, 0.0]


def test_a_pool_without_gaps_is_reduced_to_the_same_bits_as_around_one():
    points = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    gap = np.full((1, 6), np.inf, dtype=np.float32)
    around = reduce_embeddings(np.concatenate([points[:20], gap, points[20:]]), 3, seed=0)
    np.testing.assert_array_equal(
        np.delete(around, 20, axis=0), reduce_embeddings(points, 3, seed=0)
    )


def test_noise_is_a_task_cluster_of_its_own_and_figures_add_up():
    points, _ = blobs(300)
    rng = np.random.default_rng(1)
    points = np.concatenate([points, rng.uniform(-200, 200, (60, 8))])
    ifd = np.concatenate([np.full(180, 0.3), np.full(180, 0.6)]) + rng.normal(0, 0.01, 360)
    ifd[:10] = 1.5
    clusters = cluster_pool(
        ifd,
        points,
        ifd < 1,
        difficulty_clusters=2,
        kmeans_restarts=3,
        reduced_dimensions=8,
        min_cluster_size=15,
        fit_limit=1000,
        seed=0,
    )
    assert (clusters.task >= 0).all()
    figures = json.loads(json.dumps(clusters.figures(ifd)))
    assert sum(arm["size"] for arm in figures["arms"]) + figures["set_aside"]["size"] == 360
    for arm in figures["arms"]:
        assert sum(task["size"] for task in arm["tasks"]) == arm["size"]
        assert arm["ifd_min"] <= arm["ifd_centroid"] <= arm["ifd_max"]
    noisy = figures["arms"][1]
    assert [task["noise"] for task in noisy["tasks"]].count(True) == 1


def test_the_same_seed_gives_the_same_clusters():
    points, _ = blobs()
    ifd = np.random.default_rng(0).uniform(0.2, 1.1, 300)
    settings = {
        "difficulty_clusters": 3,
        "kmeans_restarts": 2,
        "reduced_dimensions": 4,
        "min_cluster_size": 5,
        "fit_limit": 50,
        "seed": 3,
    }
    first = cluster_pool(ifd, points, ifd < 1, **settings)
    second = cluster_pool(ifd, points, ifd < 1, **settings)
    np.testing.assert_array_equal(first.difficulty, second.difficulty)
    np.testing.assert_array_equal(first.task, second.task)

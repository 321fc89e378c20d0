"""The cluster stage on made-up pools: what is measured, and how it is told."""

import os

import numpy as np
import pytest

from lead_core.bench import clustering
from lead_core.bench.clustering import (
    Agreement,
    ClusteredPool,
    ClusteringResult,
    ClusterSettings,
    make_embeddings,
    make_ifd,
    measure_agreement,
    measure_pool,
)
from lead_core.bench.result import NotMeasured

WIDTH = 24
SETTINGS = ClusterSettings(
    difficulty_clusters=2,
    kmeans_restarts=1,
    reduced_dimensions=4,
    min_cluster_size=5,
    fit_limit=150,
    seed=0,
    threads=1,
)


@pytest.fixture(autouse=True)
def few_topics(monkeypatch):
    monkeypatch.setattr(clustering, "TOPICS", 8)


def test_made_up_embeddings_are_the_same_each_time_and_few_directions_hold_their_variance():
    embeddings = make_embeddings(600, 64)
    assert (embeddings.shape, embeddings.dtype) == ((600, 64), np.float32)
    np.testing.assert_array_equal(embeddings, make_embeddings(600, 64))
    spread = np.linalg.eigvalsh(np.cov(embeddings.T))[::-1]
    assert spread[:6].sum() > 0.6 * spread.sum()
    assert 0 < (make_ifd(600) >= 1).mean() < 0.1


def test_embeddings_are_made_in_parts_that_cover_the_pool(monkeypatch):
    monkeypatch.setattr(clustering, "_CHUNK", 7)
    embeddings = make_embeddings(20, WIDTH)
    assert np.isfinite(embeddings).all()
    assert (np.abs(embeddings).sum(axis=1) > 0).all()


def test_a_pool_is_clustered_by_the_function_of_the_stage():
    pool = measure_pool(600, WIDTH, SETTINGS)
    assert pool.records == 600
    assert pool.task_clusters > 4
    assert pool.seconds > 0
    assert 0.01 < pool.peak_gigabytes < 100


def test_a_limit_above_the_pool_agrees_with_the_exact_fit_and_one_below_less_so():
    whole = measure_agreement(600, WIDTH, ClusterSettings(**{**vars(SETTINGS), "fit_limit": 600}))
    assert whole.rand == (1.0, 1.0, 1.0)  # both arms, and what is set aside
    limited = measure_agreement(600, WIDTH, SETTINGS)
    assert 0 < min(limited.rand) < 1


def test_the_exponent_is_taken_above_the_exact_limit_only():
    pools = tuple(
        ClusteredPool(records, 10, seconds, 1.0)
        for records, seconds in ((50, 100.0), (300_000, 10.0), (600_000, 20.0))
    )
    agreement = Agreement(600_000, (0.9, 0.5, 0.8), limited_seconds=20.0, exact_seconds=60.0)
    result = ClusteringResult(576, 140_000, pools, agreement)
    assert result.exponent == pytest.approx(1.0)
    told = {figure.name: figure for figure in result.figures()}
    verdicts = {name: f.target.is_met(f.value) for name, f in told.items() if f.target}
    assert verdicts == {
        "600,000 records": True,
        "600,000 records, peak memory": True,
        "exponent of time, above the exact limit": True,
    }
    assert told["600,000 records, adjusted Rand index with the exact fit, by arm"].value.low == 0.5
    assert told["600,000 records, exact fit over ours"].value == 3.0
    few = ClusteringResult(576, 140_000, pools[:2], None)
    assert few.exponent is None
    assert len(few.figures()) == 4


def test_a_size_whose_process_is_killed_is_not_measured():
    with pytest.raises(NotMeasured, match="want of memory"):
        clustering._in_own_process(os._exit, 137)

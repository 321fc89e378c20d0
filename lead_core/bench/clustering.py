"""The cluster stage on large pools: time, memory, and agreement with the exact fit.

Embeddings and IFD are made up. Every size has a process of its own, so that the peak of its memory is
its own.
"""

from __future__ import annotations

import math
import multiprocessing
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from lead_core.bench.result import Figure, NotMeasured, Target
from lead_core.bench.spread import spread_of
from lead_core.clustering import Clusters, fit_clusters

QUICK_SIZES = (2_000, 10_000)
FULL_SIZES = (2_000, 20_000, 140_000, 300_000, 600_000)
FULL_AGREEMENT = 600_000  # records: above the exact limit, else both fits are the same
EXPONENT = Target(1.2, at_most=True)
SECONDS = {600_000: 1800.0}
GIGABYTES = {600_000: 24.0}

TOPICS = 300
BACKGROUND = 0.1  # share of records that belong to no topic
WITHIN = 0.3  # how far records lie from their topic, as a share of how far topics lie apart
_CHUNK = 10_000
_WARM_UP = 500

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class ClusterSettings:
    """What `fit_clusters` is told, as in params.yaml, and how many threads it has."""

    difficulty_clusters: int
    kmeans_restarts: int
    reduced_dimensions: int
    min_cluster_size: int
    fit_limit: int
    seed: int
    threads: int


@dataclass(frozen=True)
class ClusteredPool:
    """One pool. peak_gigabytes: of the whole process, interpreter and embeddings included."""

    records: int
    task_clusters: int
    seconds: float
    peak_gigabytes: float


@dataclass(frozen=True)
class Agreement:
    """The same pool with and without the limit of the fit.

    rand: adjusted Rand index of the task labels, arm by arm; records set aside count as an arm, and
    noise is one task cluster, as in the stage.
    """

    records: int
    rand: tuple[float, ...]
    limited_seconds: float
    exact_seconds: float


@dataclass(frozen=True)
class ClusteringResult:
    """Pools of rising size, and how well the limited fit does (None: not measured).

    width: numbers per embedding. exact_limit: records up to which every arm is fitted as a whole, if
    all are equally large.
    """

    width: int
    exact_limit: int
    pools: tuple[ClusteredPool, ...]
    agreement: Agreement | None

    @property
    def exponent(self) -> float | None:
        """Return that of time against records between the two largest pools above the exact limit."""
        above = [pool for pool in self.pools if pool.records > self.exact_limit]
        if len(above) < 2:
            return None
        small, large = above[-2:]
        return math.log(large.seconds / small.seconds) / math.log(large.records / small.records)

    def figures(self) -> Sequence[Figure]:
        """Return time and memory of each pool, how time grows, and the agreement."""
        lines = [figure for pool in self.pools for figure in _figures_of(pool)]
        if self.exponent is not None:
            lines.append(
                Figure("exponent of time, above the exact limit", self.exponent, "", EXPONENT)
            )
        if self.agreement is not None:
            lines += _figures_of_agreement(self.agreement)
        return lines


def measure_clustering(
    sizes: Sequence[int], *, agreement_records: int | None, width: int, settings: ClusterSettings
) -> ClusteringResult:
    """Cluster a made-up pool of each size, and one of `agreement_records` without a limit as well."""
    return ClusteringResult(
        width,
        settings.difficulty_clusters * settings.fit_limit,
        tuple(_in_own_process(measure_pool, size, width, settings) for size in sizes),
        None
        if agreement_records is None
        else _in_own_process(measure_agreement, agreement_records, width, settings),
    )


def measure_pool(records: int, width: int, settings: ClusterSettings) -> ClusteredPool:
    """Cluster a made-up pool in this process, whose peak memory is told."""
    _warm_up(width, settings)
    clusters, seconds = _cluster(make_embeddings(records, width), make_ifd(records), settings)
    cells = np.unique(np.stack([clusters.difficulty, clusters.task], axis=1), axis=0)
    return ClusteredPool(records, len(cells), seconds, _peak_gigabytes())


def measure_agreement(records: int, width: int, settings: ClusterSettings) -> Agreement:
    """Cluster a made-up pool as the stage does, and with fits on whole arms."""
    from sklearn.metrics import adjusted_rand_score

    _warm_up(width, settings)
    embeddings, ifd = make_embeddings(records, width), make_ifd(records)
    limited, limited_seconds = _cluster(embeddings, ifd, settings)
    exact, exact_seconds = _cluster(embeddings, ifd, replace(settings, fit_limit=records))
    arms = [exact.difficulty == label for label in np.unique(exact.difficulty)]
    rand = [float(adjusted_rand_score(exact.task[arm], limited.task[arm])) for arm in arms]
    return Agreement(records, tuple(rand), limited_seconds, exact_seconds)


def make_embeddings(records: int, width: int) -> np.ndarray:
    """Return float32 [records, width]: topics of unequal size and, around them, background.

    As in hidden states, few directions hold most of the variance, within topics as between them.
    """
    rng = np.random.default_rng(0)
    scales = (1 / np.sqrt(1 + np.arange(width))).astype(np.float32)
    centres = rng.standard_normal((TOPICS, width), dtype=np.float32) * scales
    shares = rng.dirichlet(np.full(TOPICS, 1.0))
    topics = rng.choice(TOPICS, size=records, p=shares)
    background = rng.random(records) < BACKGROUND
    embeddings = np.empty((records, width), dtype=np.float32)
    for start in range(0, records, _CHUNK):  # what is measured is the stage's memory, not this
        part = slice(start, start + _CHUNK)
        noise = rng.standard_normal((len(topics[part]), width), dtype=np.float32) * scales
        around = WITHIN * noise + centres[topics[part]]
        embeddings[part] = np.where(background[part, None], noise, around)
    return embeddings


def make_ifd(records: int) -> np.ndarray:
    """Return float64 [records]: instruction-following difficulty, a few above one."""
    return np.random.default_rng(1).normal(0.7, 0.15, records).clip(0.05, None)


def _warm_up(width: int, settings: ClusterSettings) -> None:
    """Cluster a few records: what is imported on the way is not the stage's time."""
    _cluster(make_embeddings(_WARM_UP, width), make_ifd(_WARM_UP), settings)


def _cluster(
    embeddings: np.ndarray, ifd: np.ndarray, settings: ClusterSettings
) -> tuple[Clusters, float]:
    """Return the labels of the cluster stage's own function, and the seconds that it took."""
    ids = [f"{i:016x}" for i in range(len(ifd))]
    started = time.perf_counter()
    with threadpool_limits(settings.threads):
        clusters, _ = fit_clusters(
            ids,
            ifd,
            embeddings,
            ifd < 1,
            difficulty_clusters=settings.difficulty_clusters,
            kmeans_restarts=settings.kmeans_restarts,
            reduced_dimensions=settings.reduced_dimensions,
            min_cluster_size=settings.min_cluster_size,
            fit_limit=settings.fit_limit,
            seed=settings.seed,
        )
    return clusters, time.perf_counter() - started


def _in_own_process(work: Callable[..., Outcome], *arguments: object) -> Outcome:
    """Return what `work` does in a new process: a fork would begin with this one's memory.

    Raises NotMeasured if it is killed.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as executor:
        try:
            return executor.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise NotMeasured(
                "the process that clustered was killed, most likely for want of memory"
            ) from error


def _peak_gigabytes() -> float:
    """Return the most memory that this process held, in 10^9 bytes.

    From Linux's status of it: what `getrusage` says is inherited from the process that started it.
    Raises NotMeasured where there is none.
    """
    status = Path("/proc/self/status")
    text = status.read_text(encoding="utf-8") if status.exists() else ""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise NotMeasured(f"{status} does not tell peak memory here; it needs Linux")
    return int(found[1]) * 1024 / 1e9


def _figures_of(pool: ClusteredPool) -> list[Figure]:
    name = f"{pool.records:,} records"
    seconds, memory = SECONDS.get(pool.records), GIGABYTES.get(pool.records)
    return [
        Figure(name, pool.seconds, "s", _at_most(seconds)),
        Figure(f"{name}, peak memory", pool.peak_gigabytes, "GB", _at_most(memory)),
    ]


def _at_most(limit: float | None) -> Target | None:
    return None if limit is None else Target(limit, at_most=True)


def _figures_of_agreement(found: Agreement) -> list[Figure]:
    name, ratio = f"{found.records:,} records", found.exact_seconds / found.limited_seconds
    return [
        Figure(
            f"{name}, adjusted Rand index with the exact fit, by arm", spread_of(found.rand), ""
        ),
        Figure(f"{name}, exact fit over ours", ratio, "x"),
    ]

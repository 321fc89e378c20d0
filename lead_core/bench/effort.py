"""How much `lead bench` measures: repetitions and sizes, for a quick look and for publication."""

from __future__ import annotations

from dataclasses import dataclass

from lead_core.bench import clustering, selection


@dataclass(frozen=True)
class Effort:
    """Repetitions and sizes of all measurements.

    repetitions: counted rounds through the sides of a comparison. scoring_records: records per scoring
    pass. as_released: whether the authors' way is measured as released, too. batch_samples: samples of
    an optimizer step at most. steps: optimizer steps per repetition. loop_rounds: rounds of LEAD's loop
    per repetition, of one step each. matmul_calls: products of each shape per repetition. subjects: of
    MMLU's 57, the first so many. pools, clustered_pools: sizes of the pools that selection and
    clustering are measured on, in records. agreement_records: of the pool that is clustered without a
    limit as well; None: no such pool.
    """

    repetitions: int
    scoring_records: int
    as_released: bool
    batch_samples: int
    steps: int
    loop_rounds: int
    matmul_calls: int
    subjects: int
    pools: tuple[int, ...]
    clustered_pools: tuple[int, ...]
    agreement_records: int | None


QUICK = Effort(
    repetitions=3,
    scoring_records=16,
    as_released=False,
    batch_samples=4,
    steps=1,
    loop_rounds=2,
    matmul_calls=2,
    subjects=2,
    pools=selection.QUICK_SIZES,
    clustered_pools=clustering.QUICK_SIZES,
    agreement_records=None,
)
FULL = Effort(
    repetitions=5,
    scoring_records=96,
    as_released=True,
    batch_samples=16,
    steps=2,
    loop_rounds=4,
    matmul_calls=10,
    subjects=57,
    pools=selection.FULL_SIZES,
    clustered_pools=clustering.FULL_SIZES,
    agreement_records=clustering.FULL_AGREEMENT,
)

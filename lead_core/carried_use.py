"""What a training leaves to a later one that starts from it: use counts and utilities, by record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lead_core.loop_state import Carried
from lead_core.pool import TextColumn
from lead_core.selectors.contract import PoolView, SelectionState

UTILITIES = "utilities.parquet"


def write_utilities(
    folder: Path, ids: np.ndarray | TextColumn, pool: PoolView, selection: SelectionState
) -> None:
    """Write id, utility and uses of every sample that training has moved, earlier trainings included.

    The utility of any other is its offline loss still. ids [n]: of the records of `pool`.
    """
    moved = (selection.uses > 0) | (selection.utility != pool.loss)
    rows = np.flatnonzero(moved & np.isfinite(pool.loss))
    frame = pd.DataFrame(
        {"id": ids[rows], "utility": selection.utility[rows], "uses": selection.uses[rows]}
    ).astype({"id": "string", "utility": np.float64, "uses": np.int16})
    scratch = folder / f".{UTILITIES}"
    frame.to_parquet(scratch, index=False)
    scratch.replace(folder / UTILITIES)


def read_carried(folder: Path, ids: np.ndarray | TextColumn, loss: np.ndarray) -> Carried:
    """Return what `write_utilities` left in `folder`, for the pool of now: ids and offline loss [n].

    Records that are not in this pool any more are left out.
    """
    frame = pd.read_parquet(folder / UTILITIES)
    rows = pd.Index(list(ids), dtype="string").get_indexer(frame["id"])
    rows, frame = rows[rows >= 0], frame[rows >= 0]
    utility, uses = loss.astype(np.float64), np.zeros(len(loss), dtype=np.int16)
    utility[rows], uses[rows] = frame["utility"], frame["uses"]
    return Carried(np.where(np.isfinite(loss), utility, loss), uses)

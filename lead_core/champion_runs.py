"""Runs whose adapters were offered as champion, kept so that a later one can start from them.

A copy is named by its training's hash, which MLflow has with the champion's run: it is there before
MLflow decides, be it at once or when a server is back.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lead_core.artifacts import Layout
from lead_core.storage import replaced_directory, sha256_file

CHAMPIONS = Path(".lead_state/champions")  # below a workspace
KEPT = (  # what `earlier_run` and those who use it read
    "scores",
    "clusters",
    "cluster_fit",
    "train/adapter",
    "train/manifest.json",
    "train/utilities.parquet",
)


def run_name(train_hash: str) -> str:
    """Return the name of the folder for the run whose training has this hash."""
    return train_hash[:16]


def keep_run(workspace: Path, layout: Layout) -> None:
    """Keep what a later run needs of the one in `layout`; nothing if it is not all there.

    Hard links where the disk has them: stages replace their files and never write into one.
    """
    root = layout.scores.parent
    if not all((root / name).exists() for name in KEPT):
        return
    train_hash = sha256_file(layout.train / "manifest.json")
    with replaced_directory(workspace / CHAMPIONS / run_name(train_hash)) as folder:
        for name in KEPT:
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            if (root / name).is_dir():
                shutil.copytree(root / name, target, copy_function=_link)
            else:
                _link(str(root / name), str(target))


def _link(source: str, target: str) -> str:
    try:
        os.link(Path(source).resolve(), target)  # not to a link of DVC's, which goes with its cache
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
    return target

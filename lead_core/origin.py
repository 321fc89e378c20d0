"""Where a result was computed: written beside it, outside of all versioned outputs.

Equal work has equal outputs wherever and whenever it is done; this is what differs.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lead_core.storage import read_json, sha256_file, write_json
from lead_core.tracking_process import git_origin

LIBRARIES = ("accelerate", "hdbscan", "numpy", "peft", "scikit-learn", "torch", "transformers")
FILE = "origin.json"


def describe_origin(workspace: Path) -> dict[str, Any]:
    """Return the workspace's commit and edited files, the libraries and the machine."""
    return {
        **git_origin(workspace),
        "libraries": {name: version(name) for name in LIBRARIES},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }


def write_origin(result: Path, workspace: Path, more: Mapping[str, Any] | None = None) -> None:
    """Write, beside the file `result`, that this process computed it, with which code and libraries."""
    origin = {**describe_origin(workspace), **(more or {})}
    write_json(result.with_name(FILE), {"sha256": sha256_file(result), **origin})


def read_origin(result: Path) -> dict[str, Any]:
    """Return where the file `result` was computed; empty when that is not known.

    As for a file that a cache brought back: what lies beside it may tell of another one.
    """
    path = result.with_name(FILE)
    if not path.is_file():
        return {}
    origin: dict[str, Any] = read_json(path, made_by="lead compare")
    known = origin.pop("sha256", None) == sha256_file(result)
    return origin if known else {}

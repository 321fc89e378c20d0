"""Finished cells as small files to commit: never overwritten, and believed only as far as they match.

Below the results folder each comparison has a folder of its own, named by its identity, with
``base.json`` and ``cells/<selector>-seed<n>.<rule>.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lead_core.comparison.cells import BASE, Cell
from lead_core.comparison.record import SCHEMA
from lead_core.errors import LeadError
from lead_core.method_version import METHOD_VERSION
from lead_core.storage import read_json, write_json


@dataclass(frozen=True)
class Wanted:
    """What a record must say to count as `cell` of a comparison.

    rule: `identity.rule_id`. settings: `identity.deciding` of the effective parameters.
    """

    cell: Cell
    rule: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class KeptCells:
    """The kept cells of one comparison."""

    folder: Path
    comparison: str

    @classmethod
    def below(cls, results: Path, comparison: str) -> KeptCells:
        """Return those of `comparison` below a results folder."""
        return cls(results / comparison, comparison)

    def base(self) -> dict[str, Any] | None:
        """Return what is kept of the untuned model; None if it has to be measured."""
        return self._read(self.folder / f"{BASE}.json", {})

    def cell(self, wanted: Wanted) -> dict[str, Any] | None:
        """Return what is kept of a cell; None if it has to be computed.

        Raises LeadError for a file that is not what its name says.
        """
        cell = wanted.cell
        expected = {"rule": wanted.rule, "selector": cell.selector, "seed": cell.seed}
        return self._read(self._path(wanted), expected)

    def missing(self, cells: Iterable[Wanted]) -> list[Wanted]:
        """Return those of `cells` that have to be computed, in their order."""
        return [wanted for wanted in cells if self.cell(wanted) is None]

    def keep_base(self, found: Mapping[str, Any], inputs: Mapping[str, str], origin: Any) -> None:
        """Keep the untuned model's record."""
        self._check("the base model", found, inputs)
        path = self.folder / f"{BASE}.json"
        write_json(path, {**found, "comparison": self.comparison, "origin": origin})

    def keep(
        self, wanted: Wanted, found: Mapping[str, Any], inputs: Mapping[str, str], origin: Any
    ) -> None:
        """Keep a finished cell with where it came from.

        inputs: hashes of the pool, held-out records, model, scores and clusters that are here. Raises
        LeadError when the record is of something else.
        """
        self._check(wanted.cell.name, found, inputs)
        if found["settings"] != wanted.settings:
            raise LeadError(
                f"{wanted.cell.name} was trained with other parameters than params.yaml now has; "
                "run `lead compare` again"
            )
        stamped = {"comparison": self.comparison, "rule": wanted.rule, "origin": origin}
        write_json(self._path(wanted), {**found, **stamped})

    def _path(self, wanted: Wanted) -> Path:
        return self.folder / "cells" / f"{wanted.cell.name}.{wanted.rule[:8]}.json"

    def _check(self, what: str, found: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
        other = [name for name, value in found["inputs"].items() if inputs.get(name) != value]
        if other or found["method_version"] != METHOD_VERSION:
            reason = ", ".join(name.removesuffix("_sha256") for name in other) or "code"
            raise LeadError(
                f"{what} was computed from another {reason} than is here now; run `lead compare` again"
            )

    def _read(self, path: Path, expected: Mapping[str, Any]) -> dict[str, Any] | None:
        if not path.is_file():
            return None
        found = read_json(path, made_by="lead compare")
        expected = {"schema": SCHEMA, "comparison": self.comparison, **expected}
        if not isinstance(found, dict) or any(found.get(k) != v for k, v in expected.items()):
            raise LeadError(f"{path} is not what its name says; move it away to compute it again")
        return found

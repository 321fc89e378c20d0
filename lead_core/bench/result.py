"""The form of a measurement's result, and its lines in the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from lead_core.bench.spread import Spread


class NotMeasured(Exception):
    """This cannot be measured here; the text says why, and what would let it."""


@dataclass(frozen=True)
class Target:
    """What a figure is held against; `at_most`: it must not be above the limit, else not below."""

    limit: float
    at_most: bool = False

    def is_met(self, value: float) -> bool:
        """Return whether `value` is on the right side of the limit."""
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True)
class Figure:
    """A line of the table: what was measured, how much, in which unit, against which target."""

    name: str
    value: Spread | float
    unit: str
    target: Target | None = None


class Result(Protocol):
    """What a measurement returns: a frozen dataclass of plain values, written to JSON as it is."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def figures(self) -> Sequence[Figure]:
        """Return the lines of the table."""


def as_json(result: Result) -> dict[str, Any]:
    """Return all that `result` holds, and its figures, as values of JSON."""
    return {**asdict(result), "figures": [asdict(figure) for figure in result.figures()]}


def read_figure(found: Mapping[str, Any]) -> Figure:
    """Return the figure that `as_json` wrote as `found`."""
    value, target = found["value"], found["target"]
    return Figure(
        found["name"],
        Spread(**value) if isinstance(value, Mapping) else value,
        found["unit"],
        None if target is None else Target(**target),
    )


def table_rows(name: str, result: Result) -> list[tuple[str, ...]]:
    """Return (measurement, figure, value, least to greatest, target) for each figure of `result`."""
    rows: list[tuple[str, ...]] = []
    for figure in result.figures():
        value, spread, target, verdict = figure_texts(figure)
        rows.append((name, figure.name, value, spread, f"{target}: {verdict}" if target else ""))
    return rows


def figure_texts(figure: Figure) -> tuple[str, str, str, str]:
    """Return value with unit, least to greatest, target, and met or missed; empty what is not known."""
    value = f"{_number(_middle(figure.value))} {figure.unit}".rstrip()
    if figure.target is None:
        return value, _range(figure.value), "", ""
    sign = "at most" if figure.target.at_most else "at least"
    met = figure.target.is_met(_middle(figure.value))
    target = f"{sign} {_number(figure.target.limit)}"
    return value, _range(figure.value), target, "met" if met else "missed"


def _middle(value: Spread | float) -> float:
    return value.median if isinstance(value, Spread) else value


def _range(value: Spread | float) -> str:
    return f"{_number(value.low)} to {_number(value.high)}" if isinstance(value, Spread) else ""


def _number(value: float) -> str:
    """Return `value` with three significant digits, whole from a hundred on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

"""`docs/parameters.md`, written from the schema: ``python -m lead_core.params_reference``."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lead_core.params import Params

_HEAD = """\
# Parameters

Every key of `params.yaml`, written from the schema in `lead_core/params.py` (a test keeps this page
current). The file is the only home of these numbers: the schema has no defaults of its own, an
unknown or missing key is an error, and all problems are reported together. `lead run --set
section.key=value` edits the file, keeps its comments and shows what changed.
"""
_NOT_SHIPPED = object()
_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def render_reference(values: dict[str, Any]) -> str:
    """Return the page: one table per section, with the value that `params.yaml` ships."""
    top, sections = [], []
    for name, field in Params.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            rows = list(_rows(model, values[name]))
            sections.append(f"\n## {name}\n\n{(model.__doc__ or '').strip()}\n\n{_table(rows)}")
        else:
            top.append((name, _kind(field), values[name], field.description or ""))
    return _HEAD + "\n" + _table(top) + "".join(sections)


def _rows(
    model: type[BaseModel], values: Any, prefix: str = ""
) -> Iterator[tuple[str, str, Any, str]]:
    """Yield the keys below `prefix`; `values` is no mapping below a section shipped as null."""
    for name, field in model.model_fields.items():
        value = values[name] if isinstance(values, dict) else _NOT_SHIPPED
        section = _section(field.annotation)
        if section is None or section is not field.annotation:
            yield prefix + name, _kind(field), value, field.description or ""
        if section is not None:
            yield from _rows(section, value, f"{prefix}{name}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a key holds, or may hold where it takes null too."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _table(rows: list[tuple[str, str, Any, str]]) -> str:
    lines = ["| key | takes | shipped | meaning |", "|---|---|---|---|"]
    for name, kind, value, meaning in rows:
        lines.append(f"| `{name}` | {kind} | {_shown(value)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if value is _NOT_SHIPPED:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    return f"`{text.removesuffix('...').strip()}`"


def _kind(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(bound, name)}"
        for bound in field.metadata
        for name, sign in _BOUNDS.items()
        if hasattr(bound, name)
    ]
    return " ".join([_type(field.annotation), *bounds])


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in parts))
    if origin is tuple:
        return "list"
    names = {int: "whole number", float: "number", str: "text", bool: "true/false"}
    return "null" if annotation is type(None) else names.get(annotation, "mapping")


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    shipped = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    sys.stdout.write(render_reference(shipped))

"""A page as one HTML file that opens without a network; all text that comes from data is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """Rows of cells for the page; in columns from `numeric` on, cells are set as numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: int = 1


def render(template: str, **content: Any) -> str:
    """Return the HTML of `template` filled with `content`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["png_uri"] = _png_uri
    return environment.get_template(template).render(content)


def _png_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"

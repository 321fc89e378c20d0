"""Editing `params.yaml` in place: one value at a time, every other character left as it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lead_core.errors import LeadError
from lead_core.params import (
    Params,
    differences,
    override,
    parse_override,
    parse_params,
    read_mapping,
)
from lead_core.storage import write_text
from lead_core.tracking_names import redact


def edit_params(path: Path, overrides: Sequence[str]) -> list[str]:
    """Apply ``section.key=value`` overrides to the file and return ``key: old -> new`` lines.

    Comments, order and layout stay. Everything is checked first: on an invalid value LeadError (or
    ProblemsError naming all of them) is raised and nothing is written.
    """
    before = parse_params(read_mapping(path), where=path.name)
    edited = override(read_mapping(path), overrides)
    after = parse_params(edited, where=path.name)
    changes = [redact(change) for change in differences(before, after)]
    if changes:
        text = path.read_text(encoding="utf-8")
        for override_text in overrides:
            keys, given = parse_override(override_text)
            text = _replace(text, keys, _typed(after, keys, given))
        if not _means(text, after):
            raise LeadError(
                f"{path.name}: its layout (anchors, merged keys?) does not allow these changes "
                f"({'; '.join(changes)}); edit the file by hand"
            )
        write_text(path, text)
    return changes


def _means(text: str, params: Params) -> bool:
    try:
        return parse_params(yaml.safe_load(text)) == params
    except (yaml.YAMLError, LeadError):
        return False


def _typed(params: Params, keys: list[str], given: Any) -> Any:
    """Return `given` as the schema reads it where that is a number: YAML takes 1e-5 for text."""
    value: Any = params
    for key in keys:
        value = getattr(value, key, None)  # a later override may have taken the section away
    return value if isinstance(value, (int, float)) else given


def _replace(text: str, keys: list[str], value: Any) -> str:
    """Return YAML `text` with the value at `keys` replaced."""
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in keys:
        node = next(inner for name, inner in node.value if name.value == key)
    start = node.start_mark.index
    old = text[start : _end(node)].rstrip()
    new = _render(value, block_column=node.start_mark.column if _is_block(node) else None)
    return text[:start] + (new if old else f" {new}") + text[start + len(old) :]


def _end(node: yaml.Node) -> int:
    """Return where a node's own text ends: a block's mark lies beyond the comments after it."""
    if _is_block(node):
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _is_block(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and not node.flow_style


def _render(value: Any, *, block_column: int | None) -> str:
    """Return `value` as YAML: a list as a block at that column if one is given, all else inline."""
    if block_column is not None and isinstance(value, list) and value:
        return ("\n" + " " * block_column).join(f"- {inline_yaml(item)}" for item in value)
    return inline_yaml(value)


def inline_yaml(value: Any) -> str:
    """Return plain data as YAML on one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")

"""Presets: partial parameter files in ``presets/``, applied to params.yaml as ``--set`` is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.params_file import inline_yaml
from lead_core.errors import LeadError
from lead_core.params import is_section, read_mapping

PRESETS = "presets"


def preset_overrides(workspace: Path, name: str) -> list[str]:
    """Return the preset `name` as ``section.key=value`` overrides, in the order of its file.

    Raises LeadError for a preset that is not there, naming those that are, and for a key that
    params.yaml does not have.
    """
    known = sorted(path.stem for path in (workspace / PRESETS).glob("*.yaml"))
    if name not in known:
        raise LeadError(
            f"--preset {name}: no file {PRESETS}/{name}.yaml; there is {', '.join(known) or 'none'}"
        )
    file = f"{PRESETS}/{name}.yaml"
    preset = read_mapping(workspace / file)
    return list(_overrides(preset, read_mapping(workspace / "params.yaml"), (), file))


def _overrides(
    preset: Mapping[str, Any], params: Mapping[str, Any], path: tuple[str, ...], file: str
) -> Iterator[str]:
    for key, value in preset.items():
        inner = (*path, key)
        name = ".".join(inner)
        if key not in params:
            raise LeadError(f"{file}: params.yaml has no key {name}; see docs/parameters.md")
        if is_section(inner) and isinstance(value, Mapping) and isinstance(params[key], Mapping):
            yield from _overrides(value, params[key], inner, file)
        else:
            yield f"{name}={inline_yaml(value)}"

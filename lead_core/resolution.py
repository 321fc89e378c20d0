"""What parameters name, resolved as far as that goes without downloading or writing anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lead_core.assets import embedded_model, model_kind
from lead_core.errors import LeadError
from lead_core.mining import package_version
from lead_core.params import ModelParams, SourceParams
from lead_core.sources import (
    DOCSTRINGS,
    HUB,
    docstring_packages,
    is_remote,
    parse_hub_uri,
    redact,
    resolve_files,
)


@dataclass(frozen=True)
class Resolved:
    """What a name stands for, in words, and what has to be fetched for it; None: it is here."""

    text: str
    download: str | None = None


def resolve_model_name(model: ModelParams) -> Resolved:
    """Resolve `model.name`; LeadError if it names nothing."""
    kind = model_kind(model.name)
    if kind == "embedded":
        requirement = embedded_model(model.name).requirement
        return Resolved(f"{model.name}, from the package {requirement}", requirement)
    if kind == "hub":
        revision = model.revision or "main"
        return Resolved(f"{model.name} on the hub, revision {revision}", model.name)
    path = Path(model.name).expanduser()
    if kind == "folder" and not any(path.glob("*.safetensors")):
        raise LeadError(f"model.name: {model.name} holds no .safetensors weights")
    return Resolved(f"{model.name}, a local {'folder' if kind == 'folder' else 'file'}")


def resolve_source(source: SourceParams, workspace: Path) -> Resolved:
    """Resolve one of `data.sources`; LeadError if it names nothing, or in no known form."""
    found = _resolve_uri(source.uri, workspace)
    return found if source.name is None else replace(found, text=f"{source.name}: {found.text}")


def _resolve_uri(uri: str, workspace: Path) -> Resolved:
    if uri.startswith(DOCSTRINGS):
        packages = docstring_packages(uri)
        versions = (f"{package} {package_version(package)}" for package in packages)
        return Resolved(f"docstrings of {', '.join(versions)}")
    if uri.startswith(HUB):
        return _resolve_hub(uri)
    if is_remote(uri):
        return Resolved(redact(uri), redact(uri))
    files = resolve_files(uri, workspace)
    return Resolved(f"{uri}, {len(files)} file{'s' if len(files) > 1 else ''}")


def _resolve_hub(uri: str) -> Resolved:
    hub = parse_hub_uri(uri)
    if hub.is_local and not Path(hub.path).is_dir():
        raise LeadError(f"{uri}: no such folder {hub.path}; check data.sources in params.yaml")
    parts = [hub.path, f"split {hub.split}"]
    parts[1:1] = [f"config {hub.config}"] if hub.config else []
    parts += [f"revision {hub.revision}"] if hub.revision else []
    return Resolved(", ".join(parts), None if hub.is_local else hub.path)

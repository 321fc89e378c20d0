"""`data.sources` to records: which files, datasets or packages a URI names, and reading them."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lead_core.assets import cache_directory, is_hub_id
from lead_core.errors import LeadError, TransientError
from lead_core.mining import mine
from lead_core.progress import progress
from lead_core.readers import COMPRESSED_SUFFIXES, Element, OnRead, format_suffix, read_file
from lead_core.records import Rejection, unfold

DOCSTRINGS = "docstrings://"
HUB = "hf://"


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record as its source has it; with a `problem`, the raw text that is no record.

    `line` counts from 1 and is None where there are no lines, `index` counts the elements of one
    file from 0. One element may hold several records (see `unfold`): they share both.
    """

    source: str
    file: str
    line: int | None
    index: int
    value: Any
    problem: Rejection | None = None

    @property
    def place(self) -> str:
        """Say where it stands: ``data.jsonl:12``, or ``data.parquet, record 11``."""
        return f"{self.file}:{self.line}" if self.line else f"{self.file}, record {self.index}"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source: the label that reports and the lock use, and where it is here.

    The label is relative to the workspace where the file lies inside it or was named relative to it,
    and never holds credentials.
    """

    label: str
    path: Path


@dataclass(frozen=True, slots=True)
class HubDataset:
    """``hf://owner/name?split=train[&config=...][&revision=...]``, or an absolute local folder."""

    path: str
    split: str
    config: str | None
    revision: str | None

    @property
    def is_local(self) -> bool:
        """Say whether it is a folder on this machine."""
        return self.path.startswith("/")


def read_source(
    uri: str,
    *,
    name: str | None,
    workspace: Path,
    locked: Mapping[str, Any] | None = None,
    on_read: OnRead | None = None,
) -> Iterator[RawRecord]:
    """Yield the records of one source, in the order of its files.

    `name` is the source's name in reports; None: each file's stem, package or dataset name. `locked`
    is the source's entry in the lock: with it, remote files come from the cache and hub datasets at
    the commit recorded there. `on_read` is told how many bytes of files have been read, as in
    `read_file`. Raises LeadError for anything that is not there or of no known format.
    """
    for raw in _read_elements(uri, name, workspace, locked, on_read):
        for value in unfold(raw.value):
            yield raw if value is raw.value else replace(raw, value=value)


def _read_elements(
    uri: str,
    name: str | None,
    workspace: Path,
    locked: Mapping[str, Any] | None,
    on_read: OnRead | None,
) -> Iterator[RawRecord]:
    if uri.startswith(DOCSTRINGS):
        yield from _mined(uri, name)
    elif uri.startswith(HUB):
        yield from _hub_records(uri, name, locked)
    else:
        files = locked_files(uri, locked) if locked and is_remote(uri) else None
        for file in files or resolve_files(uri, workspace):
            yield from _numbered(
                read_file(file.path, file.label, on_read), name or _stem(file.label), file.label
            )


def resolve_files(uri: str, workspace: Path) -> list[SourceFile]:
    """Return the files that a path, glob or URL names, sorted; remote ones are fetched first."""
    if is_remote(uri):
        return _fetch(uri)
    return _local_files(uri.removeprefix("file://"), workspace)


def docstring_packages(uri: str) -> list[str]:
    """Return the import names in ``docstrings://a,b``."""
    packages = [part.strip() for part in uri.removeprefix(DOCSTRINGS).split(",") if part.strip()]
    if not packages:
        raise LeadError(f"{uri}: expected packages, as in docstrings://stdlib,numpy")
    return packages


def parse_hub_uri(uri: str) -> HubDataset:
    """Return the parts of an ``hf://`` URI; LeadError if it has another form."""
    parts = urlsplit(uri)
    path = f"{parts.netloc}{parts.path}".rstrip("/")
    known = {"split", "config", "revision"}
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    if (
        set(query) - known
        or "split" not in query
        or (path.count("/") > 1 and parts.netloc)
        or not path
    ):
        raise LeadError(
            f"{redact(uri)}: expected hf://owner/name?split=train, optionally with &config= and "
            "&revision="
        )
    hub = HubDataset(path, query["split"], query.get("config"), query.get("revision"))
    if not (hub.is_local or is_hub_id(path)):
        raise LeadError(f"{uri}: {path!r} is no hub id; it has the form owner/name")
    return hub


def is_remote(uri: str) -> bool:
    """Say whether `uri` is read through fsspec rather than from a local path."""
    return ("://" in uri or "::" in uri) and not uri.startswith(("file://", DOCSTRINGS, HUB))


def redact(uri: str) -> str:
    """Return `uri` without what may be a secret: user names, passwords, query and fragment.

    The queries of ``hf://`` stay: they hold a split and a revision, nothing else is accepted.
    """
    if not is_remote(uri):
        return uri
    chained = [part.partition("://") for part in uri.split("::")]
    return "::".join(f"{scheme}{mark}{_without_secrets(rest)}" for scheme, mark, rest in chained)


def _without_secrets(rest: str) -> str:
    plain = rest.partition("?")[0].partition("#")[0]
    host, slash, path = plain.partition("/")
    return host.rpartition("@")[2] + slash + path


def _local_files(pattern: str, workspace: Path) -> list[SourceFile]:
    expanded = os.path.expanduser(pattern)  # noqa: PTH111 - a glob pattern, not a path
    if (workspace / expanded).exists() or not glob.has_magic(expanded):
        found = [expanded]
    else:
        found = glob.glob(expanded, root_dir=workspace, recursive=True)  # noqa: PTH207 - absolute too
        found = sorted(name for name in found if (workspace / name).is_file())
        if not found:
            raise LeadError(
                f"{pattern}: no file matches (looked in {workspace}); check its entry in "
                "params.yaml, or the command line"
            )
    files = [SourceFile(path_label(name, workspace), workspace / name) for name in found]
    for file in files:
        if not file.path.exists():
            raise LeadError(
                f"{file.label}: no such file (looked in {workspace}); check its entry in "
                "params.yaml, or the command line"
            )
        if file.path.is_dir():
            raise LeadError(
                f"{file.label} is a directory; name its files, as in {file.label}/*.jsonl"
            )
        if not file.path.is_file():
            raise LeadError(f"{file.label} is a pipe or a device; expected a regular file")
        format_suffix(file.label)
    return files


def path_label(name: str, workspace: Path) -> str:
    """Return what reports call the local path `name`: relative to the workspace if it lies inside."""
    path = Path(os.path.normpath(name))
    if path.is_absolute():
        inside = Path(os.path.abspath(workspace))  # noqa: PTH100 - links stay as they were named
        path = path.relative_to(inside) if path.is_relative_to(inside) else path
    return path.as_posix()


def _stem(label: str) -> str:
    name = Path(label)
    return Path(name.stem).stem if name.suffix.lower() in COMPRESSED_SUFFIXES else name.stem


def _fetch(uri: str) -> list[SourceFile]:
    """Bring what a URL or URL glob names into the cache, under the hash of its content.

    Every call asks the server again: an ETag is not on offer everywhere, and the lock must see a
    change. The stages read the cached copy, so this happens once per `lead lock`.
    """
    import fsspec

    shown, folder = redact(uri), _cache_folder()
    try:
        store, pattern = fsspec.url_to_fs(uri)
        found = sorted(store.glob(pattern)) if "*" in pattern else [pattern]
        files = []
        for name in found:
            label = shown if name == pattern else redact(store.unstrip_protocol(name))
            format_suffix(label)
            files.append(SourceFile(label, _fetch_one(store.open(name, "rb"), label, folder)))
    except LeadError:
        raise
    except Exception as error:  # every store has exceptions of its own
        raise _fetch_error(shown, error) from error
    if not files:
        raise LeadError(f"{shown}: nothing matches; check its entry in params.yaml")
    return files


def _fetch_error(shown: str, error: Exception) -> LeadError:
    """Say what the failure of a remote store means, without repeating the URL it was given."""
    cause = error.__cause__ or error  # fsspec says "not found" for any failed HTTP request
    status = getattr(cause, "status", None)
    if isinstance(error, PermissionError) or status in (401, 403):
        return LeadError(f"{shown}: access refused; check your credentials for this store")
    if isinstance(error, FileNotFoundError) and (cause is error or status in (404, 410)):
        return LeadError(f"{shown}: no such file; check its entry in params.yaml")
    if isinstance(error, ImportError):
        return LeadError(f"{shown}: {error}; pip install the package that this names")
    if isinstance(error, ValueError):
        return LeadError(f"{shown}: {' '.join(str(error).split())}; check its entry in params.yaml")
    return TransientError(
        f"{shown}: could not be read ({type(cause).__name__}); try again, or copy the file here and "
        "name the copy"
    )


def _cache_folder() -> Path:
    folder = cache_directory() / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fetch_one(remote: Any, label: str, folder: Path) -> Path:
    size: int | None = getattr(remote, "size", None)  # not every server says it
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as target:
        temporary = Path(target.name)
        try:
            with remote, progress(size, f"fetching {label}", "bytes") as done:
                while block := remote.read(1 << 20):
                    digest.update(block)
                    target.write(block)
                    done.advance(len(block))
            target.close()
            return Path(shutil.move(temporary, folder / digest.hexdigest()))
        finally:
            temporary.unlink(missing_ok=True)


def locked_files(uri: str, locked: Mapping[str, Any]) -> list[SourceFile]:
    """Return the cached copies of a remote source, exactly those that the lock names.

    Fetches them again if the cache is gone; LeadError if the server has other content by now.
    """
    folder = _cache_folder()
    wanted = {entry["path"]: entry["sha256"] for entry in locked["files"]}
    if any(not (folder / sha256).is_file() for sha256 in wanted.values()):
        fetched = {file.label: file.path.name for file in _fetch(uri)}
        for label, sha256 in wanted.items():
            if fetched.get(label) != sha256:
                raise LeadError(f"{label} changed since it was locked; run `lead lock`")
    return [SourceFile(label, folder / sha256) for label, sha256 in wanted.items()]


def _numbered(elements: Iterator[Element], source: str, label: str) -> Iterator[RawRecord]:
    for index, element in enumerate(elements):
        yield RawRecord(source, label, element.line, index, element.value, element.problem)


def _mined(uri: str, name: str | None) -> Iterator[RawRecord]:
    index, file = 0, ""
    for mined in mine(docstring_packages(uri)):
        index = index + 1 if mined.file == file else 0
        file = mined.file
        value = {
            "prompt": mined.prompt,
            "response": mined.response,
            "kind": mined.kind,
            "function": mined.function,
        }
        yield RawRecord(name or mined.package, file, mined.line, index, value)


def _hub_records(
    uri: str, name: str | None, locked: Mapping[str, Any] | None
) -> Iterator[RawRecord]:
    hub = parse_hub_uri(uri)
    commit = locked["hub"]["commit"] if locked and "hub" in locked else hub.revision
    rows = _load_dataset(uri, hub, commit)
    source = name or hub.path.rpartition("/")[2]
    label = uri.partition("?")[0]
    for index, row in enumerate(rows):
        yield RawRecord(source, label, None, index, row)


def _load_dataset(uri: str, hub: HubDataset, revision: str | None) -> Any:
    import datasets

    if hub.is_local and not Path(hub.path).is_dir():
        raise LeadError(f"{uri}: no such folder {hub.path}; check its entry in params.yaml")
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(hub.path, hub.config, split=hub.split, revision=revision)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise LeadError(
            f"{uri}: the hub has no such data set that you may read; check the name, or log in with "
            "`hf auth login` if it is gated"
        ) from error
    except (
        FileNotFoundError,
        ValueError,
        RuntimeError,
        datasets.exceptions.DatasetsError,
    ) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise LeadError(f"{uri}: {reason}; check its entry in params.yaml") from error
    except OSError as error:
        raise TransientError(
            f"{uri}: the hub did not answer and there is no copy in the local cache; try again with a "
            "network, or use a local file"
        ) from error

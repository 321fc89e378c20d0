"""`lead doctor`: settle what to measure with, read the files once, and say what was found."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.workspace import find_workspace
from lead_core.assets import resolve_tokenizer
from lead_core.chat import load_tokenizer
from lead_core.checkup import Finding, Tolerances, judge
from lead_core.doctor import LengthCounter, count_words, examine, token_counter
from lead_core.doctor_report import Diagnosis, finding_row
from lead_core.errors import LeadError
from lead_core.params import ModelParams, load_params
from lead_core.progress import Progress, progress
from lead_core.readers import text_encoding
from lead_core.sources import DOCSTRINGS, HUB, RawRecord, is_remote, read_source, resolve_files
from lead_core.storage import replaced_file

_REPORTED_RECORDS = 256  # between two words to the progress bar
_NAME_ONE = "name one, as in --model embedded://smollm2-135m-instruct"
_NO_TOKENIZER = f"only with a tokenizer is known what is too long for a model; {_NAME_ONE}"
_SPELT_OUT = 3  # more names do not fit into a command that is suggested


@dataclass(frozen=True)
class DoctorOptions:
    """What was asked for; None: as the workspace has it, where there is one.

    tokens: True fetches the tokenizer if need be, False counts words, None takes what is here.
    """

    tokens: bool | None
    model: str | None
    max_tokens: int | None
    tolerances: Tolerances
    examples: int
    index_mb: int
    findings: Path | None


@dataclass(frozen=True)
class _Measure:
    """What lengths are measured with."""

    count: LengthCounter
    unit: str
    measured_by: str
    max_length: int | None
    notes: tuple[str, ...] = ()


def diagnose(uris: Sequence[str], here: Path, options: DoctorOptions) -> Diagnosis:
    """Check the records of `uris` (see `read_source`; paths are relative to `here`).

    Raises LeadError for what is not there, unreadable or of no known format; all names are looked at
    before anything is read.
    """
    encoding_notes = [note for uri in uris for note in _encoding_notes(uri, here)]
    measure = _choose_measure(options)
    findings = None if options.findings is None else here / options.findings
    size = _bytes_to_read(uris, here) or None
    unit = "records" if size is None else "bytes"
    with _listing(findings) as note_finding, progress(size, "reading", unit) as bar:
        records = _records(uris, here, None if size is None else bar.advance)
        checkup = examine(
            _counted(records, bar) if size is None else records,
            count_lengths=measure.count,
            max_length=measure.max_length,
            index_bytes=options.index_mb << 20,
            max_examples=options.examples,
            on_finding=note_finding,
        )
    problems = judge(checkup, options.tolerances)
    return Diagnosis(
        checkup=checkup,
        tolerances=options.tolerances,
        problems=problems,
        unit=measure.unit,
        measured_by=measure.measured_by,
        notes=(*measure.notes, *encoding_notes),
        advice=list(_advice(uris, options, fine=not problems)),
    )


def _records(
    uris: Sequence[str], here: Path, on_read: Callable[[int], object] | None
) -> Iterator[RawRecord]:
    for uri in uris:
        yield from read_source(uri, name=None, workspace=here, on_read=on_read)


def _bytes_to_read(uris: Sequence[str], here: Path) -> int | None:
    """Return the size of the files that `uris` name; None where not all are files of this machine."""
    if any(is_remote(uri) or uri.startswith((DOCSTRINGS, HUB)) for uri in uris):
        return None
    return sum(file.path.stat().st_size for uri in uris for file in resolve_files(uri, here))


def _counted(records: Iterator[RawRecord], bar: Progress) -> Iterator[RawRecord]:
    for number, record in enumerate(records, start=1):
        yield record
        if number % _REPORTED_RECORDS == 0:
            bar.advance(_REPORTED_RECORDS)


def _encoding_notes(uri: str, here: Path) -> Iterator[str]:
    """Say which files are not plain UTF-8: fine here, and a stumbling block for many other tools."""
    if is_remote(uri) or uri.startswith((DOCSTRINGS, HUB)):
        return
    for file in resolve_files(uri, here):
        try:
            encoding = text_encoding(file.path, file.label)
        except OSError as error:
            raise LeadError(
                f"{file.label} cannot be read ({error.strerror or error}); check its permissions"
            ) from error
        if encoding == "utf-8-sig":
            yield f"{file.label} starts with a byte order mark; read here, not by every trainer"
        elif encoding not in (None, "utf-8"):
            yield f"{file.label} is {encoding}; read here, but other tools expect UTF-8"


def _choose_measure(options: DoctorOptions) -> _Measure:
    """Return the tokenizer of --model, or else of the workspace's model; words where there is none."""
    if options.tokens is False:
        if options.model is not None:
            raise LeadError("--no-tokens counts words and --model tokens; give one of them")
        return _words(options, _NO_TOKENIZER)
    workspace = _workspace_here()
    params = None if workspace is None else load_params(workspace / "params.yaml")
    limit = options.max_tokens
    if limit is None and params is not None:
        limit = params.data.max_tokens
    if options.model is not None:
        named = ModelParams(name=options.model, revision=None, trust_remote_code=False)
        return _tokens(named, limit, options, fetch=True)
    if workspace is None or params is None:
        if options.tokens:
            raise LeadError(f"--tokens: there is no workspace here that names a model; {_NAME_ONE}")
        return _words(options, _NO_TOKENIZER)
    os.chdir(workspace)  # what params.yaml names is relative to it
    return _tokens(params.model, limit, options, fetch=bool(options.tokens))


def _workspace_here() -> Path | None:
    try:
        return find_workspace(Path.cwd())
    except LeadError:
        return None


def _tokens(
    model: ModelParams, limit: int | None, options: DoctorOptions, *, fetch: bool
) -> _Measure:
    resolved = resolve_tokenizer(model.name, model.revision, fetch=fetch)
    if resolved is None:
        absent = (
            f"{model.name} is not on this machine, so lengths are in words; --tokens fetches it"
        )
        return _words(options, absent)
    tokenizer = load_tokenizer(resolved, trust_remote_code=model.trust_remote_code)
    measured_by = f"{model.name}, chat template included"
    return _Measure(token_counter(tokenizer), "tokens", measured_by, limit)


def _words(options: DoctorOptions, note: str) -> _Measure:
    if options.max_tokens is not None:
        raise LeadError(f"--max-tokens needs a tokenizer: {note}")
    return _Measure(count_words, "words", "set apart by white space", None, (note,))


@contextmanager
def _listing(path: Path | None) -> Iterator[Callable[[Finding], None]]:
    """Yield what writes findings to `path`, one JSON value per line; None: nothing is written."""
    if path is None:
        yield lambda _: None
        return
    with replaced_file(path) as stream:
        yield lambda found: print(json.dumps(finding_row(found)), file=stream)


def _advice(uris: Sequence[str], options: DoctorOptions, *, fine: bool) -> Iterator[str]:
    few = len(uris) <= _SPELT_OUT
    if options.findings is None:
        names = " ".join(map(shlex.quote, uris)) if few else "FILE..."
        yield f"for every record, not only examples: lead doctor --findings findings.jsonl {names}"
    else:
        yield f"{options.findings} lists every record with its file, line and reason"
    if fine:
        sources = shlex.quote(json.dumps(list(uris))) if few else "'[FILE, ...]'"
        settings = [f"--set data.sources={sources}"]
        if options.model is not None:
            settings.append(f"--set model.name={shlex.quote(options.model)}")
        if options.max_tokens is not None:
            settings.append(f"--set data.max_tokens={options.max_tokens}")
        yield f"to train, in a checkout of LEAD: lead run {' '.join(settings)}"

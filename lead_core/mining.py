"""Instruction records from the docstrings and code of installed packages, read without importing.

Each documented public function gives one record, of a kind chosen by a hash of its name: explain the
code, write its docstring, write the function, or say what it does. So no function is in two records,
and a held-out record shares none with the pool.
"""

from __future__ import annotations

import ast
import builtins
import gc
import hashlib
import importlib.metadata
import importlib.util
import inspect
import platform
import re
import sys
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lead_core.errors import LeadError

STDLIB = "stdlib"

_SKIPPED_DIRECTORIES = {
    "__pycache__", "benchmarks", "distutils", "examples", "externals", "idlelib", "lib2to3",
    "site-packages", "test", "testing", "tests", "third_party", "turtledemo", "vendor", "vendored",
}  # fmt: skip
_SKIPPED_MODULES = re.compile(
    r"(_?test(ing|_.*)?|.*_test|conftest|setup|this|antigravity|_appdirs)\.py"
)
_CODE_CHARACTERS = (60, 700)
_CODE_LINES = (3, 24)
_DESCRIPTION_CHARACTERS = 420
_DESCRIPTION_WORDS = 5
_SIGNATURE_CHARACTERS = 140


@dataclass(frozen=True, slots=True)
class MinedRecord:
    """One function as an instruction and its response, and where it was found."""

    package: str
    file: str  # relative to the folder that the package lies in
    line: int
    function: str
    kind: str
    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class _Function:
    """What is known about a documented function."""

    name: str  # dotted, up to the first private module: what a user would import
    header: str  # from `def` to the colon, as written
    code: str  # without decorators and docstring; empty if it is no good example
    description: str  # paragraphs, each on one line
    can_be_written: bool  # from the description alone, without knowing its module
    in_class: bool
    signature: str  # with the name


def mine(packages: Sequence[str]) -> Iterator[MinedRecord]:
    """Yield the records of `packages` (import names, or ``stdlib``), in a fixed order.

    The same description or code is used once, where it is found first. Raises LeadError for a package
    that is not installed or has no documented Python functions.
    """
    described: set[str] = set()
    coded: set[str] = set()
    for package in packages:
        found = False
        for base, path in _source_files(package):
            file = path.relative_to(base).as_posix()
            for line, function in _functions(path, file):
                code_key = _digest(function.code) if function.code else ""
                description_key = _digest(function.description.lower())
                if description_key in described or code_key in coded:
                    continue
                described.add(description_key)
                if code_key:
                    coded.add(code_key)
                found = True
                kind, prompt, response = _instruct(function)
                yield MinedRecord(package, file, line, function.name, kind, prompt, response)
        if not found:
            raise LeadError(
                f"docstrings://{package}: no documented Python function found; "
                "name another installed package"
            )


def package_version(package: str) -> str:
    """Return what stands for the content of `package`: its version, or a hash of its sources.

    The hash is for packages whose version says nothing: not from a distribution, or editable.
    """
    if package == STDLIB:
        return platform.python_version()
    for name in dict.fromkeys([package, *_distributions().get(package, [])]):
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if '"editable": true' not in (distribution.read_text("direct_url.json") or ""):
            return distribution.version
    digest = hashlib.sha256()
    for base, path in _source_files(package):
        digest.update(path.relative_to(base).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()}"


@cache
def _distributions() -> Any:
    return importlib.metadata.packages_distributions()


def _source_files(package: str) -> Iterator[tuple[Path, Path]]:
    """Yield ``(base, file)`` for each module worth reading, sorted; `base` holds the package."""
    if package == STDLIB:
        base = Path(sysconfig.get_path("stdlib"))
        for name in sorted(sys.stdlib_module_names):
            if not name.startswith("_"):
                yield from _walk(base, base / name)
        return
    if not package.isidentifier():
        raise LeadError(
            f"docstrings://{package}: expected import names of installed packages, as in "
            "docstrings://stdlib,numpy"
        )
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # loaded by hand, without a spec
        spec = None
    if spec is None:
        raise LeadError(
            f"docstrings://{package}: package {package} is not installed here; install it with pip or "
            "remove it from data.sources"
        )
    roots = spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
    for root in sorted(Path(root) for root in roots):
        yield from _walk(root.parent, root.with_suffix("") if root.is_file() else root)


def _walk(base: Path, module: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the files of `module` (a path without suffix): one file, or a folder's, sorted."""
    single = module.with_suffix(".py")
    if single.is_file() and not _SKIPPED_MODULES.fullmatch(single.name):
        yield base, single
    if not module.is_dir() or module.name in _SKIPPED_DIRECTORIES:
        return
    for entry in sorted(module.iterdir(), key=lambda path: path.name):
        if entry.is_dir():
            # Private folders hold internals; numpy._core alone is where public functions live.
            if not entry.name.startswith("_") or entry.name == "_core":
                yield from _walk(base, entry)
        elif entry.suffix == ".py" and not _SKIPPED_MODULES.fullmatch(entry.name):
            yield base, entry


def _functions(path: Path, file: str) -> list[tuple[int, _Function]]:
    """Return ``(line, function)`` for the documented public functions and methods of one file."""
    try:
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings(), _collector_paused():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            tree = ast.parse(source)
            return list(_scan(tree.body, _public_name(file), source.split("\n"), in_class=False))
    except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
        return []  # templates and broken samples inside packages are not our records


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking each growing syntax tree: 40 % of all time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _scan(
    body: Sequence[ast.stmt], prefix: str, lines: list[str], *, in_class: bool
) -> Iterator[tuple[int, _Function]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _scan(node.body, f"{prefix}.{node.name}", lines, in_class=True)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = _function(node, prefix, lines, in_class=in_class)
            if function:
                yield node.lineno, function


def _public_name(file: str) -> str:
    """Return the dotted module of `file` up to its first private part: `scipy.stats`."""
    parts = file.removesuffix(".py").split("/")
    public = []
    for part in parts:
        if part.startswith("_"):
            break
        public.append(part)
    return ".".join(public)


_SKIPPED_DECORATORS = {"overload", "property", "cached_property", "setter", "deleter", "deprecated"}


def _function(
    node: ast.FunctionDef | ast.AsyncFunctionDef, prefix: str, lines: list[str], *, in_class: bool
) -> _Function | None:
    """Return what is known about `node`; None if it is private, undocumented or badly documented."""
    if node.name.startswith("_") or _SKIPPED_DECORATORS & {
        _last_name(decorator) for decorator in node.decorator_list
    }:
        return None
    docstring = ast.get_docstring(node, clean=False)
    description = _describe(docstring) if docstring else ""
    if not description:
        return None
    header, body = _source(node, lines)
    return _Function(
        name=f"{prefix}.{node.name}",
        header=textwrap.dedent("\n".join(header)),
        code=textwrap.dedent("\n".join([*header, *body])) if body else "",
        description=description,
        can_be_written=bool(body) and not in_class and _is_self_contained(node),
        in_class=in_class,
        signature=f"{node.name}({_arguments(node, in_class=in_class)})",
    )


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef, *, in_class: bool) -> str:
    """Return the arguments as a caller sees them, without annotations or even defaults if long."""
    given = node.args  # changed in place: nothing else reads them afterwards
    first = [*given.posonlyargs, *given.args][:1]
    if in_class and first and first[0].arg in ("self", "cls"):
        (given.posonlyargs or given.args).pop(0)
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    for argument in every:
        if argument and isinstance(argument.annotation, ast.Constant):  # quoted
            argument.annotation = ast.Name(str(argument.annotation.value))
    text = ast.unparse(given)
    if len(text) > _SIGNATURE_CHARACTERS:
        for argument in every:
            if argument:
                argument.annotation = None
        text = ast.unparse(given)
    if len(text) > _SIGNATURE_CHARACTERS:
        names = [argument.arg for argument in [*given.posonlyargs, *given.args]]
        text = ", ".join([*names[:6], "..."])
    return text


_NOTES_IN_CODE = re.compile(
    r"TODO|FIXME|XXX|HACK|# (?:noqa|type: ignore|pyre|pylint|pragma|fmt:|mypy:|ruff:)"
)


def _source(
    node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]
) -> tuple[list[str], list[str]]:
    """Return the lines of the header and of the body, without decorators and docstring.

    The body is empty if the function is no good example: too long, too short, trivial or annotated
    for tools.
    """
    docstring, *rest = node.body
    header = lines[node.lineno - 1 : docstring.lineno - 1]
    end = docstring.end_lineno or docstring.lineno
    if not header or not rest or rest[0].lineno <= end or _is_trivial(rest):
        return header, []
    body = lines[end : node.end_lineno]
    while not body[0].strip():
        body = body[1:]
    text = "\n".join([*header, *body])
    low, high = _CODE_CHARACTERS
    fewest, most = _CODE_LINES
    fits = low <= len(text) <= high and fewest <= len(header) + len(body) <= most
    return header, body if fits and text.isascii() and not _NOTES_IN_CODE.search(text) else []


def _is_trivial(body: Sequence[ast.stmt]) -> bool:
    """Say whether `body` only passes, raises or hands over to the parent class."""
    if len(body) > 1:
        return False
    statement = body[0]
    if isinstance(statement, ast.Pass | ast.Raise):
        return True
    value = getattr(statement, "value", None)
    return isinstance(value, ast.Constant | ast.Name | ast.Attribute) or (
        isinstance(value, ast.Call) and "super()" in ast.unparse(value)
    )


_KNOWN_NAMES = {*dir(builtins), *sys.stdlib_module_names, "np", "numpy", "pd", "torch", "nn", "F"}


def _is_self_contained(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Say whether the body uses only its own names, builtins and modules that everyone knows."""
    own: set[str] = {node.name}
    used: set[str] = set()
    for statement in node.body:
        for part in ast.walk(statement):
            if isinstance(part, ast.Name):
                (used if isinstance(part.ctx, ast.Load) else own).add(part.id)
            elif isinstance(part, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler):
                own.add(part.name or "")
            elif isinstance(part, ast.alias):
                own.add((part.asname or part.name).partition(".")[0])
    own |= {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
    return used <= own | _KNOWN_NAMES


_HEADING = re.compile(
    r"(?:[-=~^]{3,}|[A-Z][\w ]{0,24}:|(?:Parameters?|Params|Args?|Arguments|Returns?|Raises|Yields?|"
    r"Attributes|Examples?|Notes?|References|See [Aa]lso|Usage|Warn(?:s|ings?)))\s*"
)
_STOP = re.compile(r"\.\. |>>>|@\w|:(?:param|type|return|rtype|raise)|[-*+|] |\d+[.)] |::|\|")
_UNUSABLE = re.compile(
    r"%\(|%s|\{\w*\}|\\\w+|\$|<\w+>|XXX|TODO|FIXME|\?\?|deprecated", re.IGNORECASE
)
_BAD_START = re.compile(
    r"(?:see|refer|e\.g|i\.e|note\b|deprecated|alias|internal|private|undocumented|inherit|overrid|"
    r"not implemented|equivalent to|implements? (?:the )?(?:abstract|base)|same as|wrapper|docstring|"
    r"this (?:method )?is (?:an? )?(?:internal|private|overrid|only))",
    re.IGNORECASE,
)
_POINTER = re.compile(  # a sentence that sends the reader elsewhere
    r"(?:^|(?<=[.!?] ))(?:Read more|See|Refer to|For (?:more|further|the detailed|details|full))\b"
    r"(?:[^.`]|`[^`]*`|\.(?=\w))*(?:\.|$)"
)
_UNFINISHED = re.compile(
    r".*(?:[:,;(-]|\b(?:as|by|is|are|to|of|follows|following|below|above|e\.g\.?))"
)
_CALL_LINE = re.compile(r"[\w.]+\(.*\)\s*(?:->.*|=.*)?|[\w.]+\([^)]*")


def _describe(docstring: str) -> str:
    """Return the first plain paragraphs of `docstring`, each on one line; empty if there are none."""
    kept: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        lines = [line.strip() for line in paragraph.split("\n") if line.strip()]
        if not kept and lines and _CALL_LINE.fullmatch(lines[0]):
            lines = lines[1:]  # the signature, repeated
            if not lines:
                continue
        plain = _until_heading(lines)
        text = _plain_text(" ".join(plain))
        if kept and not text:
            break
        usable = bool(text) and not _UNUSABLE.search(text) and not _UNFINISHED.fullmatch(text)
        length = sum(len(part) for part in kept) + len(text)
        if not usable or length > _DESCRIPTION_CHARACTERS:
            break
        kept.append(text if text[-1] in ".!?" else f"{text}.")
        if len(plain) < len(lines):
            break
    if not kept or len(kept[0].split()) < _DESCRIPTION_WORDS or _BAD_START.match(kept[0]):
        return ""
    starts_well = kept[0][0].isupper() or kept[0][0] == "`"
    return "\n\n".join(kept) if starts_well else ""


def _until_heading(lines: list[str]) -> list[str]:
    """Return the lines before the first section, list, example or directive."""
    for position, line in enumerate(lines):
        if _STOP.match(line):
            return lines[:position]
        if _HEADING.fullmatch(line):
            underline = re.fullmatch(r"[-=~^]{3,}", line)
            return lines[: max(position - 1, 0) if underline else position]
    return lines


def _plain_text(text: str) -> str:
    """Return `text` with the markup of reStructuredText reduced to words and backticks."""
    text = re.sub(r":[\w:+-]+:`([^`]*?)\s*<[^`>]*>`", r"`\1`", text)  # :role:`title <target>`
    text = re.sub(r":[\w:+-]+:`~(?:[\w.]*\.)?(\w+(?:\(\))?)`", r"`\1`", text)  # :role:`~a.b.c`
    text = re.sub(r":[\w:+-]+:`[!.]?([^`]*)`", r"`\1`", text)
    text = re.sub(r"``([^`]*)``", r"`\1`", text)
    text = re.sub(r"`([^`<]*?)\s*<[^`>]*>`__?", r"\1", text)  # links
    text = re.sub(r"`([^`]*)`__?(?!\w)", r"`\1`", text)
    text = re.sub(r"(?<![\w*])\*([A-Za-z_]\w*)\*(?![\w*])", r"`\1`", text)  # *argument*
    text = re.sub(r"\s*\[[\w#]+\]_|\s*\(see [^)]*\)", "", text)  # footnotes, pointers to elsewhere
    text = _POINTER.sub("", text)
    return re.sub(r"\s+", " ", text).strip()


def _instruct(function: _Function) -> tuple[str, str, str]:
    """Return ``(kind, prompt, response)``; the kind follows from a hash of the function's name."""
    fenced = f"```python\n{function.code}\n```"
    docstring = _docstring(function.description)
    call = f"{function.name.rpartition('.')[0]}.{function.signature}"
    number = _number(function.name)
    if not function.code:
        kind = "describe"
    elif function.can_be_written and number % 3:
        kind = "implement"
    else:
        kind = ("explain", "document")[number // 3 % 2]
    what = "method" if function.in_class else "function"
    if kind == "explain":
        prompt = f"Explain what this Python {what} does.\n\n{fenced}"
        return kind, prompt, function.description
    if kind == "document":
        return kind, f"Write a docstring for this Python {what}.\n\n{fenced}", docstring
    if kind == "implement":
        header = f"{function.header}\n{textwrap.indent(docstring, '    ')}"
        prompt = f"Write the Python function with this header.\n\n```python\n{header}\n```"
        return kind, prompt, fenced
    return kind, f"What does the Python {what} `{call}` do?", function.description


def _docstring(description: str) -> str:
    first, *more = (
        textwrap.fill(part, 76, break_long_words=False, break_on_hyphens=False)
        for part in description.split("\n\n")
    )
    if not more and "\n" not in first:
        return f'"""{first}"""'
    return '"""' + "\n\n".join([first, *more]) + '\n"""'


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

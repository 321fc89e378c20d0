"""A check-up as text for people and as JSON for machines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lead_core.checkup import MOST_TURNS, Checkup, Finding, Kind, Lengths, Problem, Tolerances
from lead_core.records import ACCEPTED_FORMS, Reason
from lead_core.text_signs import Sign, printable

SCHEMA = 1

_FORM_NAMES = {
    "messages": "messages",
    "conversations": "conversations (ShareGPT)",
    "instruction": "instruction/output (Alpaca)",
    "prompt": "prompt/response",
    "question": "question/answer",
    "problem": "problem/solution",
}
_ACCEPTED = "; accepted: "  # what some details end with; told once, below all of them
_SHOWN_SOURCES = 20
_SHOWN_SHARES = 5
_SHOWN_DETAIL_LINES = 2

MEANINGS: Mapping[Kind, str] = {
    Reason.BAD_JSON: "the line is not JSON",
    Reason.BAD_CSV: "the row does not fit the quoting rules or the header",
    Reason.CUT_OFF: "the file breaks here, nothing after it was read: get it again",
    Reason.ENCODING: "text that is not valid Unicode, or holds a NUL",
    Reason.UNKNOWN_FORMAT: "keys of no known form",
    Reason.PREFERENCE: "chosen/rejected pairs: another kind of training",
    Reason.TOOL_CALL: "only plain text is supported",
    Reason.NOT_TEXT: "a value that is no text where text belongs",
    Reason.BAD_ROLES: "turns are not user and assistant in turn",
    Reason.EMPTY_PROMPT: "nothing is asked",
    Reason.NO_RESPONSE: "there is nothing to learn",
    Reason.TEMPLATE: "the model's chat template refuses it",
    Reason.TOO_LONG: "longer than data.max_tokens",
    Reason.DUPLICATE: "exactly the same conversation came before",
    Reason.CONTAMINATED: "it overlaps with a benchmark (only prepare checks that)",
    Sign.REPLACEMENT_CHARACTER: "U+FFFD: text was lost in an earlier conversion",
    Sign.MOJIBAKE: "UTF-8 was once read as another encoding",
    Sign.CONTROL_CHARACTER: "characters that no text needs",
    Sign.ECHO: "the response is the prompt",
    Sign.REFUSAL: "the response declines, or speaks of itself as an AI (English only)",
    Sign.POLITENESS_ONLY: "the response is courtesies and nothing else (English only)",
    Sign.URL_ONLY: "the response is links and nothing else",
    Sign.REPETITION: "the response goes round in circles",
    Sign.VERY_SHORT: "far shorter than is usual in its source",
    Sign.VERY_LONG: "far longer than is usual in its source",
    Sign.NEAR_DUPLICATE: "equal to an earlier one but for case, punctuation, spacing",
    Sign.SAME_PROMPT: "the prompt came before, with another response",
    Sign.SAME_RESPONSE: "the response (of 8 words or more) came before",
}

REMEDIES: Mapping[str, str] = {
    "cut_off": "get the file again; `lead run` would use only what stands before the break",
    "nothing_usable": "REJECTED says why: mend it, or leave it out",
    "rejected": "mend or remove what stands under REJECTED; `lead run` sets it aside by itself, with "
    "reasons, and goes on with the rest",
    "duplicates": "`lead run` keeps the first of each; many can mean that a file is there twice",
    "too_long": "raise data.max_tokens (see LENGTHS), at a cost in memory and time, or split records",
    "suspicious": "look at what stands under SUSPICIOUS, and remove what teaches nothing good; "
    "`lead run` uses all of it",
}


@dataclass(frozen=True)
class Diagnosis:
    """A check-up, what it was held to, and how it was made.

    `unit` is ``tokens`` or ``words``; `measured_by` names the tokenizer, or says how words are counted.
    `notes` are lines about the reading as a whole; `advice` the commands that come next.
    """

    checkup: Checkup
    tolerances: Tolerances
    problems: Sequence[Problem]
    unit: str
    measured_by: str
    notes: Sequence[str]
    advice: Sequence[str]


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the diagnosis as a JSON value of a stable form; a change of it raises ``schema``."""
    checkup = diagnosis.checkup
    return {
        "schema": SCHEMA,
        "fine": not diagnosis.problems,
        "problems": [asdict(problem) for problem in diagnosis.problems],
        "tolerances": asdict(diagnosis.tolerances),
        "read": checkup.read,
        "usable": checkup.usable,
        "suspicious": checkup.suspicious,
        "rejected": dict(checkup.rejected),
        "signs": dict(checkup.signs),
        "duplicates": asdict(checkup.duplicates),
        "sources": {name: asdict(source) for name, source in checkup.by_source.items()},
        "forms": dict(checkup.forms),
        "roles": dict(checkup.roles),
        "turns": {str(turns): n for turns, n in checkup.turns.items()},
        "scripts": dict(checkup.scripts),
        "unit": diagnosis.unit,
        "measured_by": diagnosis.measured_by,
        "lengths": {part: asdict(lengths) for part, lengths in checkup.lengths.items()},
        "limit": None if checkup.limit_cost is None else asdict(checkup.limit_cost),
        "examples": [
            finding_row(found) for kind in MEANINGS for found in checkup.examples.get(kind, ())
        ],
        "notes": list(diagnosis.notes),
    }


def finding_row(found: Finding) -> dict[str, Any]:
    """Return one finding as a JSON value."""
    return {
        "file": found.file,
        "line": found.line,
        "index": found.index,
        "source": found.source,
        "kind": found.kind.value,
        "detail": found.detail,
    }


def as_text(diagnosis: Diagnosis, *, width: int) -> str:
    """Return the diagnosis as text of at most `width` columns, but for long names and commands."""
    checkup = diagnosis.checkup
    blocks = [
        _overview(checkup),
        _sources_table(checkup, diagnosis.unit),
        _facts(checkup),
        _lengths_table(diagnosis),
        _findings(
            "REJECTED: what `lead run` refuses, each record for its first reason",
            checkup,
            checkup.rejected,
            checkup.read,
            width,
        ),
        _findings(
            "SUSPICIOUS: usable, and worth a look",
            checkup,
            checkup.signs,
            checkup.usable,
            width,
        ),
        [line for note in _notes(diagnosis) for line in _wrapped(f"note: {note}", width, 6)],
        _verdict(diagnosis, width),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _overview(checkup: Checkup) -> list[str]:
    rejected = checkup.read - checkup.usable
    return [
        f"{_records(checkup.read)}: {checkup.usable:,} usable, {rejected:,} rejected "
        f"({_percent(rejected, checkup.read)}), {checkup.suspicious:,} of the usable suspicious "
        f"({_percent(checkup.suspicious, checkup.usable)})"
    ]


def _sources_table(checkup: Checkup, unit: str) -> list[str]:
    names = [printable(name)[:32] for name in checkup.by_source]
    shown = max(len(name) for name in ("source", *names[:_SHOWN_SOURCES]))
    lines = [
        f"{'source':<{shown}} {'records':>10} {'usable':>10} {'suspicious':>10} "
        f"{f'median {unit}':>13} {'99 %':>6}"
    ]
    for name, part in list(zip(names, checkup.by_source.values(), strict=True))[:_SHOWN_SOURCES]:
        lines.append(
            f"{name:<{shown}} {part.read:>10,} {part.usable:>10,} {part.suspicious:>10,} "
            f"{part.lengths.median:>13,} {part.lengths.p99:>6,}"
        )
    if len(names) > _SHOWN_SOURCES:
        lines.append(f"and {len(names) - _SHOWN_SOURCES} more sources: see --json")
    return lines


def _facts(checkup: Checkup) -> list[str]:
    forms = {_FORM_NAMES.get(form, form): n for form, n in checkup.forms.items()}
    turns = {
        f"{n} turns" if n <= MOST_TURNS else f"more than {MOST_TURNS}": records
        for n, records in checkup.turns.items()
    }
    system = checkup.roles.get("system", 0)
    facts = [("form", _shares(forms))]
    if checkup.usable:
        facts += [
            ("turns", _shares(dict(sorted(turns.items(), key=lambda item: -item[1])))),
            ("system text", _percent(system, checkup.usable)),
            ("script", f"{_shares(checkup.scripts)} (of most letters in a record)"),
        ]
    return [f"{name:<12} {text}" for name, text in facts]


def _lengths_table(diagnosis: Diagnosis) -> list[str]:
    lengths = diagnosis.checkup.lengths
    if not lengths["record"].max:
        return []
    columns = ("min", "5 %", "median", "95 %", "99 %", "max", "in all")
    lines = [
        f"LENGTHS in {diagnosis.unit} ({diagnosis.measured_by})",
        f"{'':<12}" + "".join(f"{column:>9}" for column in columns[:-1]) + f"{columns[-1]:>14}",
    ]
    for part, figures in lengths.items():
        lines.append(f"{part:<12}" + _lengths_row(figures))
    return [*lines, *_limit_lines(diagnosis.checkup)]


def _lengths_row(figures: Lengths) -> str:
    cells = (figures.min, figures.p5, figures.median, figures.p95, figures.p99, figures.max)
    return "".join(f"{cell:>9,}" for cell in cells) + f"{figures.total:>14,}"


def _limit_lines(checkup: Checkup) -> Iterator[str]:
    cost = checkup.limit_cost
    if cost is None:
        return
    whole = checkup.lengths["record"]
    yield (
        f"max_tokens {cost.limit:,} refuses {_records(cost.records)} "
        f"({_percent(cost.records, checkup.read)}), {cost.refused:,} tokens "
        f"({_percent(cost.refused, whole.total)})."
    )
    if cost.records:
        yield (
            f"A trainer that cuts there instead loses {cost.cut_off:,} tokens "
            f"({_percent(cost.cut_off, whole.total)}), from the ends of records."
        )
        yield f"To keep 95 %: about {whole.p95:,}; 99 %: about {whole.p99:,}; all: {whole.max:,}."


def _findings(
    title: str, checkup: Checkup, counts: Mapping[Any, int], of: int, width: int
) -> list[str]:
    if not any(counts.values()):
        return []
    lines = [title]
    for kind, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if not n:
            continue
        counted = f"  {kind.value:<22}{n:>8,} {_percent(n, of):>8}  {MEANINGS[kind]}"
        lines += _wrapped(counted, width, 42)
        for found in checkup.examples.get(kind, ()):
            lines += _example(found, width)
    if any(
        _ACCEPTED in found.detail for kind in counts for found in checkup.examples.get(kind, ())
    ):
        lines += _wrapped(f"  Accepted forms: {ACCEPTED_FORMS}.", width, 4)
    return lines


def _example(found: Finding, width: int) -> list[str]:
    """Return place and detail on one line if they fit, else the detail below, cut to two lines."""
    place, detail = printable(found.place), printable(found.detail.partition(_ACCEPTED)[0])
    line = f"      {place}  {detail}"
    if len(line) <= width:
        return [line]
    below = textwrap.wrap(
        detail, width - 10, max_lines=_SHOWN_DETAIL_LINES, placeholder="...", break_on_hyphens=False
    )
    return [f"      {place}", *(f"          {part}" for part in below)]


def _notes(diagnosis: Diagnosis) -> Iterator[str]:
    yield from map(printable, diagnosis.notes)
    duplicates = diagnosis.checkup.duplicates
    if not duplicates.exact:
        yield (
            f"more different records than the index holds: {duplicates.observed:,} duplicates were "
            f"seen, there are about {duplicates.estimate:,} (+- {2 * duplicates.standard_error:,}); "
            "near_duplicate and same_ counts are lower bounds; a bigger --index-mb is exact for longer"
        )


def _verdict(diagnosis: Diagnosis, width: int) -> list[str]:
    if not diagnosis.problems:
        lines = ["VERDICT: fine"]
    else:
        n = len(diagnosis.problems)
        lines = [f"VERDICT: {n} problem{'s' if n > 1 else ''}"]
    for problem in diagnosis.problems:
        stated = f"  {problem.name}: {printable(problem.detail)}{_held_to(problem)}"
        lines += _wrapped(stated, width, 4)
        lines += _wrapped(f"    -> {REMEDIES[problem.name]}", width, 7)
    return [*lines, *(f"next: {line}" for line in diagnosis.advice)]


def _held_to(problem: Problem) -> str:
    if problem.share is None or problem.limit is None:
        return ""
    option = "--max-" + problem.name.replace("_", "-")
    return f" ({100 * problem.share:.3g} %; {option} allows {100 * problem.limit:.3g} %)"


def _shares(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    shown = [f"{name} {_percent(n, total)}" for name, n in list(counts.items())[:_SHOWN_SHARES]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", {more} more" if more else "")


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.01:
        return "<0.01 %"
    return f"{share:.2f} %" if share < 1 and part else f"{share:.1f} %" if part else "0 %"


def _records(n: int) -> str:
    return f"{n:,} record" if n == 1 else f"{n:,} records"


def _wrapped(line: str, width: int, indent: int) -> list[str]:
    """Return `line` in lines of at most `width`, the later ones indented; long words stay whole."""
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

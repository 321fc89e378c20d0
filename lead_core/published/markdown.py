"""What the published tables have in common: their form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lead_core.statistics import PairedDifference


def markdown_table(heads: Mapping[str, str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; heads: column -> its alignment; rows: texts by column."""
    lines = [list(heads), list(heads.values()), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(pair: PairedDifference | None) -> str:
    """Return a paired difference with its 95 % interval; nothing for None."""
    if pair is None:
        return ""
    if pair.low is None or pair.high is None:
        return f"{pair.difference:+.3f}"
    return f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"

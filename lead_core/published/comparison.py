"""The tables of the reference benchmark: what each selector costs, and what it picks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lead_core.published.markdown import interval, markdown_table
from lead_core.statistics import PairedDifference
from lead_core.storage import read_json

COMPARISON = "reference/7c56d46663ea26d8/comparison.json"


def comparison_cost(results: Path) -> str:
    """Return selectors with held-out losses, intervals and what each forwarded."""
    found = read_json(results / COMPARISON, made_by="lead compare")
    heads = {
        **_result_heads(found),
        "of `full`'s gain": "---:",
        "forwards: offline / to select / in training": "---:",
        "tokens trained on": "---:",
        "seconds": "---:",
    }
    rows = [
        [
            *_result(row),
            "" if row["recovered"] is None else f"{row['recovered']:.0%}",
            " / ".join(
                f"{row['forwards'][column]:,.0f}" for column in ("offline", "selection", "training")
            ),
            f"{row['tokens']['training']:,.0f}",
            "" if row["seconds"] is None else f"{row['seconds']:,.0f}",
        ]
        for row in found["rows"]
    ]
    speed = found["throughput"]
    seconds = (
        ""
        if speed is None
        else (
            f" Seconds: offline pass included, at {speed['forward']:.0f} tokens/s forward and "
            f"{speed['training']:.0f} in training, the medians of these trainings."
        )
    )
    return markdown_table(heads, rows) + f"\n\n{_base(found)}{seconds}"


def comparison_picks(results: Path) -> str:
    """Return selectors with held-out losses, intervals and what each picked."""
    found = read_json(results / COMPARISON, made_by="lead compare")
    faults = _faults(found["pool_faults"])
    heads = {
        **_result_heads(found),
        **{f"{fault} picked": "---:" for fault in faults},
        "distinct / visits": "---:",
        "tokens trained on": "---:",
    }
    rows = [
        [
            *_result(row),
            *(f"{share:.0%}" for share in _faults(row["picked"]).values()),
            f"{row['distinct']:,.0f} / {row['visits'][1]:,}",
            f"{row['tokens']['training']:,.0f}",
        ]
        for row in found["rows"]
    ]
    shares = ", ".join(f"{share:.0%} {fault}" for fault, share in faults.items())
    return (
        markdown_table(heads, rows)
        + f"\n\n{_base(found)}"
        + (f" In the pool: {shares}." if shares else "")
    )


def _faults(shares: Mapping[str, float]) -> dict[str, float]:
    """Return planted faults by how they are told: wrong responses in one sum, near-duplicates apart.

    shares: by `dirt.Kind`. A kind that is the only one of wrong responses keeps its name.
    """
    wrong = wrong_responses(shares)
    told = {}
    if wrong:
        name = next(iter(wrong)).replace("_", " ") if len(wrong) == 1 else "wrong responses"
        told[name] = sum(wrong.values())
    if "near_duplicate" in shares:
        told["near-duplicates"] = shares["near_duplicate"]
    return told


def wrong_responses(shares: Mapping[str, float]) -> dict[str, float]:
    """Return the shares of planted faults that make a response wrong, by `dirt.Kind`."""
    return {kind: share for kind, share in shares.items() if kind != "near_duplicate"}


def _result_heads(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of `_result`, with their alignment."""
    return {
        "selector": "---",
        "seeds": "---:",
        "held-out loss": "---:",
        f"minus `{found['baseline']}`, paired 95 %": "---",
        "finding": "---",
    }


def _result(row: Mapping[str, Any]) -> list[str]:
    spread = "" if row["spread"] is None else f" ± {row['spread']:.3f}"
    pair = row["versus"]
    changed = interval(None if pair is None else PairedDifference(**pair))
    return [
        f"`{row['selector']}`",
        str(len(row["seeds"])),
        f"{row['loss']:.3f}{spread}",
        changed,
        row["verdict"] or "baseline",
    ]


def _base(found: Mapping[str, Any]) -> str:
    missing = found["wanted"] - found["found"]
    state = f" {found['found']} of {found['wanted']} trainings are in." if missing else ""
    return (
        f"Base model: {found['base_loss']:.3f} nats per response token (macro average over "
        f"sources); mean ± standard deviation over seeds, intervals paired by seed. Share of `full`'s "
        f"gain: over the seeds that `full` has too.{state}"
    )

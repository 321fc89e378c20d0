"""The table of what benchmarks say of each selector's choice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lead_core.evaluation_record import MADE_BY, read_evaluations
from lead_core.published.markdown import markdown_table
from lead_core.records import Reason

BENCHMARKS = "benchmarks"
SIGNIFICANT = 0.05
_JUDGED = {  # column -> (task, metric) of an evaluation
    "MMLU, accuracy": ("mmlu", "acc"),
    "GSM8K, exact match": ("gsm8k_cot", "exact_match,strict-match"),
    "GSM8K, last number": ("gsm8k_cot", "exact_match,flexible-extract"),
    "HumanEval, pass@1": ("humaneval", "pass@1,create_test"),
    "held-out choice, accuracy": ("lead_heldout_choice", "acc"),
    "held-out loss": ("lead_heldout", "loss"),
}


def benchmarks(results: Path) -> str:
    """Return the base model and those tuned on each selector's choice, judged by benchmarks."""
    found = read_evaluations(results / BENCHMARKS)
    if not found:
        return f"No run is kept yet: `{MADE_BY}`."
    tasks = found[0]["results"]["tasks"]
    heads = {"trained on the choice of": "---", "training samples": "---:"}
    heads |= {f"{name} ({tasks[task]['n']})": "---:" for name, (task, _) in _JUDGED.items()}
    rows = [["nobody: the base model", "", *_judged(found[0], "base")]]
    for record in found:
        selector, visits = record["training"]["selector"], record["training"]["visits"]
        rows.append([f"`{selector}`", f"{visits:,}", *_judged(record, "tuned")])
    pool = found[0]["pool"]
    return markdown_table(heads, rows) + (
        "\n\nMean ± standard error over so many documents; loss in nats per response token. Bold: "
        "differs from the base model on the same documents, by the exact McNemar test (p < "
        f"{SIGNIFICANT}) where answers are right or wrong, by the paired 95 % interval for losses. "
        f"Seed {found[0]['training']['seed']}, {pool['kept']:,} records to choose from; "
        f"{pool['rejected_by_reason'].get(Reason.CONTAMINATED, 0)} others had been removed because "
        "they overlap with the benchmarks."
    )


def _judged(record: Mapping[str, Any], row: str) -> list[str]:
    """Return the figures of one row, base or tuned, with errors; bold where tuned differs from base."""
    texts = []
    for task, metric in _JUDGED.values():
        found = record["results"]["tasks"][task]
        text = f"{found[row][metric]:.3f} ± {found[f'{row}_stderr'][metric]:.3f}"
        pair = record["results"]["paired"][f"{task}/{metric}"]
        texts.append(f"**{text}**" if row == "tuned" and _differs(pair) else text)
    return texts


def _differs(pair: Mapping[str, Any]) -> bool:
    if pair["mcnemar_p"] is None:
        return not pair["low"] <= 0 <= pair["high"]
    return bool(pair["mcnemar_p"] < SIGNIFICANT)

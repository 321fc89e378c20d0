"""The Python side of humaneval.yaml: programs from responses, run in the sandbox, and pass@k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import comb
from typing import Any

from lead_core.sandbox import run_programs


def run_responses(
    responses: Sequence[Sequence[str]], documents: Sequence[Mapping[str, Any]]
) -> list[list[dict[str, Any]]]:
    """Run every response to every problem; return program, outcome and output of each.

    All are run here, before metrics see one problem after the other, to keep every CPU busy.
    """
    programs = [
        [write_program(document, response) for response in answers]
        for answers, document in zip(responses, documents, strict=True)
    ]
    results = iter(run_programs([program for group in programs for program in group]))
    return [
        [{"program": program, **asdict(next(results))} for program in group] for group in programs
    ]


def write_program(document: Mapping[str, Any], response: str) -> str:
    """Return the problem's start, the model's continuation and the tests, as lm-eval joins them."""
    tests = f"{document['test']}\ncheck({document['entry_point']})"
    return f"{document['prompt']}{response}\n{tests}"


def pass_at_k(
    references: Sequence[str], predictions: Sequence[Sequence[Mapping[str, Any]]], k: Sequence[int]
) -> dict[str, float]:
    """Return ``pass@k`` of one problem from its samples' outcomes; the references ran with them."""
    [samples] = predictions
    passed = sum(sample["outcome"] == "passed" for sample in samples)
    return {f"pass@{size}": estimate_pass_at_k(len(samples), passed, size) for size in k}


def estimate_pass_at_k(samples: int, passed: int, k: int) -> float:
    """Return the chance that one of k samples passes: ``1 - C(n - c, k) / C(n, k)``, unbiased.

    Equation 1 of Chen et al., "Evaluating Large Language Models Trained on Code" (2021).
    """
    if k > samples:
        raise ValueError(f"pass@{k} takes at least {k} samples of a problem, got {samples}")
    return 1.0 - comb(samples - passed, k) / comb(samples, k)

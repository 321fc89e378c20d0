"""What a model answered before: kept per task, so that neither a kill nor a comparison asks it twice.

An entry is named by all that an answer depends on: the model, its adapter, the arithmetic, and every
prompt itself, so that a new version of a task or of its data is another entry. What is made of answers
(filters, metrics, errors) is computed anew each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import random
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from lead_core.evaluation_model import PipelineLM, stored_tokens
from lead_core.storage import sha256_json, write_bytes

FORM = (
    2  # of the files, and of how PipelineLM computes what is in them: raise it when either changes
)


@dataclass(frozen=True)
class Answers:
    """A model's answers to the requests of one task, and what it took to have them."""

    values: Sequence[Any]
    sequences: int
    tokens: int


class AnswerCache:
    """Answers as JSON files below `folder`, each written in one step; any may be deleted."""

    def __init__(self, folder: Path):
        self.folder = folder

    def read(self, key: Mapping[str, Any]) -> Answers | None:
        """Return what is kept under `key`; a damaged entry is named on stderr and counts as none."""
        path = self._path(key)
        try:
            entry = json.loads(path.read_bytes())
            problem = _problem_of(entry, key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            problem = str(error)
        if problem is not None:
            print(f"cached answers {path} are damaged ({problem}): asking again", file=sys.stderr)
            return None
        with contextlib.suppress(OSError):  # gone meanwhile, or of another user
            os.utime(path)  # when it was last of use, for `lead gc`
        return Answers(entry["answers"], entry["sequences"], entry["tokens"])

    def write(self, key: Mapping[str, Any], answers: Answers) -> None:
        """Keep `answers` under `key`; not those with a number that is not finite: a failure."""
        if not all(map(_is_finite, answers.values)):
            return
        content = {
            "key": key,
            "answers": answers.values,
            "sequences": answers.sequences,
            "tokens": answers.tokens,
        }
        entry = {**content, "sha256": sha256_json(content)}
        write_bytes(self._path(key), json.dumps(entry).encode("ascii"))

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self.folder / file_name(key["task"]) / f"{sha256_json(key)[:32]}.json"


def file_name(task: str) -> str:
    """Return the name of a task as a file's: some hold colons or slashes."""
    return re.sub(r"[^\w.-]", "_", task)


def _problem_of(entry: Any, key: Mapping[str, Any]) -> str | None:
    if not isinstance(entry, dict) or entry.get("key") != key:
        return "not the entry of that name"
    content = {name: value for name, value in entry.items() if name != "sha256"}
    return None if entry.get("sha256") == sha256_json(content) else "its hash differs"


def _is_finite(answer: Any) -> bool:
    number = answer[0] if isinstance(answer, tuple) else answer
    return not isinstance(number, float) or math.isfinite(number)


class CachedLM(LM):
    """A model that is asked only for what `cache` does not hold.

    `identity`: what the answers depend on besides the requests. `spent` is what all answers took, be it
    now or when they were first given; `hits` and `misses` count the sets of requests.
    """

    def __init__(self, lm: PipelineLM, cache: AnswerCache, identity: Mapping[str, Any], seed: int):
        super().__init__()
        self._lm = lm
        self._cache = cache
        self._identity = {"form": FORM, "seed": seed, **identity}
        self._seed = seed
        self.sequences = self.tokens = self.hits = self.misses = 0

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return (log-likelihood in nats, whether it is the greedy continuation) per request."""
        return [(value, greedy) for value, greedy in self._ask("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return the log-likelihood of each request's whole text."""
        return self._ask("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return what the model writes after each request's prompt."""
        return self._ask("generate_until", requests)

    def _ask(self, kind: str, requests: list[Instance]) -> list[Any]:
        key = {
            **self._identity,
            "task": str(requests[0].task_name),
            "kind": kind,
            "requests": _hash_requests(requests),
        }
        answers = self._cache.read(key)
        if answers is None:
            self.misses += 1
            answers = self._answer(kind, requests)
            self._cache.write(key, answers)
        else:
            self.hits += 1
        self.sequences += answers.sequences
        self.tokens += answers.tokens
        return list(answers.values)

    def _answer(self, kind: str, requests: list[Instance]) -> Answers:
        """Ask the model, from a random state that no earlier task has moved."""
        seed_all(self._seed)
        before = self._lm.ledger.as_dict()["evaluation"]
        values = getattr(self._lm, kind)(requests)
        after = self._lm.ledger.as_dict()["evaluation"]
        return Answers(
            values,
            after["sequences"] - before["sequences"],
            after["tokens"] - before["tokens"],
        )


def seed_all(seed: int) -> None:
    """Set the random states that lm-eval's own entry point sets."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _hash_requests(requests: Iterable[Instance]) -> str:
    digest = hashlib.sha256()
    for request in requests:
        asked = stored_tokens(request) or request.args
        digest.update(json.dumps(asked, sort_keys=True).encode())
        digest.update(b"\n")
    return digest.hexdigest()

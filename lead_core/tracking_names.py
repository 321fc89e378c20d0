"""Names and values in the form that a tracking server takes, without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lead_core.errors import LeadError
from lead_core.storage import sha256_json

MAX_NAME = 250  # MLflow's limits, in characters
MAX_PARAM = 6000
MAX_TAG = 8000


def redact(text: str) -> str:
    """Return `text` without the user, password and query of any URI in it."""
    text = re.sub(r"://[^\s/]*@", "://***@", text)
    return re.sub(r"((?:https?|s3|gs|abfss?|az)://[^\s\"'?#]*)[?][^\s\"',]*", r"\1?***", text)


def first_line(error: BaseException) -> str:
    """Return what went wrong in one line that is fit for a log."""
    lines = str(error).strip().splitlines()
    kind = "" if isinstance(error, LeadError) else type(error).__name__
    return redact(": ".join(part for part in (kind, *lines[:1]) if part))[:400]


def legal_name(name: str) -> str:
    """Return `name` with what MLflow refuses replaced: it takes paths of plain words."""
    parts = re.sub(r"[^\w\-. :/]", "_", name).split("/")
    path = "/".join(part for part in parts if part.strip("."))
    return path[:MAX_NAME].strip("/") or "_"


def legal_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Return tags as MLflow takes them; those that are None are left out."""
    return {
        legal_name(name): redact(str(value))[:MAX_TAG]
        for name, value in tags.items()
        if value is not None
    }


def flatten_params(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as ``section.key`` -> text; what is not a string is written as JSON.

    A value beyond MLflow's limit keeps its start and its SHA-256, so that two of them still differ.
    """
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat.update(flatten_params(value, f"{prefix}{key}."))
            continue
        text = redact(value if isinstance(value, str) else json.dumps(value, default=str))
        if len(text) > MAX_PARAM:
            text = f"{text[: MAX_PARAM - 100]}... (sha256 {sha256_json(text)})"
        flat[legal_name(f"{prefix}{key}")] = text
    return flat


def metric_name(task: str, metric: str, *, prefix: str = "eval") -> str:
    """Return the stable name of an lm-eval metric.

    ``exact_match,strict-match`` of gsm8k is ``eval/gsm8k/exact_match.strict-match``; the filter
    ``none`` is left out.
    """
    name, _, filter_name = metric.partition(",")
    if filter_name not in ("", "none"):
        name = f"{name}.{filter_name}"
    return legal_name(f"{prefix}/{task}/{name}")

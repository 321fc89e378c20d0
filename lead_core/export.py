"""The selected subset for other trainers: one row per distinct sample, and the configs beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lead_core.artifacts import Layout, check_chain, read_manifest
from lead_core.errors import LeadError
from lead_core.export_card import provenance, subset_card
from lead_core.export_configs import PROMPT_COMPLETION_FILE, Recipe, trainer_files
from lead_core.export_folder import export_folder
from lead_core.export_forms import Form, prompt_and_completion, to_record, what_is_lost
from lead_core.pool import open_pool
from lead_core.records import Message
from lead_core.storage import sha256_file, write_jsonl, write_text

KIND = "subset"
SCORES = ("utility", "round", "uses", "difficulty", "task")
_SCORE_TYPES = {"utility": pa.float64()}  # the others are whole numbers
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])


@dataclass(frozen=True)
class Subset:
    """The distinct samples of one training, in the order of their first use.

    records: id, source, utility (after the last use), round (of the first use), uses, difficulty, task.
    conversations: their messages. manifest: the train stage's.
    """

    records: pd.DataFrame
    conversations: list[list[Message]]
    manifest: dict[str, Any]


def read_subset(layout: Layout) -> Subset:
    """Join selection.parquet with the pool, which may have changed since but for what was selected.

    Raises LeadError when one of them is absent, is not what its stage wrote, or a sample is not in the
    pool. An id is the hash of its conversation, so equal ids are equal texts.
    """
    manifest = read_manifest(layout.train, "train")
    path = layout.train / "selection.parquet"
    if not path.is_file():
        raise LeadError(f"{path} is not there; run `dvc repro train` first")
    check_chain(str(path), manifest["selection_sha256"], sha256_file(path), "train")
    pool = open_pool(layout.pool, verify=True)
    samples = pd.read_parquet(path)
    first = samples.drop_duplicates("id", keep="first")
    last = samples.drop_duplicates("id", keep="last").set_index("id").loc[first["id"]]
    records = pd.DataFrame(
        {
            "id": first["id"].to_numpy(),
            "source": first["source"].to_numpy(),
            "utility": last["utility_after"].to_numpy(),
            "round": first["round"].to_numpy(),
            "uses": last["uses"].to_numpy(),
            "difficulty": first["difficulty"].to_numpy(),
            "task": first["task"].to_numpy(),
        }
    )
    row_of = {name: row for row, name in enumerate(pool.ids.tolist())}
    if absent := [name for name in records["id"] if name not in row_of]:
        raise LeadError(
            f"{len(absent)} of {len(records)} selected records are not in {layout.pool} any more "
            f"({absent[0]} first); run `lead run prepare` with the data and parameters that they were "
            f"selected from (pool hash {manifest['pool_sha256'][:12]}...)"
        )
    conversations = [pool.messages(row_of[name]) for name in records["id"]]
    return Subset(records, conversations, manifest)


def export_subset(layout: Layout, path: Path, *, form: Form, scores: bool, recipe: Recipe) -> str:
    """Write the subset in `form` into the folder `path`, with configs and README; return a summary.

    scores: keep id, source, utility, round, uses and clusters beside the conversation. Records that
    the form cannot hold go to ``refused.jsonl`` with the reason. Raises LeadError as `read_subset` and
    `export_folder` do.
    """
    subset = read_subset(layout)
    rows, completions, refused = [], [], []
    for facts, messages in zip(_facts(subset.records), subset.conversations, strict=True):
        record = to_record(form, messages)
        if reason := what_is_lost(record, messages):
            refused.append({**facts, "reason": reason, "messages": messages})
            continue
        rows.append(_with_scores(record, facts) if scores else record)
        completions.append(prompt_and_completion(messages))
    if not rows:
        raise LeadError(
            f"no record of the subset can be written as {form}: {refused[0]['reason']}; "
            "use --format messages"
        )
    data_file = "train.parquet" if form is Form.DATASET else "train.jsonl"
    configs, absent = trainer_files(recipe, form, data_file)
    origin = provenance(subset.manifest)
    card = subset_card(
        origin,
        data_file=data_file,
        columns=list(rows[0]),
        files=list(configs),
        absent=absent,
        refused=len(refused),
    )
    counts = {"written": len(rows), "refused": len(refused)}
    with export_folder(path, KIND, {"form": form, **counts, "provenance": origin}) as folder:
        if form is Form.DATASET:
            _write_parquet(folder / data_file, rows)
        else:
            write_jsonl(folder / data_file, rows)
        write_jsonl(folder / PROMPT_COMPLETION_FILE, completions)
        if refused:
            write_jsonl(folder / "refused.jsonl", refused)
        for name, text in {**configs, "README.md": card}.items():
            write_text(folder / name, text)
    return _summary(path, form, counts, sorted(configs), absent)


def _facts(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    columns = [records[name].tolist() for name in records.columns]  # plain Python numbers
    for values in zip(*columns, strict=True):
        yield dict(zip(records.columns, values, strict=True))


def _with_scores(record: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    before = {name: facts[name] for name in ("id", "source")}
    return {**before, **record, **{name: facts[name] for name in SCORES}}


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    types: dict[str, Any] = {name: pa.int32() for name in SCORES} | _SCORE_TYPES
    types |= {"id": pa.string(), "source": pa.string(), "messages": pa.list_(_MESSAGE)}
    schema = pa.schema([(name, types[name]) for name in rows[0]])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def _summary(
    path: Path, form: Form, counts: dict[str, int], configs: list[str], absent: list[str]
) -> str:
    lines = [f"{counts['written']} records ({form}) in {path}, with {', '.join(configs)}"]
    if counts["refused"]:
        lines.append(f"{counts['refused']} records do not fit: see {path / 'refused.jsonl'}")
    lines += [f"no config for {line}" for line in absent]
    return "\n".join(lines)

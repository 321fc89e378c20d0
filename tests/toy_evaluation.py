"""An evaluation small enough for unit tests: a tuned model, held-out records, tasks over sums."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml
from conftest import make_model, make_tokenizer
from toy_artifacts import turn, write_records

from lead_core.evaluation import evaluate, load_tasks
from lead_core.evaluation_model import HELDOUT
from lead_core.model import ResolvedRuntime, add_adapter

FP32 = ResolvedRuntime("cpu", 1, "fp32")
BF16 = ResolvedRuntime("cpu", 1, "bf16")

CONVERSATIONS = [
    ("plain", turn("What is 2 + 2?", "4")),
    ("plain", turn("Spell naïve 🙂", "n-a-ï-v-e 🙂")),
    ("plain", turn("Two lines?", "one\ntwo\n")),
    ("edges", turn("A response that opens with newlines", "\n\nlike this")),
    ("edges", turn("A prompt that ends with blanks   ", "   and a response that starts so")),
    ("edges", turn("Special <s> tokens </s> in the text", "also <s>here</s> and on")),
    ("edges", [{"role": "system", "content": "Be brief."}, *turn("Hi", "Hello")]),
    ("edges", [*turn("One?", "1"), *turn("And the next?", "2")]),
]


def tuned_model(seed=0):
    """The tiny model with an adapter that changes its losses."""
    model = add_adapter(
        make_model(seed), rank=2, alpha=4, dropout=0.0, target_modules="all-linear", seed=0
    )
    with torch.no_grad():
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model.eval()


def write_pool(place: Path) -> Path:
    """Write the conversations as held-out records; return the pool's folder."""
    write_records(place / "heldout.arrow", CONVERSATIONS, make_tokenizer())
    return place


def write_tasks(place: Path) -> Path:
    """Write tasks in lm-eval's own form: choices, generation, and a group over two tasks."""
    data = place / "sums.jsonl"
    rows = [{"question": f"{i} + {i} =", "choices": ["1", str(2 * i)], "gold": 1} for i in range(6)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(data)},
            "cache_dir": str(place / "cache"),
        },
        "test_split": "test",
        "doc_to_text": "question",
    }
    choices = {
        **dataset,
        "output_type": "multiple_choice",
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    writing = {
        **dataset,
        "output_type": "generate_until",
        "doc_to_target": "{{choices[1]}}",
        "generation_kwargs": {"max_gen_toks": 4, "until": ["\n"], "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    group = {
        "group": "sums",
        "task": ["sums_choice", "sums_again"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }
    tasks = place / "tasks"
    tasks.mkdir()
    for name, config in (
        ("sums_choice", {"task": "sums_choice", **choices}),
        ("sums_again", {"task": "sums_again", **choices}),
        ("sums_write", {"task": "sums_write", **writing}),
        ("sums", group),
    ):
        (tasks / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return tasks


def load(names, pool, *, tokenizer=None, max_length=512, **others):
    return load_tasks(
        names, pool=pool, tokenizer=tokenizer or make_tokenizer(), max_length=max_length, **others
    )


def run(
    pool,
    out,
    *,
    names=(HELDOUT,),
    model=None,
    adapter="a" * 64,
    runtime=FP32,
    cache=None,
    on_task=None,
    **others,
):
    """Evaluate with nothing kept from before, unless a `cache` is given."""
    return evaluate(
        model=model or tuned_model(),
        tokenizer=make_tokenizer(),
        runtime=runtime,
        tasks=load(names, pool, **others),
        batch_size=3,
        bootstrap_samples=100,
        inputs={"model_sha256": "m" * 64, "adapter_sha256": adapter},
        cache=cache or out.with_name(f"{out.name}-cache"),
        out=out,
        on_task=on_task or (lambda times: None),
    )

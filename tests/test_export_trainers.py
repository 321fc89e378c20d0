"""What LLaMA-Factory, TRL and axolotl make of an export: their own loaders, compared token by token.

Each test runs where its tool is installed (docs/export.md says how); their requirements exclude one
another and ours, so no environment has them all.
"""

import os
from pathlib import Path

import pytest
import yaml
from conftest import make_model, make_tokenizer
from toy_artifacts import RECIPE, mixed_conversation, write_artifacts

from lead_core.chat import encode
from lead_core.export import export_subset, read_subset
from lead_core.export_forms import Form

pytestmark = pytest.mark.slow

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")

IGNORED = -100


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return write_artifacts(folder, make_tokenizer(), conversation=mixed_conversation)


@pytest.fixture
def exported(layout, tmp_path, monkeypatch):
    """Export in a form and go there, as a user does."""
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    values = {**vars(RECIPE), "model": str(tmp_path / "model"), "revision": None, "bf16": False}
    recipe = type(RECIPE)(**{**values, "max_tokens": 400})

    def run(form):
        export_subset(layout, tmp_path / "out", form=form, scores=True, recipe=recipe)
        monkeypatch.chdir(tmp_path / "out")
        return recipe

    return run


def ours(layout, *, every_answer=False):
    """Return the training's own token ids and the ids that its loss is taken on, per record.

    every_answer: the loss of all assistant turns, not of the last one alone.
    """
    tokenizer = make_tokenizer()
    result = []
    for messages in read_subset(layout).conversations:
        encoded = encode(tokenizer, messages)
        targets = [IGNORED] * encoded.response_start + encoded.input_ids[encoded.response_start :]
        ends = [n for n, m in enumerate(messages, 1) if m["role"] == "assistant"]
        for end in ends[:-1] if every_answer else []:
            part = encode(tokenizer, messages[:end])
            targets[part.response_start : len(part.input_ids)] = part.input_ids[
                part.response_start :
            ]
        result.append((encoded.input_ids, targets))
    return result


def check(rows, expected, *, tail_in_loss):
    """Compare without regard to order; templates put a newline behind the last turn."""
    tail = make_tokenizer()("\n")["input_ids"]
    behind = tail if tail_in_loss else [IGNORED] * len(tail)
    wanted = sorted(([*ids, *tail], [*targets, *behind]) for ids, targets in expected)
    assert sorted((list(ids), list(labels)) for ids, labels in rows) == wanted


@pytest.mark.parametrize("form", Form)
def test_llamafactory_trains_on_our_tokens_and_the_last_answer(exported, layout, form):
    pytest.importorskip("llamafactory")
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args, read_args
    from llamafactory.model import load_tokenizer

    recipe = exported(form)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["llamafactory-cli", "llamafactory.yaml", "use_cpu=true"])
        model, data, training, tuning, _ = get_train_args(read_args())
    assert training.learning_rate == recipe.learning_rate
    assert training.num_train_epochs == recipe.epochs
    assert training.max_grad_norm == 0
    assert (tuning.lora_rank, tuning.lora_alpha) == (recipe.rank, recipe.alpha)
    assert tuning.lora_target == ["all"]
    loaded = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], data)
    rows = get_dataset(template, model, data, training, stage="sft", **loaded)["train_dataset"]
    found = [(row["input_ids"], row["labels"]) for row in rows]
    check(found, ours(layout), tail_in_loss=True)


def test_trl_trains_on_our_tokens_and_the_last_answer(exported, layout):
    pytest.importorskip("trl", minversion="1.9")  # older ones cut prompts elsewhere
    from trl import SFTTrainer, get_dataset, get_peft_config
    from trl.scripts.sft import make_parser

    recipe = exported(Form.MESSAGES)
    _, training, model, data = make_parser().parse_args_and_config(
        ["--config", "trl.yaml", "--use_cpu", "true"], fail_with_unknown_args=True
    )
    adapter = get_peft_config(model)
    assert training.learning_rate == recipe.learning_rate
    assert (adapter.r, adapter.lora_alpha, adapter.target_modules) == (8, 16, "all-linear")
    trainer = SFTTrainer(
        model=model.model_name_or_path,
        args=training,
        train_dataset=get_dataset(data)["train"],
        peft_config=adapter,
    )
    batches = [trainer.data_collator([dict(row)]) for row in trainer.train_dataset]
    found = [(batch["input_ids"][0].tolist(), batch["labels"][0].tolist()) for batch in batches]
    check(found, ours(layout), tail_in_loss=True)


@pytest.mark.parametrize("form", [Form.MESSAGES, Form.SHAREGPT, Form.DATASET])
def test_axolotl_trains_on_our_tokens_and_every_answer(exported, layout, form):
    pytest.importorskip("axolotl")
    from axolotl.cli.args import PreprocessCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from axolotl.utils.schemas.datasets import SFTDataset

    recipe = exported(form)
    written = yaml.safe_load(Path("axolotl.yaml").read_text())
    assert set(written) <= set(AxolotlInputConfig.model_fields), "it drops what it does not know"
    assert set(written["datasets"][0]) <= set(SFTDataset.model_fields)
    settings = load_cfg("axolotl.yaml")
    assert settings.learning_rate == recipe.learning_rate
    assert settings.num_epochs == recipe.epochs
    assert (settings.lora_r, settings.lora_alpha) == (recipe.rank, recipe.alpha)
    rows = load_datasets(cfg=settings, cli_args=PreprocessCliArgs()).train_dataset
    found = [(row["input_ids"], row["labels"]) for row in rows]
    check(found, ours(layout, every_answer=True), tail_in_loss=False)

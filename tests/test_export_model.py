"""The toy model with a trained adapter, taken up by peft, transformers and lm-eval's own commands."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import make_model, make_tokenizer
from safetensors.torch import load_file, save_file
from toy_artifacts import write_artifacts

from lead_core.artifacts import Layout, write_training
from lead_core.assets import ResolvedModel, resolve_model
from lead_core.chat import load_tokenizer
from lead_core.errors import LeadError
from lead_core.export_model import base_reference, export_adapter, export_merged, stored_dtype
from lead_core.model import add_adapter
from lead_core.storage import read_json, write_json

IDS = torch.arange(40)[None] + 100


def train_toy(root: Path, *, dtype=torch.float32) -> tuple[Layout, ResolvedModel]:
    """Write a finished pipeline whose adapter is a real one over a toy model kept in `dtype`."""
    folder = root / "base"
    make_model(seed=3).to(dtype).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    model = resolve_model(str(folder), None)
    layout = write_artifacts(root / "artifacts", make_tokenizer())
    tuned = add_adapter(
        make_model(seed=3), rank=2, alpha=4, dropout=0.0, target_modules="all-linear", seed=0
    )
    generator = torch.Generator().manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:  # they start as zeros, an adapter that changes nothing
            weight.data.normal_(0, 0.3, generator=generator)
    manifest = read_json(layout.train / "manifest.json", made_by="")
    write_training(
        layout.train,
        model=tuned,
        rounds=[json.loads(line) for line in (layout.train / "rounds.jsonl").open()],
        samples=pd.read_parquet(layout.train / "selection.parquet").to_dict("records"),
        manifest={**manifest, "model_sha256": model.sha256},
    )
    return layout, model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_toy(tmp_path_factory.mktemp("trained"))


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits.float()


def tuned_logits(layout, model) -> torch.Tensor:
    """Return what peft makes of the adapter that the train stage wrote."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32)
    return logits(PeftModel.from_pretrained(base, str(layout.train / "adapter")).eval())


def test_the_merged_model_loads_as_any_other_and_gives_the_adapters_logits(trained, tmp_path):
    from transformers import AutoModelForCausalLM

    layout, model = trained
    summary = export_merged(layout, tmp_path / "out", model, trust_remote_code=False)
    assert summary == f"{model.name} with the adapter merged in, float32, in {tmp_path / 'out'}"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    expected = tuned_logits(layout, model)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-5, atol=1e-5)
    untuned = AutoModelForCausalLM.from_pretrained(model.path)
    assert (logits(untuned) - expected).abs().max() > 0.1


def test_all_but_the_weights_are_the_base_models_own_files(trained, tmp_path):
    layout, model = trained
    export_merged(layout, tmp_path / "out", model, trust_remote_code=False)
    for file in model.path.iterdir():
        same = (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
        assert same is (file.suffix != ".safetensors"), file.name
    own = {"README.md", "lead_export.json"}
    assert {f.name for f in (tmp_path / "out").iterdir()} == own | {
        f.name for f in model.path.iterdir()
    }
    assert all(f.stat().st_mode & 0o777 == 0o644 for f in (tmp_path / "out").iterdir())


def test_sums_are_taken_in_float32_and_stored_as_the_base_models_weights_are(tmp_path):
    layout, model = train_toy(tmp_path, dtype=torch.bfloat16)
    assert stored_dtype(model) == "bfloat16"
    export_merged(layout, tmp_path / "out", model, trust_remote_code=False)
    merged = load_file(tmp_path / "out" / "model.safetensors")
    base = load_file(model.path / "model.safetensors")
    adapter = load_file(layout.train / "adapter" / "adapter_model.safetensors")
    name = "model.layers.1.mlp.up_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
    expected = (base[f"{name}.weight"].float() + (4 / 2) * (b @ a)).to(torch.bfloat16)
    torch.testing.assert_close(merged[f"{name}.weight"], expected, rtol=0, atol=0)
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    assert set(merged) == set(base)


def test_the_adapter_finds_its_base_model_and_brings_its_tokenizer(trained, tmp_path):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    layout, model = trained
    summary = export_adapter(layout, tmp_path / "out", model)
    assert summary == f"adapter over {model.path} in {tmp_path / 'out'}"
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(logits(loaded), tuned_logits(layout, model), rtol=0, atol=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == make_tokenizer().chat_template
    assert not list((tmp_path / "out").glob("config.json")), "it would look like a whole model"


def test_both_cards_carry_selector_seed_hashes_and_cost(trained, tmp_path):
    layout, model = trained
    export_adapter(layout, tmp_path / "adapter", model)
    export_merged(layout, tmp_path / "merged", model, trust_remote_code=False)
    manifest = read_json(layout.train / "manifest.json", made_by="")
    for name in ("adapter", "merged"):
        card = (tmp_path / name / "README.md").read_text()
        assert "| selector | lead |" in card
        assert "| seed | 0 |" in card
        assert "| training | 32 |" in card
        for key in ("model_sha256", "pool_sha256", "selection_sha256", "adapter_sha256"):
            assert manifest[key] in card
            assert (
                read_json(tmp_path / name / "lead_export.json", made_by="")["provenance"][key]
                == manifest[key]
            )
    assert "stored in float32, the type of the base" in card


def test_a_hub_model_is_named_by_its_id_and_commit():
    hub = ResolvedModel("owner/name", Path("cache/abc"), "abc", "0" * 64)
    assert base_reference(hub) == ("owner/name", "abc")


def test_a_card_names_a_hub_base_model_as_the_hub_reads_it(trained):
    from lead_core.export_card import adapter_card, provenance

    facts = provenance(read_json(trained[0].train / "manifest.json", made_by=""))
    hub = ResolvedModel("owner/name", Path("cache/abc"), "abc", "0" * 64)
    card = adapter_card(facts, hub, "owner/name")
    assert card.startswith("---\nbase_model: owner/name\nlibrary_name: peft\n")
    assert "one machine" not in card


def test_another_model_or_adapter_than_the_trained_one_is_refused(trained, tmp_path):
    layout, model = trained
    other = ResolvedModel(model.name, model.path, None, "0" * 64)
    for export in (
        lambda: export_adapter(layout, tmp_path / "out", other),
        lambda: export_merged(layout, tmp_path / "out", other, trust_remote_code=False),
    ):
        with pytest.raises(LeadError, match=r"the adapter was made from another input .* repro tr"):
            export()
    shutil.copytree(layout.pool.parent, tmp_path / "artifacts")
    copy = Layout.below(tmp_path / "artifacts")
    with (copy.train / "adapter/adapter_config.json").open("a") as stream:
        stream.write("\n")
    with pytest.raises(LeadError, match="adapter was made from another input"):
        export_adapter(copy, tmp_path / "out", model)
    shutil.rmtree(copy.train / "adapter")
    with pytest.raises(LeadError, match=r"adapter is not there; run `dvc repro train` first"):
        export_adapter(copy, tmp_path / "out", model)
    assert not (tmp_path / "out").exists()


def test_quantised_weights_are_refused_before_anything_is_loaded(trained, tmp_path):
    layout, model = trained
    folder = tmp_path / "quantised"
    shutil.copytree(model.path, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: t.to(torch.int8) for name, t in weights.items()}, folder / "model.safetensors")
    quantised = resolve_model(str(folder), None)
    shutil.copytree(layout.pool.parent, tmp_path / "artifacts")
    copy = Layout.below(tmp_path / "artifacts")
    manifest = read_json(copy.train / "manifest.json", made_by="")
    write_json(copy.train / "manifest.json", {**manifest, "model_sha256": quantised.sha256})
    with pytest.raises(LeadError, match="stored as I8, an adapter merges into F32, BF16, F16 only"):
        export_merged(copy, tmp_path / "out", quantised, trust_remote_code=False)


def test_weights_in_several_files_become_whatever_is_needed(trained, tmp_path):
    """A stale index of the base model's shards would hide the merged weights."""
    layout, _ = trained
    sharded = tmp_path / "sharded"
    make_model(seed=3).save_pretrained(sharded, max_shard_size="10KB")
    make_tokenizer().save_pretrained(sharded)
    assert (sharded / "model.safetensors.index.json").is_file()
    resolved = resolve_model(str(sharded), None)
    shutil.copytree(layout.pool.parent, tmp_path / "artifacts")
    copy = Layout.below(tmp_path / "artifacts")
    manifest = read_json(copy.train / "manifest.json", made_by="")
    write_json(copy.train / "manifest.json", {**manifest, "model_sha256": resolved.sha256})
    export_merged(copy, tmp_path / "out", resolved, trust_remote_code=False)
    assert [f.name for f in sorted((tmp_path / "out").glob("*.safetensors*"))] == [
        "model.safetensors"
    ]
    assert load_tokenizer(resolve_model(str(tmp_path / "out"), None), trust_remote_code=False)


TASK = """\
task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: DOCUMENTS
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
- metric: acc
"""


@pytest.mark.slow
def test_lm_evals_own_command_line_gives_merged_model_and_adapter_the_same_answers(
    trained, tmp_path
):
    layout, model = trained
    export_merged(layout, tmp_path / "merged", model, trust_remote_code=False)
    export_adapter(layout, tmp_path / "adapter", model)
    documents = [
        {"q": f"{i} + {i} =", "choices": [f"{2 * i}", f"{i}", "none"], "answer": 0}
        for i in range(6)
    ]
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    (tasks / "tiny.yaml").write_text(TASK.replace("DOCUMENTS", str(tasks / "docs.jsonl")))
    answers = [
        lm_eval_answers(tmp_path / name, arguments, tasks)
        for name, arguments in {
            "of-merged": f"pretrained={tmp_path / 'merged'},dtype=auto",
            "of-adapter": f"pretrained={model.path},peft={tmp_path / 'adapter'}",
        }.items()
    ]
    assert answers[0] == pytest.approx(answers[1], abs=1e-3)


def lm_eval_answers(out: Path, model_arguments: str, tasks: Path) -> list[float]:
    """Run `lm_eval` outside of our code and return the log-likelihood of every choice."""
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", model_arguments]
    command += ["--tasks", "tiny_choice", "--include_path", str(tasks), "--device", "cpu"]
    command += ["--batch_size", "1", "--log_samples", "--output_path", str(out)]
    done = subprocess.run(command, cwd=tasks, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    samples = next(out.rglob("samples_tiny_choice_*.jsonl"))
    rows = sorted(map(json.loads, samples.open()), key=lambda row: row["doc_id"])
    return [float(choice[0]) for row in rows for choice in row["filtered_resps"]]

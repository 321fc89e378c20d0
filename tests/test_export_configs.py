import json
from dataclasses import replace

import pytest
import yaml
from toy_artifacts import RECIPE

from lead_core.export_configs import micro_batch_size, trainer_files
from lead_core.export_forms import Form


def settings_of(name, recipe=RECIPE, form=Form.MESSAGES):
    return yaml.safe_load(trainer_files(recipe, form, "train.jsonl")[0][name])


@pytest.mark.parametrize(
    ("batch", "max_tokens", "limit", "size"),
    [(16, 192, 1024, 4), (16, 64, 1024, 16), (16, 2048, 1024, 1), (6, 100, 350, 3), (1, 10, 16, 1)],
)
def test_a_micro_batch_divides_the_batch_and_fits_the_memory_that_training_had(
    batch, max_tokens, limit, size
):
    assert micro_batch_size(batch, max_tokens, limit) == size


@pytest.mark.parametrize("name", ["llamafactory.yaml", "trl.yaml"])
def test_numbers_come_from_the_recipe_in_transformers_own_terms(name):
    settings = settings_of(name)
    assert settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] == 16
    assert settings["learning_rate"] == 2e-5  # a number: YAML reads 2e-05 as text
    assert settings["num_train_epochs"] == 1.5
    assert settings["max_grad_norm"] == 0.0
    assert settings["lora_alpha"] == 16
    assert settings["lora_dropout"] == 0.05
    assert (settings["seed"], settings["bf16"]) == (7, True)
    assert (settings["model_name_or_path"], settings["model_revision"]) == ("owner/model", "abc")


def test_transformers_itself_takes_the_shared_settings(tmp_path):
    from dataclasses import fields

    from transformers import TrainingArguments

    shared = settings_of("trl.yaml", replace(RECIPE, bf16=False))
    known = {field.name for field in fields(TrainingArguments)}
    taken = {name: value for name, value in shared.items() if name in known}
    arguments = TrainingArguments(**{**taken, "output_dir": str(tmp_path)})
    assert arguments.learning_rate == 2e-5
    assert arguments.lr_scheduler_type == "constant"
    assert set(shared) - known == {
        "model_name_or_path",
        "model_revision",
        "trust_remote_code",
        "datasets",
        "max_length",
        "use_peft",
        "lora_r",
        "lora_alpha",
        "lora_dropout",
        "lora_target_modules",
    }


def test_each_tool_names_the_adapted_modules_its_own_way():
    assert settings_of("llamafactory.yaml")["lora_target"] == "all"
    assert settings_of("trl.yaml")["lora_target_modules"] == ["all-linear"]
    assert settings_of("axolotl.yaml")["lora_target_linear"] is True
    named = replace(RECIPE, target_modules=("q_proj", "v_proj"))
    assert settings_of("llamafactory.yaml", named)["lora_target"] == "q_proj,v_proj"
    assert settings_of("trl.yaml", named)["lora_target_modules"] == ["q_proj", "v_proj"]
    assert settings_of("axolotl.yaml", named)["lora_target_modules"] == ["q_proj", "v_proj"]


def test_the_files_read_the_form_that_lies_beside_them():
    def entry(form, file):
        return json.loads(trainer_files(RECIPE, form, file)[0]["dataset_info.json"])["lead"]

    assert entry(Form.ALPACA, "train.jsonl")["columns"]["history"] == "history"
    assert entry(Form.SHAREGPT, "train.jsonl")["columns"] == {"messages": "conversations"}
    assert entry(Form.DATASET, "train.parquet")["file_name"] == "train.parquet"
    axolotl = settings_of("axolotl.yaml", form=Form.SHAREGPT)["datasets"][0]
    assert axolotl["message_property_mappings"] == {"role": "from", "content": "value"}
    assert settings_of("axolotl.yaml", form=Form.DATASET)["datasets"][0]["ds_type"] == "parquet"


def test_no_tool_cuts_the_longest_record():
    """Templates put something behind the last turn that data.max_tokens does not count."""
    assert settings_of("llamafactory.yaml")["cutoff_len"] > RECIPE.max_tokens
    assert settings_of("trl.yaml")["max_length"] > RECIPE.max_tokens
    assert settings_of("axolotl.yaml")["sequence_len"] > RECIPE.max_tokens


def test_a_tool_that_would_train_on_something_else_gets_no_file_and_the_reason():
    files, absent = trainer_files(RECIPE, Form.ALPACA, "train.jsonl")
    assert "axolotl.yaml" not in files
    assert absent[0].startswith("axolotl: its Alpaca type replaces the model's chat template")
    files, absent = trainer_files(
        replace(RECIPE, target_modules=r".*\.q_proj"), Form.MESSAGES, "train.jsonl"
    )
    assert set(files) == {"trl.yaml", "axolotl.yaml"}
    assert absent == [
        "LLaMA-Factory: train.lora.target_modules is a pattern, it takes all-linear or names"
    ]
    files, absent = trainer_files(replace(RECIPE, alpha=0.5), Form.MESSAGES, "train.jsonl")
    assert files == {}
    assert "whole numbers as train.lora.alpha, not 0.5" in absent[0]


def test_the_head_of_each_file_says_how_to_run_it():
    files, _ = trainer_files(RECIPE, Form.MESSAGES, "train.jsonl")
    for name, command in {
        "llamafactory.yaml": "llamafactory-cli train llamafactory.yaml",
        "trl.yaml": "trl sft --config trl.yaml",
        "axolotl.yaml": "axolotl train axolotl.yaml",
    }.items():
        head = files[name].splitlines()[:5]
        assert f"#     {command}" in head
        assert any("LEAD's slow decay" in line for line in head)
    constant, _ = trainer_files(replace(RECIPE, decays=False), Form.MESSAGES, "train.jsonl")
    assert "decay is no" not in constant["trl.yaml"]

"""Presets hold together, apply as `--set` does, and can be tried without a network."""

import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from conftest import make_tokenizer
from toy_workspace import make_workspace

from flows.cli import main
from flows.params_file import edit_params
from flows.presets import preset_overrides
from lead_core.chat import assistant_header, encode, render
from lead_core.comparison.identity import NEUTRAL, comparison_id
from lead_core.errors import LeadError
from lead_core.params import load_params

REPOSITORY = Path(__file__).parents[1]
CONFIRMING = [
    "confirm-clean",
    "confirm-docstrings",
    "confirm-mixed",
    "confirm-reference",
    "confirm-sharegpt",
]
SHIPPED = [
    "benchmarks",
    *CONFIRMING,
    "confirm-gpu",
    "paper",
    "reference",
]  # a preset of one's own may be partial
PRESETS = sorted(path.stem for path in (REPOSITORY / "presets").glob("*.yaml"))


@pytest.fixture
def workspace(tmp_path):
    """Our own params.yaml and presets, in a folder of the test's own."""
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    shutil.copytree(REPOSITORY / "presets", tmp_path / "presets")
    return tmp_path


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_applied_whole_and_keeps_the_comments(workspace, name):
    path = workspace / "params.yaml"
    comments = [line for line in path.read_text().splitlines() if line.lstrip().startswith("#")]
    overrides = preset_overrides(workspace, name)
    assert edit_params(path, overrides)
    assert edit_params(path, preset_overrides(workspace, name)) == []
    assert load_params(path) == load_params(REPOSITORY / "params.yaml", overrides)
    applied = dict(leaves(yaml.safe_load(path.read_text())))
    wanted = dict(leaves(yaml.safe_load((workspace / f"presets/{name}.yaml").read_text())))
    assert {key: applied[key] for key in wanted} == wanted
    assert all(line in path.read_text().splitlines() for line in comments)


@pytest.mark.parametrize(("before", "name"), list(pairwise([*SHIPPED, SHIPPED[0]])))
def test_a_preset_gives_the_same_parameters_whatever_preset_came_before(workspace, before, name):
    path = workspace / "params.yaml"
    edit_params(path, preset_overrides(workspace, before))
    edit_params(path, preset_overrides(workspace, name))
    alone = load_params(REPOSITORY / "params.yaml", preset_overrides(REPOSITORY, name))
    assert load_params(path) == alone


@pytest.mark.parametrize("name", SHIPPED)
def test_a_preset_sets_every_key_that_decides_a_number(name):
    """So that no shipped default shows through, and a change of one makes no other experiment."""
    theirs = {"compare", "report", "tracking"}  # what is compared and recorded, and where to
    params = load_params(REPOSITORY / "params.yaml").model_dump(mode="json", exclude=theirs)
    allowed = NEUTRAL | {"evaluate.run_generated_code"}  # a permission is the user's to give
    allowed |= {key for key, _ in leaves(params) if key.startswith("grow.max_")}  # without effect
    text = (REPOSITORY / f"presets/{name}.yaml").read_text()
    told = dict(leaves(yaml.safe_load(text)))

    def is_told(key):
        """Whether the preset has the key, a section in its place, or none where it lies."""
        return any(f"{key}.".startswith(f"{t}.") or t.startswith(f"{key}.") for t in told)

    assert [key for key, _ in leaves(params) if key not in allowed and not is_told(key)] == []


@pytest.mark.parametrize("name", ["benchmarks", "reference"])
def test_the_reference_benchmark_is_the_one_whose_cells_are_kept(name):
    """Change this identity only on purpose: every kept cell of the benchmark is retired with it.

    `benchmarks` asks more of the models that are trained there: its runs are of the same comparison.
    """
    overrides = [*preset_overrides(REPOSITORY, name), "data.local_copies=../shared/data"]
    params = load_params(REPOSITORY / "params.yaml", overrides)
    inputs = {
        "pool_sha256": "53e3347e14c18bf55c22176b675822e6593ba80a00da51f54aadcbae34626958",
        "heldout_sha256": "6d9d14ee96299ee21b4ee0102d29872a21d785a9a26a156f4fda79803912581f",
        "model_sha256": "39a8f9fe079ddbbaeeb83717ca54f83e3eaf14084edf75ec6c4f4fbaa5e893ef",
    }
    assert comparison_id(params.model_dump(mode="json"), inputs, "bf16") == "7c56d46663ea26d8"


def test_every_value_of_the_paper_preset_says_where_it_is_from():
    text = (REPOSITORY / "presets/paper.yaml").read_text()
    values = re.findall(r"^ *\w+: [^#\n].*$", text, flags=re.MULTILINE)
    assert len(values) > 30
    assert [line for line in values if not re.search(r" # \((paper|code|ours)\)", line)] == []


def test_the_paper_preset_holds_the_authors_numbers():
    params = load_params(REPOSITORY / "params.yaml", preset_overrides(REPOSITORY, "paper"))
    lora, train, select, warmup = (
        params.train.lora,
        params.train,
        params.select,
        params.score.warmup,
    )
    assert (lora.rank, lora.alpha, lora.dropout, len(lora.target_modules)) == (64, 16, 0.1, 7)
    assert (train.learning_rate, train.decay_factor, train.decay_steps) == (2e-5, 0.995, 8)
    assert (train.effective_batch, params.data.max_tokens) == (16, 3080)
    assert (warmup.samples, warmup.rank, warmup.epochs) == (6000, 32, 4)
    assert (select.budget_fraction, select.round_fraction, select.max_uses) == (0.025, 0.015, 4)
    assert (select.min_round_samples, select.visits_per_budget) == (1, None)
    assert params.cluster.difficulty_clusters == 7
    assert params.bandit.exploration == params.bandit.step_size == params.utility.smoothing == 0.1
    assert (params.utility.loss_change, params.utility.round_loss_change) == ("paper", "whole")
    assert len({source.name for source in params.data.sources}) == 8


def test_the_benchmarks_are_asked_as_the_published_table_says():
    """513 questions of MMLU, 100 of GSM8K, all of HumanEval, and no record of the pool among them."""
    params = load_params(REPOSITORY / "params.yaml", preset_overrides(REPOSITORY, "benchmarks"))
    tasks = [(entry.task, entry.num_fewshot, entry.limit) for entry in params.evaluate.tasks]
    assert tasks == [
        ("lead_heldout", None, None),
        ("lead_heldout_choice", None, None),
        ("mmlu", 5, 9),
        ("gsm8k_cot", None, 100),
        ("humaneval", None, None),
    ]
    assert params.evaluate.run_generated_code is False
    check = params.data.decontaminate
    assert ([entry.uri for entry in check.against], check.action) == (["auto"], "remove")


def test_set_has_the_last_word(workspace):
    path = workspace / "params.yaml"
    edit_params(path, [*preset_overrides(workspace, "paper"), "seed=7", "score.warmup.epochs=1"])
    params = load_params(path)
    assert (params.seed, params.score.warmup.epochs, params.train.lora.rank) == (7, 1, 64)
    edit_params(path, [*preset_overrides(workspace, "paper"), "score.warmup=null"])
    params = load_params(path)
    assert (params.seed, params.score.warmup) == (42, None)


def test_an_unknown_preset_is_refused_with_those_that_there_are(workspace):
    (workspace / "presets/small.yaml").write_text("seed: 1\n")
    with pytest.raises(LeadError, match=r"^--preset papr: no file presets/papr\.yaml; there is "):
        preset_overrides(workspace, "papr")
    with pytest.raises(LeadError, match=r"paper, reference, small$"):
        preset_overrides(workspace, "../params")


def test_a_kind_of_dirt_that_a_preset_does_not_name_is_not_planted(workspace):
    path = workspace / "params.yaml"
    edit_params(path, preset_overrides(workspace, "confirm-mixed"))
    edit_params(path, preset_overrides(workspace, "reference"))
    dirt = load_params(path).data.dirt.model_dump()
    assert {kind: share for kind, share in dirt.items() if share} == {
        "exchanged_fraction": 0.12,
        "near_duplicate_fraction": 0.03,
    }


def test_confirming_pools_share_all_that_trains_with_the_reference_benchmark():
    """Data, budget, seeds and one learning rate are particular; no seed is one of the reference's."""

    def settings(name):
        load = load_params(REPOSITORY / "params.yaml", preset_overrides(REPOSITORY, name))
        parts = load.model_dump(
            exclude={"data": True, "compare": True, "select": {"budget_samples"}}
        )
        parts["select"].pop("budget_fraction")
        parts["train"].pop("monitor_samples")
        parts.pop("seed")  # which records of the sources are taken
        return parts, load.compare

    reference, compared = settings("reference")
    reference["train"].pop("learning_rate")
    for name in CONFIRMING:
        confirming, compare = settings(name)
        assert confirming["train"].pop("learning_rate") == 1e-3
        assert confirming == reference
        assert compare.results == f"results/{name}"
        assert not set(compare.seeds) & set(compared.seeds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train: {lora: {rnak: 3}}",
            r"^presets/own\.yaml: params\.yaml has no key train\.lora\.rnak; see docs/parameters\.md$",
        ),
        ("own: 3", r"^presets/own\.yaml: params\.yaml has no key own; see"),
        ("- 3", r"^own\.yaml must hold a mapping of sections, got list$"),
    ],
)
def test_a_preset_that_does_not_fit_the_parameters_is_one_line(workspace, text, message):
    (workspace / "presets/own.yaml").write_text(text)
    with pytest.raises(LeadError, match=message):
        preset_overrides(workspace, "own")


def test_the_paper_preset_resolves_everything_and_writes_nothing(tmp_path, monkeypatch, capsys):
    """With lm-eval's own index, which takes a while to build."""
    folder = make_workspace(tmp_path)
    shutil.copytree(REPOSITORY / "presets", folder / "presets")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.chdir(folder)

    def run(*more):
        monkeypatch.setattr(sys, "argv", ["lead", "run", "--preset", "paper", "--dry-run", *more])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code or 0, *capsys.readouterr()

    code, out, err = run()
    assert (code, err) == (0, "")
    for expected in (
        "model     meta-llama/Llama-3.1-8B on the hub, revision main\n",
        "source    ultrachat: HuggingFaceH4/ultrachat_200k, split train_sft\n",
        "source    gsm8k: openai/gsm8k, config main, split train\n",
        "IFD of one warmed up: 6000 records x 4, LoRA rank 32, alpha 16, learning rate 2e-05",
        "select    lead: 2.5 % of the pool as distinct samples, until they are spent; 1.5 % of a",
        "train     LoRA rank 64, alpha 16, dropout 0.1 on q_proj, k_proj,",
        "learning rate 2e-05 x 0.995 every 8 steps, weight decay 0, no clipping, 16 samples",
        "evaluate  mmlu, a group of 57 tasks, data cais/mmlu\n",
        "evaluate  gsm8k_cot, a task, data openai/gsm8k\n",
        "evaluate  tydiqa_goldp, a tag of 9 tasks, data google-research-datasets/tydiqa\n",
        "download  meta-llama/Llama-3.1-8B, WizardLMTeam/WizardLM_evol_instruct_V2_196k, ",
        "\nnote: humaneval runs code that the model writes, and the evaluate stage refuses it",
    ):
        assert expected in out

    code, out, err = run(
        *("--set", "model.name=./gone", "--set", "evaluate.tasks=[mmluu]"),
        *("--set", "data.sources=['hf://no id/x?split=a', gone.jsonl, data.jsonl]"),
    )
    assert (code, out) == (2, "")
    starts = ("model.name: no folder ./gone", "hf://no id/x?split=a", "gone.jsonl: no such file")
    starts += (
        "params.yaml: evaluate.tasks names 'mmluu', which is no lm-eval task; did you mean mmlu",
    )
    lines = err.splitlines()
    assert len(lines) == len(starts)
    assert all(line.startswith(f"error: {text}") for line, text in zip(lines, starts, strict=True))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_papers_template_marks_turns_as_theirs_and_the_response_can_be_told_apart():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (REPOSITORY / "presets/tulu_chat_template.jinja").read_text()
    system = [{"role": "system", "content": "Be brief."}]
    turns = [
        {"role": "user", "content": " Hi? "},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Bye."},
    ]
    assert render(tokenizer, system + turns) == (
        "<s><|system|>\nBe brief.\n<|user|>\nHi?\n<|assistant|>\nHello.</s>\n"
        "<|user|>\nAnd now?\n<|assistant|>\n",
        "Bye.</s>",
    )
    assert tokenizer.decode(assistant_header(tokenizer)) == "<|assistant|>\n"
    encoded = encode(tokenizer, turns[:2])
    assert tokenizer.decode(encoded.input_ids[encoded.response_start :]) == "Hello.</s>"

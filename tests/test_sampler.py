"""LeadSampler in the loops of docs/library.md decides what the pipeline's own loop decides."""

import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model, make_tokenizer
from test_rounds import UTILITY, make_loop
from toy_artifacts import write_artifacts

import lead_core
from lead_core import LeadSampler, LeadSettings, PoolView
from lead_core.errors import LeadError
from lead_core.model import add_adapter
from lead_core.params import flatten, load_params
from lead_core.round_rule import Limits
from lead_core.selectors import SELECTORS, SelectionSettings

ROOT = Path(__file__).parents[1]
READING, LOOP, CHECKPOINTS, TRAINER = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL
)
RATE = 5e-3
SETTINGS = LeadSettings(
    selector="lead",
    effective_batch=4,
    budget_samples=24,
    visits_per_budget=1.25,
    round_fraction=0.3,
    min_round_samples=6,  # rounds of two steps and more, the last of some partial
    max_uses=3,
    step_size=0.5,
    drift="cluster",
    sketch_size=256,
)


def pipeline(folder, settings=SETTINGS):
    """Return the pipeline's loop with `settings` on the toy pool, its reports and its last state."""
    loop, reports = make_loop(
        folder,
        selector=settings.selector,
        settings=SelectionSettings(0.1, 0.5, 0.3, 6, 3, 0.5),
        utility=replace(UTILITY, drift=True),
        limits=Limits(24, 30, None),
    )
    loop.trainer.settings = replace(loop.trainer.settings, learning_rate=RATE, decay_factor=1.0)
    return loop, reports, loop.run()


def own_model():
    torch.set_num_threads(1)
    model = add_adapter(
        make_model(), rank=2, alpha=4, dropout=0.0, target_modules="all-linear", seed=0
    )
    return model.train()


def own_loop(loop, settings=SETTINGS):
    """Return the names that the loop of the page needs, on the pool of `loop`."""
    model = own_model()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    names = {"model": model, "optimizer": optimizer, "schedule": schedule}
    return {**names, "view": loop.pool.view, "pool": loop.pool, "settings": settings}


def assert_same_decisions(sampler, reports, last):
    state = sampler.state
    assert (state.round, state.visits) == (last.round, last.visits) == (len(reports), 30)
    np.testing.assert_array_equal(state.selection.uses, last.selection.uses)
    np.testing.assert_allclose(state.selection.utility, last.selection.utility, atol=1e-4)
    np.testing.assert_allclose(
        state.selection.bandit.log_weights, last.selection.bandit.log_weights, atol=1e-3
    )


@pytest.mark.parametrize("selector", ["informative", "lead", "stratified"])
def test_the_pages_pytorch_loop_decides_as_the_pipeline_does(tmp_path, selector):
    settings = replace(SETTINGS, selector=selector)
    loop, reports, last = pipeline(tmp_path, settings)
    names, seen = own_loop(loop, settings), []
    exec(LOOP.replace("in sampler:", "in watched(sampler):"), names | watching(seen, names))
    assert seen == picked(reports)
    assert_same_decisions(names["sampler"], reports, last)


def watching(seen, names):
    def watched(sampler):
        names["sampler"] = sampler
        for indices in sampler:
            seen.append(indices)
            yield indices

    return {"watched": watched}


def picked(reports):
    """Return the samples of every step of the pipeline, as positions."""
    steps: dict[int, list[int]] = {}
    for report in reports:
        for row in report.samples:
            steps.setdefault(row["step"], []).append(int(row["id"], 16))
    return list(steps.values())


def test_the_pages_trainer_decides_as_the_pipeline_does(tmp_path):
    from transformers import DataCollatorForSeq2Seq, TrainingArguments

    loop, reports, last = pipeline(tmp_path)
    names = {"cross_entropy": torch.nn.functional.cross_entropy, "LeadSampler": LeadSampler}
    exec(TRAINER, names)
    model, tokenizer = own_model(), make_tokenizer()
    arguments = TrainingArguments(
        tmp_path / "out",
        max_steps=1000,
        gradient_accumulation_steps=1,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = names["LeadTrainer"](
        model,
        arguments,
        train_dataset=[labelled(sample) for sample in loop.pool.encoded(range(48))],
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    trainer.sampler = LeadSampler(loop.pool.view, model.parameters(), SETTINGS)
    trainer.train()
    assert trainer.state.global_step == sum(report.round["steps"] for report in reports)
    assert list(trainer.sampler) == []
    assert_same_decisions(trainer.sampler, reports, last)


def labelled(sample):
    ids, start = list(sample.input_ids), sample.response_start
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": [-100] * start + ids[start:],
    }


@pytest.mark.parametrize("stop_after", [1, 2, 5])
def test_a_sampler_that_was_saved_and_loaded_goes_on_as_if_never_stopped(
    tmp_path, monkeypatch, stop_after
):
    monkeypatch.chdir(tmp_path)
    parameter = torch.nn.Parameter(torch.zeros(5))
    whole = train(LeadSampler(toy_view(), [parameter], SETTINGS), parameter)
    parameter = torch.nn.Parameter(torch.zeros(5))
    sampler = LeadSampler(toy_view(), [parameter], SETTINGS)
    first = train(sampler, parameter, stop_after)
    state = sampler.state_dict()
    exec(CHECKPOINTS, {"torch": torch, "sampler": sampler})
    again = LeadSampler(toy_view(), [parameter], SETTINGS)
    again.load_state_dict(torch.load("sampler.pt", weights_only=True))
    assert first + train(again, parameter) == whole
    train(sampler, parameter)
    assert torch.equal(state["arrays"]["uses"], torch.load("sampler.pt")["arrays"]["uses"])


def toy_view(n=48):
    rng = np.random.default_rng(3)
    difficulty = rng.integers(-1, 3, n).astype(np.int32)
    task = rng.integers(0, 2, n).astype(np.int32)
    return PoolView(difficulty, task, rng.uniform(1, 4, n), np.full(n, 0.5), np.ones(n, np.int32))


def train(sampler, parameter, n_steps=None):
    """Take `n_steps` (None: all) on a made-up loss and return the samples of each."""
    seen = []
    for indices in sampler:
        rows = torch.tensor(indices)[:, None] % 7
        losses = ((parameter - rows) ** 2).mean(dim=1)
        losses.mean().backward()
        sampler.observe(losses, 0.1)
        with torch.no_grad():
            parameter -= 0.1 * parameter.grad
        parameter.grad = None
        seen.append(indices)
        if len(seen) == n_steps:
            break
    return seen


def test_what_the_stages_wrote_is_read_by_the_page(tmp_path, monkeypatch):
    write_artifacts(tmp_path / "artifacts", make_tokenizer())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(READING, names)
    assert len(names["view"].loss) == len(names["pool"])
    assert names["view"].n_arms == 3


def test_the_defaults_are_those_of_params_yaml():
    values = flatten(load_params(ROOT / "params.yaml", []))
    sections = ("", "select", "bandit", "utility")
    split = {key.rpartition("."): value for key, value in values.items()}
    known = {name: value for (section, _, name), value in split.items() if section in sections}
    given = LeadSettings(effective_batch=1, budget_samples=1)
    for field in fields(LeadSettings):
        if field.name not in ("effective_batch", "budget_samples"):
            assert getattr(given, field.name) == known[field.name], field.name


def test_the_sampler_knows_all_that_a_selector_may_fix():
    view, parameter = toy_view(), torch.nn.Parameter(torch.zeros(1))
    for name in set(SELECTORS) - {"iterative"}:
        LeadSampler(view, [parameter], replace(SETTINGS, selector=name))
    with pytest.raises(LeadError, match="iterative forwards the pool before every round"):
        LeadSampler(view, [parameter], replace(SETTINGS, selector="iterative"))


def test_scores_of_another_model_are_refused_by_a_rule_that_starts_from_the_models_own():
    view, parameter = replace(toy_view(), own_losses=False), torch.nn.Parameter(torch.zeros(1))
    LeadSampler(view, [parameter], replace(SETTINGS, selector="informative"))
    with pytest.raises(
        LeadError, match=r"^LeadSampler: another model made the scores, but lead starts from the tr"
    ):
        LeadSampler(view, [parameter], replace(SETTINGS, selector="lead"))


def test_misuse_is_named():
    view, parameter = toy_view(), torch.nn.Parameter(torch.zeros(1))
    sampler = LeadSampler(view, [parameter], SETTINGS)
    with pytest.raises(LeadError, match="once for each list of samples"):
        sampler.observe(torch.zeros(4), 0.1)
    steps = iter(sampler)
    batch = next(steps)
    with pytest.raises(LeadError, match=rf"losses of shape \[9\], expected \[{len(batch)}\]"):
        sampler.observe(torch.zeros(9), 0.1)
    with pytest.raises(LeadError, match="not a finite number"):
        sampler.observe(torch.full((len(batch),), float("nan")), 0.1)
    with pytest.raises(LeadError, match="fetch no batch ahead"):
        next(steps)
    with pytest.raises(LeadError, match="was made with pool_samples 48, this sampler has 20"):
        LeadSampler(toy_view(20), [parameter], replace(SETTINGS, budget_samples=9)).load_state_dict(
            sampler.state_dict()
        )
    with pytest.raises(LeadError, match="between 1 and 48, the pool's size, got 49"):
        LeadSampler(view, [parameter], replace(SETTINGS, budget_samples=49))
    with pytest.raises(LeadError, match="differ in length"):
        LeadSampler(replace(view, task=view.task[:-1]), [parameter], SETTINGS)
    with pytest.raises(LeadError, match="none of the parameters is trained"):
        LeadSampler(view, [torch.zeros(1)], SETTINGS)


def test_the_library_is_imported_when_used_and_brings_numpy_and_torch_alone():
    code = (
        "import sys, lead_core; assert 'torch' not in sys.modules; lead_core.LeadSampler;"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert "torch" in loaded
    assert not {"transformers", "accelerate", "pandas", "pydantic", "mlflow"} & set(loaded)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        lead_core.Nothing  # noqa: B018
    for name in lead_core.__all__:
        assert getattr(lead_core, name).__name__ == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"task": np.array([0, 1, -1, 0])},
            r"PoolView.task must be 0 or more, got -1 at 2; give noise",
        ),
        (
            {"difficulty": np.array([0, 0, 1, -2])},
            r"PoolView.difficulty must be -1 or more, got -2",
        ),
        ({"task": np.zeros(4)}, r"PoolView.task must be integers, got float64"),
        ({"loss": np.array([1.0, np.nan, 1.0, 1.0])}, r"PoolView.loss at 1 is not finite; set its"),
        (
            {"ifd": np.array([0.5, 0.5, np.nan, 0.5])},
            r"PoolView.ifd must be above 0 and below 1, got nan at 2; set its difficulty to -1",
        ),
        (
            {"response_tokens": np.array([3, 0, 1, 1])},
            r"PoolView.response_tokens must be 1 or more, got 0 at 1",
        ),
    ],
)
def test_labels_of_ones_own_that_cannot_be_are_refused(change, message):
    values = {"difficulty": np.array([0, 0, 1, 1]), "task": np.array([0, 1, 0, 0])}
    values |= {"loss": np.ones(4), "ifd": np.full(4, 0.5), "response_tokens": np.ones(4, np.int32)}
    view = PoolView(**{**values, **change})
    with pytest.raises(LeadError, match=message):
        LeadSampler(view, own_model().parameters(), replace(SETTINGS, budget_samples=2))


def test_settings_that_cannot_be_are_refused_all_at_once():
    with pytest.raises(LeadError) as caught:
        replace(SETTINGS, loss_change="displacment", exploration=1.5, effective_batch=0)
    assert str(caught.value).splitlines() == [
        "LeadSettings: loss_change must be one of displacement, paper, none, got 'displacment'",
        "LeadSettings: exploration must be in (0, 1], got 1.5",
        "LeadSettings: effective_batch must be above 0, got 0",
    ]

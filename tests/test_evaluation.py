import json
import math

import pandas as pd
import pytest
import torch
from conftest import make_model, make_tokenizer
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from toy_artifacts import turn, write_records
from toy_evaluation import (
    BF16,
    CONVERSATIONS,
    FP32,
    load,
    run,
    tuned_model,
    write_pool,
    write_tasks,
)

from lead_core import evaluation
from lead_core.chat import encode
from lead_core.errors import LeadError
from lead_core.evaluation import evaluate, summarise
from lead_core.evaluation_index import TASKS
from lead_core.evaluation_model import HELDOUT, PipelineLM, stored_tokens
from lead_core.model import add_adapter, decoder_of


@pytest.fixture
def pool(tmp_path):
    torch.set_num_threads(1)
    return write_pool(tmp_path / "pool")


@pytest.fixture
def folder(tmp_path):
    return write_tasks(tmp_path)


def direct_loss(model, ids, start):
    """Mean cross-entropy of the response tokens ids[start:], one record at a time, in float64."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    targets = torch.tensor(ids[start:])
    return float(torch.nn.functional.cross_entropy(logits[start - 1 : -1], targets))


def test_both_losses_of_every_record_agree_with_direct_computation(pool, tmp_path, tiny_tokenizer):
    model = tuned_model()
    run(pool, tmp_path / "eval", model=model)
    frame = pd.read_parquet(tmp_path / "eval" / "heldout.parquet").set_index("id")
    assert len(frame) == len(CONVERSATIONS)
    for document in load([HELDOUT], pool).tasks[HELDOUT].eval_docs:
        ids, start = document["input_ids"], document["response_start"]
        assert ids[-1] == tiny_tokenizer.eos_token_id  # the end of the turn is to be learnt
        row = frame.loc[document["id"]]
        assert row["tuned_loss"] == pytest.approx(direct_loss(model, ids, start), abs=1e-5)
        with model.disable_adapter():
            assert row["base_loss"] == pytest.approx(direct_loss(model, ids, start), abs=1e-5)
        assert row["base_loss"] == pytest.approx(direct_loss(make_model(), ids, start), abs=1e-5)
        assert row["response_tokens"] == len(ids) - start


def test_documents_are_the_pools_tokens_and_its_chat_template(pool, tiny_tokenizer):
    task = load([HELDOUT], pool).tasks[HELDOUT]
    expected = {
        (tuple(e.input_ids), e.response_start)
        for e in (encode(tiny_tokenizer, messages) for _, messages in CONVERSATIONS)
    }
    documents = list(task.eval_docs)
    assert {(tuple(d["input_ids"]), d["response_start"]) for d in documents} == expected
    for document in documents:
        text = document["prompt"] + document["response"]
        assert tiny_tokenizer.decode(document["input_ids"]) == text
        assert text.startswith("<s>") and not text.startswith("<s><s>")
        assert task.doc_to_text(document) == document["prompt"]
        assert task.doc_to_target(document) == document["response"]


def test_lm_evals_own_tokens_would_differ_but_its_scores_of_ours_agree(pool, tiny_tokenizer):
    model = make_model()
    stock = HFLM(pretrained=model, tokenizer=tiny_tokenizer, batch_size=3)
    ours = PipelineLM(model, tiny_tokenizer, FP32, batch_size=3)
    requests = load([HELDOUT], pool).tasks[HELDOUT].instances
    pairs = [stored_tokens(request) for request in requests]
    for request, (prompt, response) in zip(requests, pairs, strict=True):
        moved = stock._encode_pair(*request.args)
        assert moved == (prompt[:-1], [prompt[-1], *response])  # the header's newline went over
    theirs = stock._loglikelihood_tokens([(("", ""), *pair) for pair in pairs], disable_tqdm=True)
    for expected, got in zip(theirs, ours.loglikelihood(requests), strict=True):
        assert got == (pytest.approx(expected[0], abs=1e-4), expected[1])


def test_metrics_are_means_over_records_and_sources_and_bits_per_byte(pool, tmp_path):
    results = run(pool, tmp_path / "eval")
    frame = pd.read_parquet(tmp_path / "eval" / "heldout.parquet")
    task = results["tasks"][HELDOUT]
    size = sum(len(messages[-1]["content"].encode()) for _, messages in CONVERSATIONS)
    for row in ("base", "tuned"):
        losses = frame[f"{row}_loss"]
        assert task[row]["loss"] == pytest.approx(losses.mean())
        by_source = losses.groupby(frame["source"]).mean()
        assert task[row]["loss_macro"] == pytest.approx(by_source.mean())
        bits = (losses * frame["response_tokens"]).sum() / math.log(2)
        assert task[row]["bits_per_byte"] == pytest.approx(bits / size)
        assert task[f"{row}_stderr"] == {"loss": pytest.approx(losses.sem())}
    assert task["n"] == len(CONVERSATIONS)


def test_the_headline_is_the_paired_difference_over_records_and_each_source_has_its_own(
    pool, tmp_path
):
    results = run(pool, tmp_path / "eval")
    frame = pd.read_parquet(tmp_path / "eval" / "heldout.parquet")
    headline = results["paired"]["lead_heldout/loss"]
    changes = frame["tuned_loss"] - frame["base_loss"]
    assert headline["difference"] == pytest.approx(changes.mean())
    assert headline["n"] == len(changes)
    reach = 2.364624 * changes.std() / len(changes) ** 0.5  # t(0.975; 7)
    assert (headline["low"], headline["high"]) == pytest.approx(
        (changes.mean() - reach, changes.mean() + reach), abs=1e-6
    )
    assert set(results["paired"]) == {
        "lead_heldout/loss",
        "lead_heldout/loss/plain",
        "lead_heldout/loss/edges",
    }
    plain = changes[frame["source"] == "plain"]
    assert results["paired"]["lead_heldout/loss/plain"]["difference"] == pytest.approx(plain.mean())


def test_every_record_is_forwarded_once_per_model_and_counted(pool, tmp_path, tiny_tokenizer):
    model = tuned_model()
    rows = []
    decoder_of(model).register_forward_pre_hook(
        lambda _m, _a, kwargs: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    results = run(pool, tmp_path / "eval", model=model)
    lengths = [len(encode(tiny_tokenizer, messages).input_ids) for _, messages in CONVERSATIONS]
    tokens = sum(length - 1 for length in lengths)  # the last token is only predicted
    expected = {"sequences": 2 * len(CONVERSATIONS), "tokens": 2 * tokens}
    assert results["forwards"] == expected
    assert rows[:2] == [1, 1]  # ResponseLoss tries how the head works on four made-up tokens
    assert sum(rows[2:]) == expected["sequences"]


def test_equal_inputs_give_equal_bytes_without_times_or_places(pool, tmp_path):
    run(pool, tmp_path / "first")
    run(pool, tmp_path / "second")
    for name in ("results.json", "heldout.parquet", "samples/lead_heldout.jsonl.gz"):
        first = (tmp_path / "first" / name).read_bytes()
        assert first == (tmp_path / "second" / name).read_bytes()
        assert str(tmp_path).encode() not in first
    results = json.loads((tmp_path / "first" / "results.json").read_text())
    assert results["inputs"] == {"model_sha256": "m" * 64, "adapter_sha256": "a" * 64}
    assert not {"date", "git_hash", "config"} & set(results)


def test_a_limit_takes_the_first_records(pool, tmp_path):
    results = run(pool, tmp_path / "eval", limit=3)
    frame = pd.read_parquet(tmp_path / "eval" / "heldout.parquet")
    assert results["tasks"][HELDOUT]["n"] == results["paired"]["lead_heldout/loss"]["n"] == 3
    whole = load([HELDOUT], pool).tasks[HELDOUT].eval_docs
    assert list(frame["id"]) == [document["id"] for document in whole][:3]
    assert results["forwards"]["sequences"] == 6


def test_bf16_changes_the_losses_a_little(pool, tmp_path):
    exact = run(pool, tmp_path / "exact")["paired"]["lead_heldout/loss"]["tuned"]
    rounded = run(pool, tmp_path / "rounded", runtime=BF16)["paired"]["lead_heldout/loss"]["tuned"]
    assert 0 < abs(exact - rounded) < 0.05


def test_the_summary_names_the_figures(pool, tmp_path):
    lines = summarise(run(pool, tmp_path / "eval")).splitlines()
    assert lines[0].startswith("lead_heldout/loss: base 5.")
    assert lines[0].endswith("over 8 records")
    assert lines[-1].startswith("16 forwards")


def test_other_tasks_and_groups_run_beside_ours(pool, folder, tmp_path, tiny_tokenizer):
    names = [HELDOUT, "sums", "sums_write"]
    results = run(pool, tmp_path / "eval", names=names, folders=(TASKS, folder))
    assert set(results["tasks"]) == {HELDOUT, "sums", "sums_choice", "sums_again", "sums_write"}
    assert results["tasks"]["sums"]["n"] == 12
    assert results["tasks"]["sums_choice"]["n"] == 6
    for name in ("sums", "sums_choice"):
        pair = results["paired"][f"{name}/acc"]
        assert pair["base"] == results["tasks"][name]["base"]["acc"]
        assert pair["tuned"] == results["tasks"][name]["tuned"]["acc"]
        assert pair["n"] == results["tasks"][name]["n"]
    assert results["tasks"]["sums_choice"]["base_stderr"].keys() == {"acc"}
    assert "sums_write/exact_match" in results["paired"]
    alone = run(pool, tmp_path / "alone")
    assert results["paired"]["lead_heldout/loss"] == alone["paired"]["lead_heldout/loss"]
    assert results["forwards"]["sequences"] > alone["forwards"]["sequences"] + 2 * 6


def test_without_our_task_there_is_no_table_of_records(pool, folder, tmp_path):
    run(pool, tmp_path / "eval", names=["sums_choice"], folders=(folder,))
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {"results.json", "samples"}


def test_a_metric_that_is_no_mean_over_records_is_not_paired(pool, tmp_path):
    results = run(pool, tmp_path / "eval")
    assert "bits_per_byte" in results["tasks"][HELDOUT]["base"]
    assert "lead_heldout/bits_per_byte" not in results["paired"]
    assert "lead_heldout/loss_macro" not in results["paired"]


def test_an_unknown_task_is_named_with_those_that_are_close(
    pool, folder, tiny_tokenizer, monkeypatch
):
    index = TaskManager(include_path=str(folder), include_defaults=False)
    monkeypatch.setattr(evaluation, "stock_tasks", lambda: index)
    with pytest.raises(
        LeadError, match=r"evaluate\.tasks names 'sum_choice', .* did you mean sums_choice"
    ):
        load(["sum_choice"], pool)
    with pytest.raises(LeadError, match="'qqqq', which is no lm-eval task; see `lm-eval ls tasks`"):
        load(["qqqq"], pool)


def test_a_task_whose_data_is_not_there_is_one_clear_line(pool, folder, tiny_tokenizer):
    text = (folder / "sums_choice.yaml").read_text().replace("sums.jsonl", "gone.jsonl")
    (folder / "sums_choice.yaml").write_text(text)
    with pytest.raises(LeadError, match=r"evaluate\.tasks: sums_choice does not load \(.*gone"):
        load(["sums_choice"], pool, folders=(folder,))


def test_a_task_that_runs_generated_code_without_the_sandbox_is_always_refused(
    pool, folder, tiny_tokenizer
):
    with (folder / "sums_write.yaml").open("a") as stream:
        stream.write("unsafe_code: true\n")
    for allowed in (False, True):
        with pytest.raises(
            LeadError, match=r"sums_write runs code that the model wrote, and not in our sandbox"
        ):
            load(["sums_write"], pool, run_generated_code=allowed, folders=(folder,))


def test_no_heldout_file_is_one_clear_line(tmp_path, tiny_tokenizer):
    with pytest.raises(LeadError, match=r"heldout\.arrow is not there; run `dvc repro prepare`"):
        load([HELDOUT], tmp_path)


def test_an_empty_heldout_set_says_which_parameter_to_change(tmp_path, tiny_tokenizer):
    write_records(tmp_path / "heldout.arrow", [], tiny_tokenizer)
    with pytest.raises(LeadError, match=r"data\.heldout_per_source in params\.yaml to at least 1"):
        load([HELDOUT], tmp_path)


def test_records_of_another_tokenizer_are_refused(pool):
    other = make_tokenizer()
    other.chat_template = other.chat_template.replace("<s>", "<s><s>")
    with pytest.raises(LeadError, match="tokenised by another model's tokenizer"):
        load([HELDOUT], pool, tokenizer=other)


def test_a_record_longer_than_the_model_is_named(tmp_path, tiny_tokenizer):
    write_records(tmp_path / "heldout.arrow", [("long", turn("x" * 600, "y"))], tiny_tokenizer)
    with pytest.raises(LeadError, match=r"has \d+ tokens, the model takes at most 512; lower data"):
        run(tmp_path, tmp_path / "eval")


def test_a_loss_that_is_no_number_keeps_the_earlier_results(pool, tmp_path):
    run(pool, tmp_path / "eval")
    before = (tmp_path / "eval" / "results.json").read_bytes()
    broken = tuned_model()
    with torch.no_grad():
        for name, parameter in broken.named_parameters():
            if "lora_B" in name:
                parameter.fill_(float("nan"))
    with pytest.raises(LeadError, match=r"tuned loss of 8 .* lower train\.learning_rate"):
        run(pool, tmp_path / "eval", model=broken, cache=tmp_path / "another adapter's")
    assert (tmp_path / "eval" / "results.json").read_bytes() == before


def test_the_model_stays_in_eval_mode_with_its_adapter_on(pool, tmp_path):
    model = tuned_model()
    first = run(pool, tmp_path / "first", model=model)
    assert not any(module.training for module in model.modules())
    assert run(pool, tmp_path / "second", model=model) == first


@pytest.mark.slow
def test_an_unknown_stock_task_is_named_with_those_that_are_close(pool, tiny_tokenizer):
    with pytest.raises(LeadError, match=r"'gsm8kk', .* did you mean gsm8k"):
        load([HELDOUT, "gsm8kk"], pool)
    with pytest.raises(LeadError, match=r"gsm8k does not load \(Couldn't reach"):
        load(["gsm8k"], pool)


@pytest.mark.slow
def test_the_default_models_losses_agree_with_direct_computation(tmp_path):
    from lead_core.assets import resolve_model
    from lead_core.chat import load_tokenizer
    from lead_core.model import load_model

    resolved = resolve_model("embedded://smollm2-135m-instruct", None)
    tokenizer = load_tokenizer(resolved, trust_remote_code=False)
    write_records(tmp_path / "heldout.arrow", CONVERSATIONS, tokenizer)
    tasks = load([HELDOUT], tmp_path, tokenizer=tokenizer, max_length=8192)
    documents = list(tasks.tasks[HELDOUT].eval_docs)
    start, system = tokenizer.bos_token_id, tokenizer("system", add_special_tokens=False).input_ids
    assert all(
        d["input_ids"][:2] == [start, *system] for d in documents
    )  # one <|im_start|>, not two
    model = add_adapter(
        load_model(resolved, device="cpu", attention="auto", trust_remote_code=False),
        rank=4,
        alpha=8,
        dropout=0.0,
        target_modules="all-linear",
        seed=0,
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.01)
    evaluate(
        model=model,
        tokenizer=tokenizer,
        runtime=FP32,
        tasks=tasks,
        batch_size=4,
        bootstrap_samples=0,
        inputs={"model_sha256": resolved.sha256, "adapter_sha256": "a" * 64},
        cache=tmp_path / "cache",
        out=tmp_path / "eval",
    )
    frame = pd.read_parquet(tmp_path / "eval" / "heldout.parquet").set_index("id")
    for document in documents:
        ids, begin = document["input_ids"], document["response_start"]
        row = frame.loc[document["id"]]
        assert row["tuned_loss"] == pytest.approx(direct_loss(model, ids, begin), abs=1e-4)
        with model.disable_adapter():
            assert row["base_loss"] == pytest.approx(direct_loss(model, ids, begin), abs=1e-4)

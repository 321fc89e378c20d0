"""The cheaper log-likelihood against lm-eval's own, request by request."""

import pytest
import torch
from conftest import make_model, make_tokenizer
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lead_core.evaluation_model import PipelineLM
from lead_core.model import ResolvedRuntime, decoder_of

FP32 = ResolvedRuntime("cpu", 1, "fp32")
BF16 = ResolvedRuntime("cpu", 1, "bf16")


def ask(context, continuation):
    return Instance("loglikelihood", {}, (context, continuation), 0, ("task", 0, 1))


def both(runtime=FP32, **settings):
    model, tokenizer = make_model(), make_tokenizer()
    stock = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=4,
        mixed_precision_dtype="bfloat16" if runtime is BF16 else None,
        softmax_dtype="float32",
        **settings,
    )
    return PipelineLM(model, tokenizer, runtime, batch_size=4), stock


def greedy_continuation(context, tokens):
    """What the model itself writes after `context`; byte tokens that are no letters are avoided."""
    model, tokenizer = make_model(), make_tokenizer()
    ids = tokenizer(context)["input_ids"]
    for _ in range(tokens):
        with torch.inference_mode():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-tokens:]


REQUESTS = [
    *[ask("Question: 2 + 2?\nAnswer:", choice) for choice in "ABCD"],
    *[ask("A longer one, of another length.\nAnswer:", choice) for choice in "ABCD"],
    ask("Long continuations", " may share all but the last letter: a"),
    ask("Long continuations", " may share all but the last letter: b"),
    ask("A context that ends with blanks  ", "and goes on"),
    ask("", "without a context"),
    ask("x", "y"),
    ask("x", "y"),
    ask("naïve 🙂", " ünïcode 🙂"),
]


def test_log_likelihoods_and_greediness_are_lm_evals():
    ours, stock = both()
    for got, expected in zip(
        ours.loglikelihood(REQUESTS),
        stock.loglikelihood(REQUESTS, disable_tqdm=True),
        strict=True,
    ):
        assert got == (pytest.approx(expected[0], abs=1e-5), expected[1])


def test_equal_texts_split_at_different_places_are_each_as_if_asked_alone():
    """lm-eval itself takes the shorter continuation's values from the start of the longer one's."""
    ours, stock = both()
    requests = [ask("A text", " that goes on and on"), ask("A text that", " goes on and on")]
    alone = [stock.loglikelihood([request], disable_tqdm=True)[0][0] for request in requests]
    assert [value for value, _ in ours.loglikelihood(requests)] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("tokens", [1, 4])
def test_what_the_model_would_write_is_greedy_and_another_last_token_is_not(tokens):
    ours, stock = both()
    context = make_tokenizer()("A context")["input_ids"]
    written = greedy_continuation("A context", tokens)
    other = [*written[:-1], (written[-1] + 1) % 256]
    requests = [(("", ""), context, written), (("", ""), context, other)]
    got = ours._loglikelihood_tokens(requests)
    expected = stock._loglikelihood_tokens(requests, disable_tqdm=True)
    assert [greedy for _, greedy in got] == [greedy for _, greedy in expected] == [True, False]
    assert [value for value, _ in got] == pytest.approx([value for value, _ in expected], abs=1e-5)


def test_bf16_differs_from_lm_evals_by_rounding_alone():
    ours, stock = both(BF16)
    for (got, _), (expected, _) in zip(
        ours.loglikelihood(REQUESTS),
        stock.loglikelihood(REQUESTS, disable_tqdm=True),
        strict=True,
    ):
        assert got == pytest.approx(expected, rel=2e-2)


def test_the_choices_of_a_question_share_one_forward():
    ours, _ = both()
    rows, shapes = [], []
    decoder_of(ours.model).register_forward_pre_hook(
        lambda _m, _a, kwargs: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    ours.model.get_output_embeddings().register_forward_pre_hook(
        lambda _m, args: shapes.append(tuple(args[0].shape))
    )
    ours.loglikelihood(REQUESTS[:8])
    assert sum(rows) == ours.ledger.sequences["evaluation"] == 2
    assert sum(shape[0] for shape in shapes) == 8  # the head ran for the eight choices alone


def test_a_batch_holds_no_more_tokens_than_that_of_the_longest():
    ours, _ = both()
    sizes = []
    decoder_of(ours.model).register_forward_pre_hook(
        lambda _m, _a, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    ours.loglikelihood([ask("x" * n, "y") for n in (5, 100, 7, 30, 31, 6, 8, 9, 10, 11)])
    assert sizes == [4 * 100, 6 * 10]  # the six short ones at once
    ours.loglikelihood([ask("x" * 100 + str(n), "y") for n in range(10)])
    assert sizes[2:] == [4 * 101, 4 * 101, 2 * 101]


def test_rolling_log_likelihoods_are_lm_evals():
    ours, stock = both(max_length=None)
    texts = [
        Instance("loglikelihood_rolling", {}, (text,), 0, ("task", 0, 1))
        for text in ("A short text.", "A text beyond the context. " * 40)
    ]
    assert ours.loglikelihood_rolling(texts) == pytest.approx(
        stock.loglikelihood_rolling(texts, disable_tqdm=True), rel=1e-5
    )


def test_what_is_written_is_lm_evals_and_counted():
    ours, stock = both()
    settings = {"until": ["\n"], "max_gen_toks": 5, "do_sample": False}
    requests = [
        Instance("generate_until", {}, (text, settings), 0, ("task", 0, 1))
        for text in ("One", "Another one", "A third")
    ]
    assert ours.generate_until(requests) == stock.generate_until(requests, disable_tqdm=True)
    assert ours.ledger.sequences["evaluation"] == 3
    assert ours.ledger.tokens["evaluation"] == 3 * (len("Another one") + 5)

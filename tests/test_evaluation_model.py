"""The cheaper log-likelihood against lm-eval's own, request by request."""

import contextlib

import pytest
import torch
from conftest import make_model, make_tokenizer
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from toy_evaluation import tuned_model
from transformers import MistralConfig, MistralForCausalLM

from lead_core.evaluation_model import PipelineLM
from lead_core.model import ResolvedRuntime, decoder_of

FP32 = ResolvedRuntime("cpu", 1, "fp32")
BF16 = ResolvedRuntime("cpu", 1, "bf16")


def ask(context, continuation):
    return Instance("loglikelihood", {}, (context, continuation), 0, ("task", 0, 1))


def both(runtime=FP32, model=None, **settings):
    model, tokenizer = model or make_model(), make_tokenizer()
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
    ours.loglikelihood([ask(str(n) + "x" * 100, "y") for n in range(10)])
    assert sizes[2:] == [4 * 101, 4 * 101, 2 * 101]
    ours.loglikelihood(
        [ask("x" * 100 + str(n), "y") for n in range(10)]
    )  # keys of all 101 are kept
    assert sizes[-4:] == [100, 4, 4, 2]


def test_rolling_log_likelihoods_are_lm_evals():
    ours, stock = both(max_length=None)
    texts = [
        Instance("loglikelihood_rolling", {}, (text,), 0, ("task", 0, 1))
        for text in ("A short text.", "A text beyond the context. " * 40)
    ]
    assert ours.loglikelihood_rolling(texts) == pytest.approx(
        stock.loglikelihood_rolling(texts, disable_tqdm=True), rel=1e-5
    )


EXAMPLES = "Question: 1 + 1?\nAnswer: 2\n\n" * 5
BEHIND_EXAMPLES = [
    *[ask(EXAMPLES + "Question: 2 + 2?\nAnswer:", choice) for choice in "ABCD"],
    *[ask(EXAMPLES + "Question: and another, longer one?\nAnswer:", choice) for choice in "ABCD"],
    *[ask(EXAMPLES + "In words, please:", f" {text}") for text in ("one", "two", "one and two")],
    *[ask(EXAMPLES, text) for text in ("The continuation is all that is left", "x")],
    ask("Something else", " is asked as well"),
]


def lively_model():
    """The toy model with larger weights, so that what it writes depends on what it reads."""
    model = make_model()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 2:
                weights.mul_(15)
    return model


def sliding_model():
    """A model whose layers see a window of the last 16 tokens: nothing to share."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MistralForCausalLM(
            MistralConfig(
                vocab_size=259,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                sliding_window=16,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=2,
            )
        ).eval()


@contextlib.contextmanager
def forwarded(model):
    """Collect the rows and tokens of each forward, without padding and what a cache holds."""
    seen = []

    def note(_module, _args, kwargs):
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        real = ids.numel() if mask is None else int(mask[:, -ids.shape[1] :].sum())
        seen.append((ids.shape[0], real))

    handle = decoder_of(model).register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("adapter", [False, True])
def test_log_likelihoods_behind_shared_examples_are_lm_evals(adapter):
    model = tuned_model()
    ours, stock = both(model=model)
    with contextlib.nullcontext() if adapter else model.disable_adapter():
        got = ours.loglikelihood(BEHIND_EXAMPLES)
        expected = stock.loglikelihood(BEHIND_EXAMPLES, disable_tqdm=True)
    for (value, greedy), (wanted, also_greedy) in zip(got, expected, strict=True):
        assert (value, greedy) == (pytest.approx(wanted, abs=1e-5), also_greedy)


def test_greedy_continuations_behind_shared_examples_are_found():
    ours, stock = both(model=lively_model())
    contexts = [make_tokenizer()(EXAMPLES + end)["input_ids"] for end in ("a", "bc", "def")]
    pairs = []
    for context in contexts:
        with torch.inference_mode():
            written = ours.model.generate(
                torch.tensor([context]), max_new_tokens=3, do_sample=False
            )
        best = written[0, len(context) :].tolist()
        pairs += [(("", ""), context, best), (("", ""), context, [*best[:-1], best[-1] ^ 1])]
    expected = stock._loglikelihood_tokens(pairs, disable_tqdm=True)
    got = ours._loglikelihood_tokens(pairs)
    assert [greedy for _, greedy in got] == [True, False] * 3
    assert [greedy for _, greedy in expected] == [True, False] * 3
    assert [v for v, _ in got] == pytest.approx([v for v, _ in expected], abs=1e-4)


def test_shared_examples_in_bf16_differ_by_rounding_alone():
    ours, stock = both(BF16)
    got = [value for value, _ in ours.loglikelihood(BEHIND_EXAMPLES)]
    exact = [value for value, _ in stock.loglikelihood(BEHIND_EXAMPLES, disable_tqdm=True)]
    assert got == pytest.approx(exact, rel=2e-2)


def test_shared_examples_are_run_once_and_counted_so():
    ours, _ = both()
    assert ours._loss.can_share  # tries it, with forwards of its own
    requests = [*BEHIND_EXAMPLES[:11], BEHIND_EXAMPLES[-1]]
    with forwarded(ours.model) as seen:
        ours.loglikelihood(requests)
    assert seen.count((1, len(EXAMPLES))) == 1
    spent = ours.ledger.as_dict()["evaluation"]
    assert spent == {"sequences": sum(n for n, _ in seen), "tokens": sum(n for _, n in seen)}
    texts = {"".join(request.args)[:-1] for request in requests}
    assert spent["sequences"] == len(texts) + 1
    assert spent["tokens"] == sum(map(len, texts)) - (len(texts) - 2) * len(EXAMPLES)


def test_a_model_with_a_sliding_window_reads_all_of_every_prompt():
    ours, stock = both(model=sliding_model())
    assert not ours._loss.can_share
    with forwarded(ours.model) as seen:
        got = ours.loglikelihood(BEHIND_EXAMPLES)
    assert sum(n for n, _ in seen) == len({"".join(r.args)[:-1] for r in BEHIND_EXAMPLES})
    expected = stock.loglikelihood(BEHIND_EXAMPLES, disable_tqdm=True)
    assert [v for v, _ in got] == pytest.approx([v for v, _ in expected], rel=1e-6)
    requests = ask_to_write("", EXAMPLES, max_gen_toks=9)
    assert ours.generate_until(requests) == stock.generate_until(requests, disable_tqdm=True)


ENDS = ["One", "Another one", "A third, longer\n", "x", "Question: what is 3 + 4?\nAnswer:"]


def ask_to_write(*beginnings, max_gen_toks=150, **settings):
    settings = {"until": ["="], "max_gen_toks": max_gen_toks, "do_sample": False, **settings}
    return [
        Instance("generate_until", {}, (beginning + end, settings), 0, ("task", 0, 1))
        for beginning in beginnings
        for end in ENDS
    ]


@pytest.mark.parametrize("beginning", ["", EXAMPLES])
def test_what_is_written_is_lm_evals(beginning):
    ours, stock = both(model=lively_model())
    requests = ask_to_write(beginning)
    written = ours.generate_until(requests)
    assert written == stock.generate_until(requests, disable_tqdm=True)
    assert len(set(map(len, written))) > 2  # some stop early, and not all at once


@pytest.mark.parametrize("adapter", [False, True])
def test_what_is_written_behind_shared_examples_is_lm_evals_with_an_adapter_too(adapter):
    model = tuned_model()
    ours, stock = both(model=model)
    requests = ask_to_write(EXAMPLES, max_gen_toks=70)
    with contextlib.nullcontext() if adapter else model.disable_adapter():
        assert ours.generate_until(requests) == stock.generate_until(requests, disable_tqdm=True)


def test_settings_that_differ_are_asked_apart_and_answers_stay_in_order():
    ours, stock = both(model=lively_model())
    requests = [*ask_to_write(EXAMPLES, max_gen_toks=5), *ask_to_write("", max_gen_toks=9)]
    requests = requests[::2] + requests[1::2]
    assert ours.generate_until(requests) == stock.generate_until(requests, disable_tqdm=True)


@pytest.mark.parametrize("beginning", ["", EXAMPLES])
def test_what_is_read_and_written_is_counted_without_padding(beginning):
    ours, _ = both(model=lively_model())
    assert ours._loss.can_share
    with forwarded(ours.model) as seen:
        ours.generate_until(ask_to_write(beginning, max_gen_toks=100))
    if beginning:
        assert seen[0] == (1, len(EXAMPLES))
    assert ours.ledger.tokens["evaluation"] == sum(tokens for _, tokens in seen)


def test_what_is_written_is_counted_but_for_the_last_token():
    ours, _ = both()
    texts = ["One", "Another one", "A third"]
    settings = {"until": ["\n"], "max_gen_toks": 5, "do_sample": False}
    ours.generate_until(
        [Instance("generate_until", {}, (text, settings), 0, ("task", 0, 1)) for text in texts]
    )
    spent = ours.ledger.as_dict()["evaluation"]
    assert spent == {"sequences": 3, "tokens": sum(map(len, texts)) + 3 * 4}

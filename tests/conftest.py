"""A tokenizer and a language model small enough for unit tests, real in every other way."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test reaches for a hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from fault_record import FaultRecord
from hypothesis import settings

settings.register_profile("steady", deadline=None)  # time is no property of a test
settings.load_profile("steady")


def pytest_addoption(parser):
    parser.addoption("--fault-record", type=Path, help="a JSON file for what -m faults did")


def pytest_configure(config):
    out = config.getoption("--fault-record")
    config.pluginmanager.register(FaultRecord(out, config.invocation_params.args))


TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + '\n' + message['content'] + '</s>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)


def make_tokenizer(merges=()):
    """A byte-level tokenizer (every text round-trips) with a chat template like ChatML.

    merges: pairs of tokens that it reads as one.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *alphabet])}
    vocabulary |= {"".join(pair): len(vocabulary) + i for i, pair in enumerate(merges)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(seed: int = 0, *, vocabulary: int = 259, layers: int = 2):
    """A Llama of a few thousand parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tiny_tokenizer():
    return make_tokenizer()


@pytest.fixture
def tiny_model():
    return make_model()


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory):
    """A model folder as a user has it: config, safetensors weights, tokenizer, chat template."""
    folder = tmp_path_factory.mktemp("tiny-model")
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder

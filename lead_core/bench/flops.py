"""Useful floating-point operations of a forward, counted from the model's own layers.

A multiplication with an addition counts as two. Useful are the products of real tokens with the
decoder's weight matrices, attention from each token to itself and what precedes it, and the output
head where a response token is predicted. Not counted are padding, logits that nobody reads, the half of
attention that is masked, and all that is no product of matrices (norms, activations, softmax).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lead_core.chat import Encoded
from lead_core.model import decoder_of


@dataclass(frozen=True)
class ModelShape:
    """What decides the arithmetic of a decoder-only transformer.

    matrices: (inputs, outputs, how many) of the decoder's weight matrices, adapters included. layers;
    attention_width: heads x head size. hidden, vocabulary: of the output head.
    """

    matrices: tuple[tuple[int, int, int], ...]
    layers: int
    attention_width: int
    hidden: int
    vocabulary: int

    @property
    def decoder_weights(self) -> int:
        """Return the number of weights in the decoder's matrices."""
        return sum(inputs * outputs * count for inputs, outputs, count in self.matrices)

    @property
    def head_weights(self) -> int:
        """Return the number of weights in the output head."""
        return self.hidden * self.vocabulary


def shape_of(model: Any) -> ModelShape:
    """Return the shape of a transformers or peft `model`."""
    decoder, config = decoder_of(model), model.config
    linear = (module for module in decoder.modules() if isinstance(module, nn.Linear))
    counts = Counter((module.in_features, module.out_features) for module in linear)
    head_size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    return ModelShape(
        matrices=tuple((*size, count) for size, count in sorted(counts.items())),
        layers=config.num_hidden_layers,
        attention_width=config.num_attention_heads * head_size,
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
    )


def forward_flops(shape: ModelShape, tokens: int, predicted: int) -> int:
    """Return the useful operations of one forward over `tokens`, of which `predicted` are scored."""
    weights = 2 * shape.decoder_weights * tokens + 2 * shape.head_weights * predicted
    return weights + attention_flops(shape, tokens)


def attention_flops(shape: ModelShape, tokens: int) -> int:
    """Return the operations of attention over `tokens`: scores, and sums weighted with them."""
    pairs = tokens * (tokens + 1) // 2
    return 2 * 2 * shape.layers * shape.attention_width * pairs


def total_forward_flops(shape: ModelShape, samples: Sequence[Encoded]) -> int:
    """Return the useful operations of one forward over each of `samples`."""
    return sum(
        forward_flops(shape, len(s.input_ids), len(s.input_ids) - s.response_start) for s in samples
    )

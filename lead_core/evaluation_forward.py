"""The forward that goes on behind a prefix, whose keys and values many inputs share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from lead_core.model import Batch, ResponseLoss, autocast, decoder_of


class PrefixLoss(ResponseLoss):
    """`ResponseLoss` whose inputs may be what follows a prefix that was run before."""

    @cached_property
    def can_share(self) -> bool:
        """Whether the model goes on behind a prefix as if it read all at once.

        Sliding windows and recurrent states cannot be copied as keys and values can; and some models
        count positions in ways of their own, so eight tokens go through both paths.
        """
        cache = self._empty_cache()
        if not all(type(layer) is DynamicLayer for layer in cache.layers):
            return False
        decoder = decoder_of(self.causal_lm)
        ids = torch.arange(8, device=self.causal_lm.device)[None]
        with torch.inference_mode():
            whole = decoder(input_ids=ids, use_cache=False).last_hidden_state[:, 4:]
            decoder(input_ids=ids[:, :4], past_key_values=cache, use_cache=True)
            rest = decoder(
                input_ids=ids[:, 4:],
                attention_mask=torch.ones_like(ids),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        return bool(torch.allclose(whole, rest, rtol=1e-4, atol=1e-4))

    def run_prefix(self, tokens: Sequence[int]) -> DynamicCache:
        """Return keys and values of `tokens`, for a batch of one row."""
        cache = self._empty_cache()
        ids = torch.tensor([list(tokens)], device=self.causal_lm.device)
        with torch.inference_mode(), autocast(self.runtime):
            decoder_of(self.causal_lm)(input_ids=ids, past_key_values=cache, use_cache=True)
        return cache

    def for_rows(self, prefix: DynamicCache, rows: int) -> DynamicCache:
        """Return a copy of `prefix` for a batch of `rows`, to which a forward will add."""
        cache = self._empty_cache()
        for layer, (keys, values, _) in enumerate(prefix):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        return cache

    def logits(self, batch: Batch, prefix: DynamicCache | None = None) -> torch.Tensor:
        """Return what `ResponseLoss.logits` does, for inputs that follow `prefix`."""
        if prefix is None:
            return super().logits(batch)
        read = batch.attention_mask.new_ones(len(batch.input_ids), prefix.get_seq_length())
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": torch.cat([read, batch.attention_mask], dim=1),
            "past_key_values": self.for_rows(prefix, len(batch.input_ids)),
            "use_cache": True,
        }
        with autocast(self.runtime):
            if self._split:
                hidden = decoder_of(self.causal_lm)(**inputs).last_hidden_state
                predicting = hidden[batch.rows, batch.positions]
                logits = self.causal_lm.get_output_embeddings()(predicting)
            else:
                logits = self.causal_lm(**inputs).logits[batch.rows, batch.positions]
        return logits.float()

    def _empty_cache(self) -> DynamicCache:
        return DynamicCache(config=self.causal_lm.config)

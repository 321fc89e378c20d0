"""The language model: loading, adapters, and the one forward that gives per-sample response losses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from lead_core.assets import ResolvedModel
from lead_core.chat import Encoded
from lead_core.errors import LeadError, first_reason


@dataclass(frozen=True)
class ResolvedRuntime:
    """What `runtime` in params.yaml comes to on this machine."""

    device: str
    threads: int
    precision: str


def resolve_runtime(device: str, threads: int, precision: str) -> ResolvedRuntime:
    """Settle ``auto`` for device and precision, and fix torch's thread count for this process."""
    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise LeadError(
            "params.yaml: runtime.device is cuda, but torch sees no GPU; set it to auto"
        )
    if precision == "auto":
        precision = "bf16" if _has_fast_bf16(device) else "fp32"
    return ResolvedRuntime(device, threads, precision)


def _has_fast_bf16(device: str) -> bool:
    """Whether the hardware multiplies bf16 natively; emulated bf16 is slower than fp32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if device == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast(runtime: ResolvedRuntime) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which forwards run: bf16 autocast, or nothing for fp32."""
    return torch.autocast(
        runtime.device, torch.bfloat16, enabled=runtime.precision == "bf16", cache_enabled=False
    )


def load_model(
    model: ResolvedModel, *, device: str, attention: str, trust_remote_code: bool
) -> Any:
    """Return the causal language model in float32 and eval mode, from safetensors only.

    attention: see `resolve_attention`.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(model.path),
            dtype=torch.float32,
            use_safetensors=True,
            attn_implementation=resolve_attention(attention, device),
            trust_remote_code=trust_remote_code,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = first_reason(error)
        raise LeadError(
            f"model.name: {model.name} does not load ({reason}); check that its weights are whole"
        ) from error
    loaded.config.use_cache = False
    return loaded.to(device).eval()


def resolve_attention(name: str, device: str) -> str | None:
    """Return what `name` comes to: itself (``eager``, ``sdpa``, ``flash_attention_2``) but for auto.

    That is eager on a CPU, whose fused kernel is slow on short padded sequences (a quarter of a
    training step with a 135M model), else None: what transformers prefers.
    """
    if name == "auto":
        return "eager" if device == "cpu" else None
    return name


def add_adapter(
    model: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    target_modules: str | Sequence[str],
    seed: int,
) -> Any:
    """Return `model` with fresh trainable LoRA adapters; `seed` fixes their start."""
    from peft import LoraConfig, get_peft_model

    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float is fine, peft divides by it
        lora_dropout=dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return get_peft_model(model, config)
    except ValueError as error:
        raise LeadError(
            f"params.yaml: train.lora.target_modules {targets!r} does not fit this model ({error}); "
            "all-linear fits every model"
        ) from error


def load_adapter(model: Any, adapter: Path) -> Any:
    """Return `model` with the trained adapter in the folder `adapter`, in eval mode."""
    from peft import PeftModel

    if not (adapter / "adapter_config.json").is_file():
        raise LeadError(f"{adapter} holds no adapter; run the train stage first")
    return PeftModel.from_pretrained(model, str(adapter)).eval()


def continue_adapter(model: Any, adapter: Path) -> None:
    """Give the fresh adapter of `model` (see `add_adapter`) the weights in the folder `adapter`.

    LeadError unless both are of the same LoRA settings.
    """
    from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict

    ours, theirs = model.peft_config["default"], LoraConfig.from_pretrained(str(adapter))
    for key, name in (
        ("rank", "r"),
        ("alpha", "lora_alpha"),
        ("dropout", "lora_dropout"),
        ("target_modules", "target_modules"),
    ):
        got, earlier = (_plain(getattr(config, name)) for config in (ours, theirs))
        if got != earlier:
            raise LeadError(
                f"params.yaml: train.lora.{key} must be that of the earlier run's adapter, "
                f"{_shown(earlier)}, got {_shown(got)}; set it so, or grow.start_from to null"
            )
    set_peft_model_state_dict(model, load_peft_weights(str(adapter), device="cpu"))


def _plain(setting: Any) -> Any:
    """Return names of modules, which peft keeps as a set, in a fixed order."""
    return setting if isinstance(setting, str | int | float) else sorted(setting)


def _shown(setting: Any) -> str:
    """Return a setting for a message: of many modules, only the first."""
    if not isinstance(setting, list):
        return str(setting)
    more = f", ... ({len(setting)} modules)" if len(setting) > 3 else ""
    return ", ".join(setting[:3]) + more


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids with the places where response tokens are predicted.

    `rows` and `positions` name, for each of the R response tokens of the batch, the hidden state
    that predicts it; `targets` are those tokens. Shapes: [B, T], [B, T], [R], [R], [R].
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    rows: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def make_batch(samples: Sequence[Encoded], *, pad_id: int) -> Batch:
    """Pad `samples` to the longest of them and locate their response tokens."""
    lengths = [len(sample.input_ids) for sample in samples]
    ids = np.full((len(samples), max(lengths)), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sample in enumerate(samples):
        ids[row, : lengths[row]] = sample.input_ids
        mask[row, : lengths[row]] = 1
    counts = [length - s.response_start for length, s in zip(lengths, samples, strict=True)]
    rows = np.repeat(np.arange(len(samples)), counts)
    columns = np.concatenate(
        [np.arange(s.response_start, length) for length, s in zip(lengths, samples, strict=True)]
    )
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        torch.from_numpy(rows),
        torch.from_numpy(columns - 1),
        torch.from_numpy(ids[rows, columns]),
    )


class ResponseLoss(nn.Module):
    """Per-token response losses of a causal language model.

    The output head runs only where a response token is predicted: over prompts and padding its
    logits (a fifth of the arithmetic of a small model) would be thrown away. A module of its own,
    so that accelerate can wrap it for several processes.
    """

    def __init__(self, causal_lm: Any, runtime: ResolvedRuntime):
        super().__init__()
        self.causal_lm = causal_lm
        self.runtime = runtime
        self.train(causal_lm.training)  # a fresh module trains, whatever its parts do
        self._split = _head_can_be_split(_inner(causal_lm))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy of each response token, float32 [R], nats."""
        return nn.functional.cross_entropy(self.logits(batch), batch.targets, reduction="none")

    def logits(self, batch: Batch) -> torch.Tensor:
        """Return the logits over the vocabulary that predict each response token, float32 [R, V]."""
        inner = _inner(self.causal_lm)
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        with autocast(self.runtime):
            if self._split:
                hidden = inner.get_decoder()(**inputs, use_cache=False).last_hidden_state
                logits = inner.get_output_embeddings()(hidden[batch.rows, batch.positions])
            else:
                logits = inner(**inputs, use_cache=False).logits[batch.rows, batch.positions]
        return logits.float()


def sample_means(token_losses: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the mean of `token_losses` [R] over each sample of `batch`, [B], in float64."""
    n = batch.input_ids.shape[0]
    losses = token_losses.double()
    sums = torch.zeros(n, dtype=losses.dtype, device=losses.device).index_add(0, batch.rows, losses)
    return sums / torch.bincount(batch.rows, minlength=n)


def decoder_of(model: Any) -> Any:
    """Return the transformer without its output head, adapters included: where forwards count."""
    return _inner(model).get_decoder()


@contextlib.contextmanager
def layer_output(model: Any, depth_fraction: float) -> Iterator[list[torch.Tensor]]:
    """Collect, in the yielded list, the hidden states [B, T, H] behind one decoder layer."""
    layers = decoder_of(model).layers
    index = min(len(layers) - 1, max(0, round(depth_fraction * len(layers)) - 1))
    seen: list[torch.Tensor] = []

    def after(_module: Any, _args: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handle = layers[index].register_forward_hook(after)
    try:
        yield seen
    finally:
        handle.remove()


def group_by_tokens(lengths: np.ndarray, limit_tokens: int) -> list[np.ndarray]:
    """Cut samples into batches of similar length whose padded size stays within `limit_tokens`.

    Longest first, so that memory runs out at the start or never. A sample longer than the limit
    gets a batch of its own. Returns index arrays; each index occurs once.
    """
    order = np.lexsort((np.arange(len(lengths)), -lengths))
    batches: list[np.ndarray] = []
    start = 0
    while start < len(order):
        rows = max(1, int(limit_tokens // lengths[order[start]]))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def _inner(model: Any) -> Any:
    """Return the transformers model under a peft wrapper (adapter layers stay in place)."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _head_can_be_split(model: Any) -> bool:
    """Whether logits are the plain output head over the decoder's last hidden state.

    Some architectures scale or cap their logits in between; four tokens through both paths tell.
    """
    head = model.get_output_embeddings()
    if head is None or not hasattr(model, "get_decoder"):
        return False
    was_training = model.training
    model.eval()
    ids = torch.arange(4, device=next(model.parameters()).device)[None]
    with torch.inference_mode():
        whole = model(input_ids=ids, use_cache=False).logits
        split = head(model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
    model.train(was_training)
    return bool(torch.allclose(whole, split, rtol=1e-4, atol=1e-4))

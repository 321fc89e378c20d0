"""Hugging Face's own `Trainer` on given samples, in their order: what most people train with."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.state import AcceleratorState
from transformers import (
    DataCollatorForSeq2Seq,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
)
from transformers import Trainer as TransformersTrainer

from lead_core.bench.restart import remember_start
from lead_core.chat import Encoded
from lead_core.model import ResolvedRuntime
from lead_core.training import OptimizerSettings


class _Clock(TrainerCallback):
    """Times the training loop alone, without what `train` sets up before and clears away behind it."""

    def __init__(self) -> None:
        self.started = self.seconds = 0.0

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        """Begin to time."""
        self.started = time.perf_counter()

    def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.started


class _LossKeepingTrainer(TransformersTrainer):
    """Keeps every micro-batch's part of its step's loss: the log would round them."""

    parts: list[torch.Tensor]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Do what the trainer does, and keep the loss that it returns."""
        loss = super().training_step(*args, **kwargs)
        self.parts.append(loss)
        return loss


class HuggingFaceSide:
    """Training of `model` by `transformers.Trainer`, from the same start each time.

    `samples` are a whole number of effective batches, each cut into micro-batches of `micro_batch`
    samples, padded to the longest.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        samples: Sequence[Encoded],
        *,
        optimizer: OptimizerSettings,
        runtime: ResolvedRuntime,
        effective_batch: int,
        micro_batch: int,
    ):
        self.losses: tuple[float, ...] = ()
        self._restart = remember_start(model)
        self._accumulation = effective_batch // micro_batch
        self._clock = _Clock()
        self._scratch = tempfile.TemporaryDirectory(prefix="lead-bench-")
        arguments = TrainingArguments(
            output_dir=self._scratch.name,
            max_steps=len(samples) // effective_batch,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=self._accumulation,
            train_sampling_strategy="sequential",
            learning_rate=optimizer.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=optimizer.weight_decay,
            max_grad_norm=optimizer.max_grad_norm or 0.0,
            bf16=runtime.precision == "bf16",
            use_cpu=runtime.device == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        self._trainer = _LossKeepingTrainer(
            model=model,
            args=arguments,
            train_dataset=[_example(sample) for sample in samples],
            data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
            callbacks=[self._clock],
        )
        self._trainer.remove_callback(PrinterCallback)

    def train(self) -> float:
        """Train on all samples once; return the seconds of the loop, and keep `losses` per step."""
        self._restart()
        self._trainer.parts = []
        self._trainer.train()
        parts = [float(part) for part in self._trainer.parts]
        n = self._accumulation
        self.losses = tuple(sum(parts[i : i + n]) for i in range(0, len(parts), n))
        return self._clock.seconds

    def close(self) -> None:
        """Let go of the process-wide state that accelerate keeps: other trainers set it otherwise."""
        self._scratch.cleanup()
        AcceleratorState._reset_state(reset_partial_state=True)


def _example(sample: Encoded) -> dict[str, list[int]]:
    ids = [int(token) for token in sample.input_ids]
    start = sample.response_start
    return {"input_ids": ids, "labels": [-100] * start + ids[start:]}

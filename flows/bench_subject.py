"""What `lead bench` measures on: model, records and settings of params.yaml, made when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lead_core.assets import ResolvedModel, resolve_model
from lead_core.bench.effort import Effort
from lead_core.bench.flops import ModelShape, shape_of
from lead_core.bench.matmul import MatmulResult, measure_matmul
from lead_core.bench.our_training import TrainingSettings
from lead_core.bench.records import BenchRecords, read_records
from lead_core.chat import load_tokenizer
from lead_core.model import ResolvedRuntime, add_adapter, load_model, resolve_runtime
from lead_core.params import Params
from lead_core.training import OptimizerSettings


@dataclass(frozen=True)
class Subject:
    """What the measurements share."""

    workspace: Path
    params: Params
    effort: Effort
    data_dir: Path | None

    @cached_property
    def runtime(self) -> ResolvedRuntime:
        """Device, threads and precision."""
        settings = self.params.runtime
        return resolve_runtime(settings.device, settings.threads, settings.precision)

    @cached_property
    def model(self) -> ResolvedModel:
        """The model's files."""
        return resolve_model(self.params.model.name, self.params.model.revision)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self.model, trust_remote_code=self.params.model.trust_remote_code)

    @cached_property
    def records(self) -> BenchRecords:
        """As many records as the most demanding measurement takes."""
        training = self.effective_batch * max(self.effort.steps, self.effort.loop_rounds)
        most = max(self.effort.scoring_records, 2 * training)
        return read_records(self.tokenizer, most, max_tokens=self.params.data.max_tokens)

    @property
    def training_records(self) -> BenchRecords:
        """The records of one repetition of training."""
        return self.records.first(self.effective_batch * self.effort.steps)

    @property
    def effective_batch(self) -> int:
        """Samples of an optimizer step."""
        return min(self.params.train.effective_batch, self.effort.batch_samples)

    @property
    def training_settings(self) -> TrainingSettings:
        """How steps are taken; the learning rate does not fall."""
        train, pad_id = self.params.train, self.tokenizer.pad_token_id
        return TrainingSettings(
            optimizer=OptimizerSettings(
                learning_rate=train.learning_rate,
                decay_factor=1.0,
                decay_steps=1,
                weight_decay=train.weight_decay,
                max_grad_norm=train.max_grad_norm,
            ),
            effective_batch=self.effective_batch,
            micro_batch_tokens=train.micro_batch_tokens,
            sketch_size=self.params.utility.sketch_size,
            pad_id=self.tokenizer.eos_token_id if pad_id is None else pad_id,
        )

    @cached_property
    def matmul(self) -> MatmulResult:
        """The machine's matmul throughput, which other measurements are held against."""
        return measure_matmul(
            self.shape,
            rows=self.params.score.batch_tokens,
            calls=self.effort.matmul_calls,
            repetitions=self.effort.repetitions,
            device=self.runtime.device,
        )

    @cached_property
    def shape(self) -> ModelShape:
        """The sizes of the base model."""
        return shape_of(self.load())

    def load(self, attention: str | None = None) -> Any:
        """Return the base model, its weights its own; `attention` in the place of params.yaml's."""
        return load_model(
            self.model,
            device=self.runtime.device,
            attention=attention or self.params.runtime.attention,
            trust_remote_code=self.params.model.trust_remote_code,
        )

    def load_adapted(self, attention: str | None = None) -> Any:
        """Return the model with fresh adapters, the same each time, as `load` does."""
        lora = self.params.train.lora
        return add_adapter(
            self.load(attention),
            rank=lora.rank,
            alpha=lora.alpha,
            dropout=0.0,  # every side would draw other masks
            target_modules=lora.target_modules,
            seed=self.params.seed,
        )

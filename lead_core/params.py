"""`params.yaml`, typed: the only home of every number; this schema holds no defaults of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from lead_core.errors import LeadError, ProblemsError


class Section(BaseModel):
    """A section of `params.yaml`: every key required, unknown keys refused, values immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RuntimeParams(Section):
    """Where and how arithmetic is done; part of every result, since it changes float sums."""

    device: Literal["auto", "cpu", "cuda"] = Field(description="where the model runs")
    threads: int = Field(ge=1, description="CPU threads of torch")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        description="auto: bf16 autocast where the hardware has it, else fp32"
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        description="auto: eager on a CPU (faster up to about 500 tokens; memory grows with their "
        "square), else what transformers prefers"
    )


class ModelParams(Section):
    """The language model to tune."""

    name: str = Field(
        min_length=1,
        description="embedded://smollm2-135m-instruct, a hub id, a local folder or a .gguf file",
    )
    revision: str | None = Field(description="hub revision (branch, tag or commit); null: main")
    trust_remote_code: bool = Field(description="run code that a hub model brings; keep false")


class SourceParams(Section):
    """One source of records."""

    uri: str = Field(
        min_length=1,
        description="a path or glob (JSONL, JSON, Parquet, CSV; .gz, .zst), any fsspec URL, "
        "hf://owner/name?split=train, or docstrings://package,package",
    )
    name: str | None = Field(description="name in reports; null: the file's stem or package")
    limit: int | None = Field(ge=1, description="keep at most so many records, drawn by hash")
    local: str | None = Field(
        description="file below data.local_copies that is read instead of the URI, where that is set"
    )

    @field_validator("local")
    @classmethod
    def _inside(cls, local: str | None) -> str | None:
        if local and (Path(local).is_absolute() or ".." in Path(local).parts):
            raise ValueError(f"must be a path inside data.local_copies, got {local!r}")
        return local


def _source(value: Any) -> Any:
    """Let a plain string stand for a source without a name or limit of its own."""
    if isinstance(value, str):
        return {"uri": value, "name": None, "limit": None, "local": None}
    if isinstance(value, Mapping):
        return {"name": None, "limit": None, "local": None, **value}
    return value


_CREDENTIALS = re.compile(
    r"://[^\s/?#]*:[^\s/?#]*@|[?&][^=&]*(?:sig|token|key|secret|password|credential)[^=&]*=", re.I
)

_CREDENTIALS_REFUSED = (
    "must not hold credentials (entry {}): dvc.lock and MLflow keep what stands here; give them to the "
    "store itself (environment, ~/.netrc, ~/.aws)"
)
AUTO = "auto"


class DirtParams(BaseModel):
    """Known faults planted into the pool (never into held-out records), for experiments.

    No `Section`: a kind that is not named is not planted, and a preset replaces it whole, so that no
    kind of an earlier preset stays.
    """

    model_config = Section.model_config

    exchanged_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="records of a source that get the response of another one of it",
    )
    near_duplicate_fraction: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="records of a source replaced by another one, lightly reworded",
    )
    truncated_fraction: float = Field(
        0.0, ge=0, le=1, description="records of a source with a response cut off at 20 to 60 %"
    )
    wrong_language_fraction: float = Field(
        0.0, ge=0, le=1, description="records of a source answered evasively in another language"
    )
    politeness_fraction: float = Field(
        0.0, ge=0, le=1, description="records of a source answered with empty politeness"
    )


class BenchmarkParams(Section):
    """Rows that the pool must not hold."""

    uri: str = Field(
        min_length=1,
        description="auto: the data sets behind evaluate.tasks; else as in data.sources",
    )
    name: str | None = Field(
        description="name in reports; that of a task of evaluate.tasks if its rows these are"
    )
    fields: tuple[str, ...] | None = Field(
        min_length=1, description="keys that hold a row's text; null: question, prompt and the like"
    )


def _benchmark(value: Any) -> Any:
    """Let a plain string stand for a benchmark without a name or fields of its own."""
    if isinstance(value, str):
        return {"uri": value, "name": None, "fields": None}
    if isinstance(value, Mapping):
        return {"name": None, "fields": None, **value}
    return value


class DecontaminateParams(Section):
    """Which records are too close to a benchmark, and what becomes of them."""

    against: tuple[Annotated[BenchmarkParams, BeforeValidator(_benchmark)], ...] = Field(
        min_length=1,
        description="benchmarks; auto: the data sets behind evaluate.tasks, else a URI as in "
        "data.sources, or uri, name (of the task) and fields (keys of the text)",
    )
    action: Literal["remove", "report"] = Field(
        description="remove: reject such records; report: only list them"
    )
    ngram_words: int = Field(
        ge=5, description="words in a row, the same in record and benchmark: a verbatim overlap"
    )
    min_words: int = Field(
        ge=3,
        description="shorter texts overlap only with a message that holds nothing else; also the "
        "fewest distinct words of an edited overlap",
    )
    edited_ngram_words: int = Field(
        ge=3, description="n-grams of an edited overlap, numbers masked"
    )
    edited_share: float = Field(
        gt=0, le=1, description="share of the benchmark text's words that these must cover"
    )
    boilerplate_rows: int = Field(
        ge=1, description="an n-gram in more rows of a benchmark than this does not count"
    )

    @field_validator("against", mode="before")
    @classmethod
    def _one_or_more(cls, against: Any) -> Any:
        return [against] if isinstance(against, str) else against

    @field_validator("against")
    @classmethod
    def _are_rows(cls, against: tuple[BenchmarkParams, ...]) -> tuple[BenchmarkParams, ...]:
        for number, benchmark in enumerate(against):
            if benchmark.uri.startswith("docstrings://"):
                raise ValueError(f"must name rows (entry {number}), got {benchmark.uri!r}")
            if _CREDENTIALS.search(benchmark.uri):
                raise ValueError(_CREDENTIALS_REFUSED.format(number))
        return against

    @model_validator(mode="after")
    def _rising(self) -> DecontaminateParams:
        if not self.edited_ngram_words <= self.min_words <= self.ngram_words:
            raise ValueError(
                "must have edited_ngram_words <= min_words <= ngram_words, got "
                f"{self.edited_ngram_words}, {self.min_words}, {self.ngram_words}"
            )
        return self


class DataParams(Section):
    """The pool of instruction examples (stage `prepare`)."""

    sources: tuple[Annotated[SourceParams, BeforeValidator(_source)], ...] = Field(
        min_length=1, description="where records come from"
    )
    limit: int | None = Field(ge=1, description="records kept in all, drawn by hash; null: all")
    max_tokens: int = Field(
        ge=8, description="longer records (chat template included) are rejected"
    )
    heldout_per_source: int = Field(ge=0, description="records per source kept out of the pool")
    local_copies: str | None = Field(
        description="folder with copies of sources that name a `local` file; null: read the URIs"
    )
    decontaminate: DecontaminateParams | None = Field(
        description="records too close to a benchmark are found before limits apply; null: no check"
    )
    dirt: DirtParams | None = Field(
        description="known faults planted into the pool, for experiments: each kind's share, 0 if "
        "left out; null: none"
    )

    @property
    def read_from(self) -> tuple[SourceParams, ...]:
        """Return the sources with local copies in the place of their URIs, where there are any."""
        if self.local_copies is None:
            return self.sources
        folder = Path(self.local_copies)
        return tuple(
            source.model_copy(update={"uri": str(folder / source.local)})
            if source.local
            else source
            for source in self.sources
        )

    @field_validator("sources")
    @classmethod
    def _no_credentials(cls, sources: tuple[SourceParams, ...]) -> tuple[SourceParams, ...]:
        for number, source in enumerate(sources):
            if _CREDENTIALS.search(source.uri):
                raise ValueError(_CREDENTIALS_REFUSED.format(number))
        return sources


class WarmupParams(Section):
    """A warm-up model for IFD: a few epochs on a random part of the pool."""

    samples: int = Field(ge=1, description="records drawn from the pool; all if it has fewer")
    epochs: int = Field(ge=1, description="times each of them is trained on")
    rank: int = Field(ge=1, description="rank of the adapters, on all linear layers")
    alpha: float = Field(gt=0, description="scale: alpha / rank multiplies the adapters")
    learning_rate: float = Field(gt=0, description="of AdamW, constant")
    effective_batch: int = Field(ge=1, description="samples per optimizer step")


def _model(value: Any) -> Any:
    """Let a plain string stand for a model, and let a mapping leave out what is as usual."""
    if isinstance(value, str):
        return {"name": value, "revision": None, "trust_remote_code": False}
    if isinstance(value, Mapping):
        return {"revision": None, "trust_remote_code": False, **value}
    return value


class ScoreParams(Section):
    """The one offline inference pass (stage `score`)."""

    model: Annotated[ModelParams | None, BeforeValidator(_model)] = Field(
        description="another, smaller model for this pass: a name as in model.name, or a mapping of "
        "name, revision and trust_remote_code; null: the model that is trained"
    )
    batch_tokens: int = Field(ge=16, description="tokens per forward, padding included")
    embedding_depth_fraction: float = Field(
        ge=0, le=1, description="layer whose hidden states describe a prompt, as share of depth"
    )
    warmup: WarmupParams | None = Field(
        description="take IFD from a model warmed up first; null: from the model as it is"
    )


class ClusterParams(Section):
    """Dual-level clustering (stage `cluster`)."""

    difficulty_clusters: int = Field(
        ge=1, le=32767, description="K of K-means on IFD: the bandit's arms"
    )
    kmeans_restarts: int = Field(ge=1, description="K-means restarts; the best one counts")
    reduced_dimensions: int = Field(ge=1, description="PCA dimensions before HDBSCAN")
    min_cluster_size: int = Field(ge=2, description="HDBSCAN: smallest task cluster")
    fit_limit: int = Field(
        ge=10, description="records HDBSCAN is fitted on; more are assigned approximately"
    )


class GrowParams(Section):
    """Going on from an earlier run on a pool that has grown since (docs/growing.md)."""

    start_from: str | None = Field(
        min_length=1,
        description="folder with the artifacts of an earlier run, or champion: the training behind "
        "tracking.champion; its scores, labels, adapter and utilities are taken over; null: nothing is",
    )
    max_new_fraction: float = Field(
        ge=0, le=1, description="records that the clusters were not fitted on; more: fitted anew"
    )
    max_ifd_distance: float = Field(
        ge=0,
        le=1,
        description="Kolmogorov-Smirnov distance of their IFD from the fitted records', less what "
        "chance makes (95 %); more: fitted anew",
    )
    max_noise_rise: float = Field(
        ge=0,
        le=1,
        description="share of them without a task cluster, less that of the fitted records; more: "
        "fitted anew",
    )


class SelectParams(Section):
    """How many samples, and by which rule."""

    selector: str = Field(
        min_length=1, description="rule that chooses samples, one of those in selectors.md"
    )
    budget_fraction: float | None = Field(
        gt=0, le=1, description="distinct samples as share of the prepared pool"
    )
    budget_samples: int | None = Field(ge=1, description="distinct samples, instead of a share")
    visits_per_budget: float | None = Field(
        gt=0,
        description="training samples in all (repeats count) per distinct sample of budget; "
        "null: until the distinct budget is spent, as published",
    )
    max_rounds: int | None = Field(ge=1, description="stop after so many rounds; null: no limit")
    round_fraction: float = Field(
        gt=0, le=1, description="rho: share of the drawn cluster's eligible samples per round"
    )
    min_round_samples: int | None = Field(
        ge=1, description="smallest round; null: one effective batch"
    )
    max_uses: int = Field(ge=1, le=32767, description="times one sample may be trained on")
    cluster_size_power: float = Field(
        ge=0,
        le=1,
        description="informative: a task cluster's share of a round is its size to this power; "
        "1: in proportion, 0: all alike",
    )

    @field_validator("selector")
    @classmethod
    def _known_selector(cls, name: str) -> str:
        from lead_core.selectors import SELECTORS

        if name not in SELECTORS:
            raise ValueError(f"must be one of {', '.join(sorted(SELECTORS))}, got {name!r}")
        return name

    @model_validator(mode="after")
    def _one_budget(self) -> SelectParams:
        if (self.budget_fraction is None) == (self.budget_samples is None):
            raise ValueError(
                "set exactly one of budget_fraction and budget_samples, null the other"
            )
        return self


class BanditParams(Section):
    """EXP3 over difficulty clusters."""

    exploration: float = Field(gt=0, le=1, description="gamma: share of uniform draws")
    step_size: float = Field(
        gt=0,
        description="of the log-weights; the paper's equals gamma; "
        "larger learns within a short budget",
    )


class UtilityParams(Section):
    """Instance-level dynamic uncertainty (IDU)."""

    smoothing: float = Field(ge=0, lt=1, description="b: weight of the previous utility")
    loss_change: Literal["displacement", "paper", "none"] = Field(
        description="first-order change from the real parameter step, the published formula, or none"
    )
    round_loss_change: Literal["remaining", "whole"] = Field(
        description="charge a sample the steps after its own, or the whole round as published"
    )
    drift: Literal["none", "cluster"] = Field(
        description="cluster: unvisited samples follow the mean drop of their task cluster"
    )
    drift_prior_samples: float = Field(
        ge=0, description="drift: weight of 'nothing moved', in samples, against those trained"
    )
    sketch_size: int = Field(ge=64, description="buckets of the gradient sketch kept per cluster")
    displacement_snapshots: int = Field(
        ge=1, description="copies of the adapters kept within a round; more steps share a copy"
    )


class LoraParams(Section):
    """Low-rank adapters (peft)."""

    rank: int = Field(ge=1, description="rank of the adapters")
    alpha: float = Field(gt=0, description="scale: alpha / rank multiplies the adapters")
    dropout: float = Field(ge=0, lt=1, description="dropout on the adapters' input")
    target_modules: str | tuple[str, ...] = Field(
        description="all-linear, or the names of the modules to adapt"
    )


class TrainParams(Section):
    """The training loop (stage `train`)."""

    learning_rate: float = Field(
        gt=0,
        description="of AdamW at the first step; 1e-3 is for few steps of adapters on a model of 135M, "
        "larger models want less, billions of parameters about 1e-4 to 3e-4",
    )
    decay_factor: float = Field(gt=0, le=1, description="learning rate x this, every decay_steps")
    decay_steps: int = Field(ge=1, description="steps between two decays")
    weight_decay: float = Field(ge=0, description="of AdamW")
    max_grad_norm: float | None = Field(gt=0, description="gradient clipping; null: none")
    effective_batch: int = Field(ge=1, description="samples per optimizer step")
    micro_batch_tokens: int = Field(
        ge=16, description="tokens per forward and backward; does not change the objective"
    )
    loss_mean: Literal["sample", "token"] = Field(
        description="mean over samples of their token means, or over all response tokens"
    )
    max_skipped_steps: int = Field(
        ge=0,
        description="steps without an update, for a loss or gradient that is not a finite number, "
        "beyond which training fails",
    )
    checkpoint_every_rounds: int = Field(ge=1, description="rounds between two resumable states")
    checkpoint_every_steps: int | None = Field(
        ge=1,
        description="steps between two resumable states inside a round, which also hold up to "
        "utility.displacement_snapshots copies of the adapters; null: only when stopped",
    )
    monitor_every_rounds: int | None = Field(
        ge=1, description="held-out loss during training, every so many rounds; null: never"
    )
    monitor_samples: int = Field(ge=1, description="held-out records used for monitoring")
    lora: LoraParams = Field(description="low-rank adapters")


class TaskParams(Section):
    """One entry of `evaluate.tasks`."""

    task: str = Field(min_length=1, description="lm-eval task, group or tag")
    num_fewshot: int | None = Field(
        ge=0, description="examples in every prompt; null: as the task defines it"
    )
    limit: int | None = Field(
        ge=1, description="documents of each task behind the name; null: evaluate.limit"
    )

    @classmethod
    def named(cls, name: str) -> TaskParams:
        """Return what a plain name stands for: a task as it is defined."""
        return cls.model_validate(_task(name))


def _task(value: Any) -> Any:
    """Let a plain string stand for a task, and let a mapping leave out what it does not change."""
    if isinstance(value, str):
        return {"task": value, "num_fewshot": None, "limit": None}
    if isinstance(value, Mapping):
        return {"num_fewshot": None, "limit": None, **value}
    return value


class EvaluateParams(Section):
    """lm-eval over base and tuned model (stage `evaluate`)."""

    tasks: tuple[Annotated[TaskParams, BeforeValidator(_task)], ...] = Field(
        min_length=1,
        description="lm-eval tasks, groups or tags: names, or mappings of task, num_fewshot and limit",
    )
    run_generated_code: bool = Field(
        description="let tasks run programs that the model wrote (humaneval), in a sandbox: security.md"
    )
    data_dir: str | None = Field(
        description="folder with the benchmarks' rows as files (evaluation.md); null: from the hub"
    )
    limit: int | None = Field(ge=1, description="documents per task; null: all")
    seed: int = Field(
        ge=0,
        lt=2**32,
        description="of few-shot examples and sampled answers; lm-eval's own is 1234",
    )
    batch_size: int = Field(ge=1, description="lm-eval batch size")
    bootstrap_samples: int = Field(ge=0, description="lm-eval's resamples for standard errors")

    @property
    def task_names(self) -> tuple[str, ...]:
        """What `tasks` names, in that order."""
        return tuple(entry.task for entry in self.tasks)


class CompareParams(Section):
    """Selectors x seeds on the pipeline's pool (`lead compare`, compare/dvc.yaml)."""

    baseline: str = Field(
        min_length=1, description="selector that the others are held against, one of `selectors`"
    )
    selectors: tuple[str, ...] = Field(min_length=1, description="selectors compared")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        min_length=1, description="seeds of the trainings; data keep the pipeline's own `seed`"
    )
    fewer_seeds: dict[str, Annotated[int, Field(ge=1)]] = Field(
        description="selector: how many of the seeds it gets, the first ones; others get all"
    )
    curve_seeds: int = Field(
        ge=0, description="seeds with held-out losses taken during training, for curves"
    )
    curve_points: int = Field(ge=1, description="about how many of them per training")
    results: str | None = Field(
        description="folder where finished cells are kept as small files to commit, and taken from; "
        "null: artifacts/compare"
    )

    @model_validator(mode="after")
    def _consistent(self) -> CompareParams:
        from lead_core.selectors import SELECTORS

        unknown = [name for name in self.selectors if name not in SELECTORS]
        if unknown:
            raise ValueError(
                f"selectors must be of {', '.join(sorted(SELECTORS))}, got {', '.join(unknown)}"
            )
        for name, values in (("selectors", self.selectors), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must name each one once, got {list(values)}")
        if self.baseline not in self.selectors:
            raise ValueError(f"baseline must be one of selectors, got {self.baseline!r}")
        others = set(self.selectors) - {self.baseline}
        strange = sorted(set(self.fewer_seeds) - others)
        if strange:
            raise ValueError(
                f"fewer_seeds must name selectors other than the baseline, got {', '.join(strange)}"
            )
        if any(count > len(self.seeds) for count in self.fewer_seeds.values()):
            raise ValueError(
                f"fewer_seeds must be at most {len(self.seeds)}, the number of seeds, got "
                f"{self.fewer_seeds}"
            )
        if self.results and (Path(self.results).is_absolute() or ".." in Path(self.results).parts):
            raise ValueError(f"results must be a path inside the workspace, got {self.results!r}")
        return self


class ReportParams(Section):
    """The report page (stage `report`)."""

    top_records: int = Field(ge=1, description="most and least useful records shown with text")


class TrackingParams(Section):
    """MLflow; never part of a result."""

    uri: str | None = Field(description="MLflow tracking URI; null: mlflow.db in the workspace")
    experiment: str = Field(min_length=1, description="MLflow experiment")
    champion: str | None = Field(
        pattern=r"^[\w -]+$",
        description="registered model whose alias `champion` an adapter gets that is better than the "
        "base model and the last champion (operations.md); null: none",
    )


class Params(Section):
    """All of `params.yaml`."""

    seed: int = Field(ge=0, lt=2**32, description="seeds every random choice")
    runtime: RuntimeParams
    model: ModelParams
    data: DataParams
    score: ScoreParams
    cluster: ClusterParams
    grow: GrowParams
    select: SelectParams
    bandit: BanditParams
    utility: UtilityParams
    train: TrainParams
    evaluate: EvaluateParams
    compare: CompareParams
    report: ReportParams
    tracking: TrackingParams

    @property
    def scoring_model(self) -> ModelParams:
        """Return the model that makes the offline pass."""
        return self.score.model or self.model

    def misleading_scores(self, selector: str) -> str | None:
        """Return what is wrong with `selector` on scores of another model, None if nothing is."""
        from lead_core.selectors import SELECTORS, on_any_scores

        if self.score.model is None or not SELECTORS[selector].starts_from_losses:
            return None
        return (
            f"score.model scores with {self.score.model.name}, but {selector} starts from the trained "
            f"model's own losses; use one of {', '.join(on_any_scores())}, or set score.model to null"
        )

    @model_validator(mode="after")
    def _selector_fits_the_scores(self) -> Params:
        if problem := self.misleading_scores(self.select.selector):
            raise ValueError(f"select.selector: {problem}")
        return self


def load_params(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read and check `path`, after applying overrides of the form ``section.key=value``.

    Raises ProblemsError naming every problem of the file at once, each as
    ``params.yaml: section.key must ..., got ...``.
    """
    return parse_params(override(read_mapping(path), overrides), where=path.name)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the YAML mapping in `path`, read without any constructor beyond plain data."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LeadError(
            f"{path} is not there; run inside a LEAD workspace (a folder with dvc.yaml and params.yaml)"
        ) from None
    except _NOT_YAML as error:
        raise LeadError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error
    if _holds_too_much(value):
        raise LeadError(
            f"{path.name} stands for more than {_MOST_VALUES:,} values; do without aliases of aliases"
        )
    if not isinstance(value, dict):
        raise LeadError(f"{path.name} must hold a mapping of sections, got {type(value).__name__}")
    return value


# The last four are what PyYAML's own constructors raise for `2024-13-01` or `!!bool x`.
_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, KeyError, AttributeError, TypeError)
_MOST_VALUES = 100_000  # aliases of aliases reach any number in a few lines, or never end


def _holds_too_much(value: Any) -> bool:
    """Whether `value`, written out, holds more than `_MOST_VALUES` values."""
    open_, seen = [value], 0
    while open_ and seen <= _MOST_VALUES:
        one = open_.pop()
        seen += 1
        if isinstance(one, Mapping):
            open_ += [*one, *one.values()]
        elif isinstance(one, list | set | tuple):
            open_ += one
    return bool(open_)


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split ``a.b=value`` into its path and its YAML value."""
    name, equals, value = text.partition("=")
    if not equals or not all(name.split(".")):
        raise LeadError(f"--set {text}: expected section.key=value")
    try:
        parsed = yaml.safe_load(value)
    except _NOT_YAML as error:
        raise LeadError(f"--set {text}: the value is not valid YAML") from error
    if _holds_too_much(parsed):
        raise LeadError(f"--set {name}: the value stands for more than {_MOST_VALUES:,} values")
    return name.split("."), parsed


def override(mapping: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `mapping` with each ``a.b=value`` applied; the key must exist already."""
    result = _copied(mapping)
    for text in overrides:
        path, value = parse_override(text)
        _assign(result, path, value, told_by=f"--set {text}")
    return result


def with_fixed(params: Params, fixes: Mapping[str, object]) -> Params:
    """Return `params` with each ``section.key`` of `fixes` set to its value, and checked again."""
    result = params.model_dump()
    for name, value in fixes.items():
        _assign(result, name.split("."), value, told_by=f"{params.select.selector} fixes {name}")
    return parse_params(result, where=f"params.yaml with select.selector {params.select.selector}")


def effective_params(params: Params) -> tuple[Params, list[str]]:
    """Return `params` with what its selector fixes, and a line for each value that this changed."""
    from lead_core.selectors import get_selector

    effective = with_fixed(params, get_selector(params.select.selector).fixes)
    return effective, [
        f"select.selector {params.select.selector} fixes {change}"
        for change in differences(params, effective)
    ]


def is_section(path: Sequence[str]) -> bool:
    """Whether `path` names a section of the schema, not one value (which may be a mapping too)."""
    model: Any = Params
    for key in path:
        field = model.model_fields.get(key)
        parts = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((p for p in parts if isinstance(p, type) and issubclass(p, Section)), None)
        if model is None:
            return False
    return True


def differences(before: Params, after: Params) -> list[str]:
    """Return ``section.key: old -> new`` for each value that is not the same in both.

    A section that comes or goes is shown whole.
    """
    return list(_changes("", before.model_dump(mode="json"), after.model_dump(mode="json")))


def _changes(name: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _changes(f"{name}.{key}" if name else key, old.get(key), new.get(key))
    elif old != new:
        yield f"{name}: {old!r} -> {new!r}"


def parse_params(mapping: Mapping[str, Any], *, where: str = "params.yaml") -> Params:
    """Check a plain mapping against the schema; all problems in one ProblemsError."""
    try:
        return Params.model_validate(mapping)
    except ValidationError as error:
        problems = [_explain(dict(problem)) for problem in error.errors()]
        raise ProblemsError(where, problems) from None


def flatten(params: Params) -> dict[str, Any]:
    """Return ``{"section.key": value}`` for tables and experiment tracking."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    visit("", params.model_dump(mode="json"))
    return flat


def _assign(mapping: dict[str, Any], path: Sequence[str], value: object, *, told_by: str) -> None:
    """Set the value at `path`, which must be there already."""
    section: Any = mapping
    for depth, key in enumerate(path[:-1]):
        section = section.get(key) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise LeadError(f"{told_by}: params.yaml has no section {'.'.join(path[: depth + 1])}")
    if path[-1] not in section:
        raise LeadError(f"{told_by}: params.yaml has no key {'.'.join(path)}")
    section[path[-1]] = value


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, list) else value


_BOUNDS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}

_KINDS = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a section of keys",
}


def _explain(problem: dict[str, Any]) -> str:
    """Turn one pydantic error into ``section.key must ..., got ...``."""
    name = ".".join(str(part) for part in problem["loc"])
    kind, got, context = problem["type"], problem.get("input"), problem.get("ctx", {})
    if kind == "missing":
        return f"{name} is missing"
    if kind == "extra_forbidden":
        return f"{name} is not a known key; see docs/parameters.md for the known ones"
    if kind in _BOUNDS:
        interval = _interval(problem["loc"])
        if interval:
            return f"{name} must be in {interval}, got {got!r}"
        sign, key = _BOUNDS[kind]
        return f"{name} must be {sign} {context[key]:g}, got {got!r}"
    if kind == "literal_error":
        return f"{name} must be one of {context['expected']}, got {got!r}"
    if kind in _KINDS:
        return f"{name} must be {_KINDS[kind]}, got {got!r}"
    if kind == "value_error":
        text = str(context["error"])
        if not name:  # about several sections, which it names itself
            return text
        return f"{name} {text}" if text.startswith("must ") else f"{name}: {text}"
    return f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {got!r}"


def _interval(location: tuple[Any, ...]) -> str | None:
    """Return the interval of a field with two bounds, as ``(0, 1]``; None with fewer."""
    model: type[BaseModel] | None = Params
    field = None
    for part in location:
        if model is None or not isinstance(part, str) or part not in model.model_fields:
            return None
        field = model.model_fields[part]
        inner = field.annotation
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    if field is None:
        return None
    low = high = None
    for bound in field.metadata:
        for attribute, form in (("gt", "({}"), ("ge", "[{}")):
            if hasattr(bound, attribute):
                low = form.format(getattr(bound, attribute))
        for attribute, form in (("lt", "{})"), ("le", "{}]")):
            if hasattr(bound, attribute):
                high = form.format(getattr(bound, attribute))
    return f"{low}, {high}" if low and high else None

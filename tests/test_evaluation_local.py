"""Stock tasks on local files are the stock tasks: the same prompts, filters, metrics and figures."""

import gzip
import json
from pathlib import Path

import datasets
import pytest
from conftest import make_model, make_tokenizer
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from toy_artifacts import turn, write_records
from toy_benchmarks import LANGUAGES, benchmark_rows, write_benchmarks

from lead_core import evaluation
from lead_core.benchmark_files import load_rows
from lead_core.errors import LeadError
from lead_core.evaluation import evaluate, load_tasks
from lead_core.evaluation_index import BENCHMARK_FOLDERS, STOCK, quiet_lm_eval, resolve_tasks
from lead_core.model import ResolvedRuntime, add_adapter
from lead_core.params import TaskParams

SUBJECTS = tuple(
    sorted(path.stem.removeprefix("mmlu_") for path in (STOCK / "mmlu/default").glob("mmlu_*.yaml"))
)
CONTEXT = 8192  # a byte is a token here


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    write_benchmarks(folder, subjects=SUBJECTS)
    return folder


@pytest.fixture
def stock(monkeypatch):
    """lm-eval's own tasks; only the hub is replaced by the rows that stand in the files."""
    rows = benchmark_rows(SUBJECTS)

    def load_dataset(path, name=None, **_settings):
        if path == "cais/mmlu":
            files = {"dev": "mmlu/dev.jsonl", "test": "mmlu/test.jsonl"}
            keep = lambda row: row["subject"] == name  # noqa: E731
        elif path == "openai/gsm8k":
            files, keep = {"train": "gsm8k_train.jsonl", "test": "gsm8k_test.jsonl"}, bool
        else:
            files = {split: f"tydiqa/{split}.jsonl" for split in ("train", "validation")}
            keep = bool
        return {
            split: datasets.Dataset.from_list(list(filter(keep, rows[file])))
            for split, file in files.items()
        }

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with quiet_lm_eval():
        yield TaskManager(include_path=list(BENCHMARK_FOLDERS), include_defaults=False)


def load_local(data_dir, *entries, limit=None):
    return load_tasks(
        [TaskParams.model_validate({"num_fewshot": None, "limit": None, **e}) for e in entries],
        pool=data_dir,
        tokenizer=make_tokenizer(),
        max_length=CONTEXT,
        data_dir=data_dir,
        limit=limit,
    )


def requests_of(task):
    return [(i.request_type, i.args, i.idx, i.doc_id, i.repeats) for i in task.instances]


def definition_of(task):
    """All that defines a task but where its rows come from."""
    kept = task.dump_config()
    for name in ("custom_dataset", "dataset_kwargs", "metadata"):
        kept.pop(name, None)
    return kept, task.VERSION, [[type(f).__name__ for f in e.filters] for e in task._filters]


@pytest.mark.parametrize(
    ("name", "num_fewshot", "tasks"),
    [
        ("mmlu", 5, 57),
        ("mmlu_anatomy", None, 1),
        ("gsm8k", None, 1),
        ("gsm8k", 2, 1),
        ("gsm8k_cot", None, 1),
        ("tydiqa_goldp", 3, 9),
    ],
)
def test_prompts_and_definitions_are_the_stock_ones(stock, data_dir, name, num_fewshot, tasks):
    loaded = load_local(data_dir, {"task": name, "num_fewshot": num_fewshot, "limit": 2})
    expected = stock.load([name])
    assert list(loaded.tasks) == list(expected["tasks"])
    assert len(loaded.tasks) == tasks
    assert loaded.groups.keys() == expected["groups"].keys()
    for leaf, task in expected["tasks"].items():
        if num_fewshot is not None or task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", num_fewshot or 0)
        task.set_fewshot_seed(1234)
        task.build_all_requests(limit=2)
        assert requests_of(loaded.tasks[leaf]) == requests_of(task)
        assert definition_of(loaded.tasks[leaf]) == definition_of(task)


def test_the_papers_examples_are_in_the_prompts(data_dir):
    loaded = load_local(
        data_dir,
        {"task": "mmlu_anatomy", "num_fewshot": 5},
        {"task": "gsm8k_cot"},
        {"task": "tydiqa_goldp", "num_fewshot": 3},
        limit=1,
    )
    shots = {
        "mmlu_anatomy": ("Answer:", 6),
        "gsm8k_cot": ("Q: ", 9),
        "tydiqa_goldp_fi": ("Vast", 4),
    }
    for name, (marker, count) in shots.items():
        assert loaded.tasks[name].instances[0].args[0].count(marker) == count
    assert "What is 0 of dev" in loaded.tasks["mmlu_anatomy"].instances[0].args[0]  # the first ones
    assert set(loaded.tasks) == {
        *("mmlu_anatomy", "gsm8k_cot"),
        *(f"tydiqa_goldp_{language}" for language in LANGUAGES),
    }


def test_figures_are_those_of_lm_evals_own_entry_point(stock, data_dir, tmp_path):
    names = ["mmlu_anatomy", "mmlu_virology", "gsm8k", "tydiqa_goldp_en"]
    model, tokenizer = make_model(), make_tokenizer()
    model.config.max_position_embeddings = CONTEXT
    theirs = [stock.load([name])["tasks"][name] for name in names]
    ours = load_local(data_dir, *({"task": name, "num_fewshot": 1} for name in names), limit=2)
    for task in [*theirs, *ours.tasks.values()]:
        if task.OUTPUT_TYPE == "generate_until":
            task.set_config("generation_kwargs", {"max_gen_toks": 12}, update=True)
    for task in ours.tasks.values():
        task.set_fewshot_seed(1234)
        task.build_all_requests(limit=2)
    expected = evaluator.simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2),
        tasks=theirs,
        task_manager=stock,
        limit=2,
        num_fewshot=1,
        bootstrap_iters=0,
    )
    tuned = add_adapter(
        model, rank=2, alpha=4, dropout=0.0, target_modules="all-linear", seed=0
    ).eval()
    results = evaluate(
        model=tuned,
        tokenizer=tokenizer,
        runtime=ResolvedRuntime("cpu", 1, "fp32"),
        tasks=ours,
        batch_size=2,
        bootstrap_samples=0,
        inputs={"model_sha256": "m" * 64, "adapter_sha256": "a" * 64},
        cache=tmp_path / "cache",
        out=tmp_path / "eval",
    )
    for name in names:
        figures = {
            key.removesuffix(",none"): value
            for key, value in expected["results"][name].items()
            if "," in key and "_stderr" not in key
        }
        assert results["tasks"][name]["base"] == figures
        assert results["tasks"][name]["tuned"] == figures  # a fresh adapter changes nothing
        assert (results["tasks"][name]["n"], results["tasks"][name]["num_fewshot"]) == (2, 1)


def test_humaneval_reads_the_same_folder(data_dir, tmp_path):
    (tmp_path / "codes.yaml").write_text(
        "task: codes\ndataset_path: openai/openai_humaneval\ntest_split: test\n"
        "output_type: generate_until\ndoc_to_text: '{{prompt}}'\n"
        "doc_to_target: '{{test}}\\ncheck({{entry_point}})'\n"
        "generation_kwargs: {until: [x], max_gen_toks: 4, do_sample: false}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    loaded = load_tasks(
        ["codes"],
        pool=data_dir,
        tokenizer=make_tokenizer(),
        max_length=CONTEXT,
        data_dir=data_dir,
        folders=[tmp_path],
    )
    prompts = [request.args[0] for request in loaded.tasks["codes"].instances]
    assert prompts == [row["prompt"] for row in benchmark_rows()["humaneval_test.jsonl"]]
    [resolved] = resolve_tasks(["codes"], data_dir=data_dir, folders=[tmp_path])
    assert resolved.datasets == ()
    assert resolve_tasks(["codes"], folders=[tmp_path])[0].datasets == ("openai/openai_humaneval",)


def test_no_index_of_all_is_built_for_benchmarks_and_ours(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "stock_tasks", None)
    records = [("s", turn(f"Question {i}", f"Answer {i}")) for i in range(4)]
    write_records(tmp_path / "heldout.arrow", records, make_tokenizer())
    loaded = load_tasks(
        ["lead_heldout", "gsm8k", "mmlu_stem"],
        pool=tmp_path,
        tokenizer=make_tokenizer(),
        max_length=CONTEXT,
        data_dir=data_dir,
    )
    assert {"lead_heldout", "gsm8k", "mmlu_anatomy"} <= set(loaded.tasks)
    assert loaded.groups.keys() == {"mmlu_stem"}


def test_a_missing_file_is_one_line_before_anything_is_asked(data_dir, tmp_path):
    with pytest.raises(
        LeadError, match=r"^evaluate\.data_dir: no file .*mmlu/dev\.jsonl for cais/"
    ):
        load_tasks(
            ["mmlu_anatomy"],
            pool=tmp_path,
            tokenizer=make_tokenizer(),
            max_length=CONTEXT,
            data_dir=tmp_path,
        )


@pytest.mark.slow
def test_the_benchmarks_own_folders_hold_what_lm_evals_whole_index_does():
    from lead_core.evaluation_index import near_names, near_tasks, stock_tasks

    with quiet_lm_eval():
        near = near_names(near_tasks([], data_dir=None, scratch=STOCK))
        whole = stock_tasks().task_index
    assert {"mmlu", "gsm8k_cot", "tydiqa_goldp"} <= near.keys()
    for name, entry in near.items():
        assert (entry.kind, entry.tags) == (whole[name].kind, whole[name].tags)
        assert entry.yaml_path == whole[name].yaml_path


REAL_DATA = next(
    (p / "shared/data" for p in Path(__file__).parents if (p / "shared/data/mmlu").is_dir()), None
)


@pytest.mark.slow
@pytest.mark.skipif(REAL_DATA is None, reason="no folder shared/data above the repository")
def test_the_default_model_scores_as_in_lm_eval_with_one_forward_per_question(
    tmp_path, monkeypatch
):
    """SmolLM2 on MMLU itself: lm-eval's class and entry point against ours, question by question."""
    from lead_core.assets import resolve_model
    from lead_core.chat import load_tokenizer
    from lead_core.model import load_model

    resolved = resolve_model("embedded://smollm2-135m-instruct", None)
    tokenizer = load_tokenizer(resolved, trust_remote_code=False)
    model = load_model(resolved, device="cpu", attention="auto", trust_remote_code=False)
    loaded = load_tasks(
        [
            TaskParams(task=f"mmlu_{name}", num_fewshot=5, limit=4)
            for name in ("anatomy", "virology")
        ],
        pool=tmp_path,
        tokenizer=tokenizer,
        max_length=CONTEXT,
        data_dir=REAL_DATA,
    )

    def load_dataset(path, name=None, **_settings):
        return load_rows(benchmark=path, folder=str(REAL_DATA), splits=["dev", "test"], subset=name)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with quiet_lm_eval():
        manager = TaskManager(include_path=list(BENCHMARK_FOLDERS), include_defaults=False)
        expected = evaluator.simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
            tasks=list(loaded.tasks),
            task_manager=manager,
            num_fewshot=5,
            limit=4,
            bootstrap_iters=0,
        )
    results = evaluate(
        model=add_adapter(
            model, rank=2, alpha=4, dropout=0.0, target_modules="all-linear", seed=0
        ).eval(),
        tokenizer=tokenizer,
        runtime=ResolvedRuntime("cpu", 1, "fp32"),
        tasks=loaded,
        batch_size=4,
        bootstrap_samples=0,
        inputs={"model_sha256": resolved.sha256, "adapter_sha256": "a" * 64},
        cache=tmp_path / "cache",
        out=tmp_path / "eval",
    )
    # Base and tuned: questions, not choices, and the examples of each subject.
    assert results["forwards"]["sequences"] == 2 * (8 + 2)
    for name in loaded.tasks:
        assert results["tasks"][name]["base"]["acc"] == expected["results"][name]["acc,none"]
        path = tmp_path / f"eval/samples/{name}.jsonl.gz"
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        for row, sample in zip(rows, expected["samples"][name], strict=True):
            assert row["prompt_sha256"] == sample["prompt_hash"]
            for [(got, greedy)], [(value, same)] in zip(
                row["base"]["answers"], sample["resps"], strict=True
            ):
                assert (got, greedy) == (pytest.approx(value, abs=1e-3), same)

"""MMLU against lm-eval's real command line, on a toy model: the same questions, the same answers."""

from pathlib import Path

import pytest
from test_evaluation_local import SUBJECTS
from toy_benchmarks import write_benchmarks

from lead_core.assets import resolve_model
from lead_core.bench.evaluation import EvaluationResult, EvaluationSettings, measure_evaluation
from lead_core.chat import load_tokenizer
from lead_core.model import ResolvedRuntime


@pytest.mark.slow
def test_our_evaluation_and_lm_evals_command_line_give_the_same_answers(
    tmp_path: Path, tiny_model_folder
):
    write_benchmarks(tmp_path, subjects=SUBJECTS)
    model = resolve_model(str(tiny_model_folder), None)
    settings = EvaluationSettings(
        data_dir=tmp_path,
        subjects=3,
        batch_size=8,
        runtime=ResolvedRuntime("cpu", 1, "fp32"),
        attention="eager",
        seed=1234,
    )
    tokenizer = load_tokenizer(model, trust_remote_code=False)
    result = measure_evaluation(model, tokenizer, settings)
    assert result.questions == 3 * 4
    assert result.accuracy["ours"] == pytest.approx(result.accuracy["lm-eval"])
    assert min(result.seconds.values()) > 0


def test_the_ratio_is_of_both_models_together_and_accuracies_must_be_the_same():
    result = EvaluationResult(
        questions=57,
        seconds={"ours": 20.0, "lm-eval": 90.0},
        accuracy={"ours": (0.25, 0.5), "lm-eval": (0.25, 0.375)},
    )
    figures = result.figures()
    assert [figure.value for figure in figures] == [20.0, 90.0, 4.5, 0.125]
    assert [f.target.is_met(f.value) for f in figures if f.target] == [True, False]

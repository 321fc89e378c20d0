"""Tables and verdicts from figures made up by hand."""

import io

import matplotlib.image
import pytest

from lead_core.fidelity import GROUPS, LAST_SEEN, STALE, Estimator, estimators_for
from lead_core.fidelity_plot import fidelity_plot
from lead_core.fidelity_report import figures_frame, judge, last_rounds, markdown, rounds_reached

NAMES = [estimator.name for estimator in estimators_for(0.1)]
OWN = Estimator("displacement", False, 0.1, False).name
DRIFT = Estimator("displacement", False, 0.1, True).name
NONE = Estimator("none", False, 0.1, False).name


def figures(spearman, mae, bias=0.0, n=10):
    return {"spearman": spearman, "mae": mae, "bias": bias, "n": n}


def make_result(seed=0, *, rounds=2, change=0.0):
    """Two naive estimates, IDU ahead of both, IDU without a loss change behind `last_seen`."""
    by_rule = {name: figures(0.90, 0.20) for name in NAMES}
    by_rule |= {
        STALE: figures(0.85, 0.30),
        LAST_SEEN: figures(0.92, 0.15, 0.15),
        OWN: figures(0.96 + change, 0.10),
        NONE: figures(0.93, 0.16),
    }
    unvisited = dict.fromkeys(NAMES, figures(0.91, 0.20)) | {DRIFT: figures(0.89, 0.10)}
    groups = {"trained": by_rule, "fresh": by_rule, "unvisited": unvisited}
    row = {
        "seen_minus_true_before": {"mean": 0.02, "n": 4},
        "groups": {g: {"n": 10, "true_mean": 1.0, "estimators": groups[g]} for g in GROUPS},
    }
    return {
        "seed": seed,
        "selector": "lead",
        "pool_size": 1340,
        "estimators": NAMES,
        "configured": OWN,
        "commit": "abc123",
        "hashes": {"pool_sha256": "p" * 64, "model_sha256": "m" * 64},
        "params": {"utility": {"smoothing": 0.1}, "train": {"lora": {"dropout": 0.1}}},
        "trajectory": {"distinct": 40 + seed},
        "rounds": [{"round": number + 1, **row} for number in range(rounds)],
    }


def means_of(*results):
    last = last_rounds(figures_frame(results))
    return last.groupby(["group", "estimator"])[["spearman", "mae", "bias"]].mean()


def test_targets_are_judged_by_the_means_over_seeds():
    verdicts = judge(means_of(make_result(0, change=-0.03), make_result(1, change=0.01)), OWN, 12)
    assert verdicts == {
        "Spearman of trained samples at least 0.95": "reached (0.950)",
        "Spearman of unvisited samples at least 0.90": "reached (0.910)",
        "trained samples: better than stale": "reached",
        "trained samples: better than last_seen": "reached",
        "unvisited samples: better than stale": "missed (equal)",
    }


def test_the_spearman_targets_apply_from_the_twelfth_round_of_every_seed():
    verdicts = judge(means_of(make_result()), OWN, 11)
    assert list(verdicts.values()) == [
        "not applicable before round 12 (0.960)",
        "not applicable before round 12 (0.910)",
        "reached",
        "reached",
        "missed (equal)",
    ]
    long, short = make_result(0, rounds=13), make_result(1, rounds=11)
    assert rounds_reached([long, short]) == 11
    assert "not applicable before round 12 (0.960)" in markdown([long, short], "lead fidelity")
    assert "not applicable" not in markdown([long], "lead fidelity")


def test_a_verdict_says_in_what_an_estimate_is_behind():
    means = means_of(make_result())
    assert judge(means, NONE, 12)["trained samples: better than last_seen"] == "missed (MAE)"
    assert judge(means, DRIFT, 12)["unvisited samples: better than stale"] == "missed (Spearman)"
    assert judge(means, NAMES[3], 12)["trained samples: better than last_seen"] == (
        "missed (Spearman and MAE)"
    )


def test_a_figure_that_is_not_defined_reaches_nothing():
    result = make_result()
    for row in result["rounds"]:
        row["groups"]["unvisited"]["estimators"] = dict.fromkeys(NAMES)
    verdicts = judge(means_of(result), OWN, 12)
    assert verdicts["Spearman of unvisited samples at least 0.90"] == "missed (not defined)"
    assert verdicts["unvisited samples: better than stale"] == "not defined"
    assert f"| {STALE} |  |  |  |" in markdown([result], "lead fidelity")


def test_the_table_holds_means_ranges_and_where_they_come_from():
    text = markdown(
        [make_result(0), make_result(1, change=0.02)], "lead fidelity --rounds 2 --seeds 0,1"
    )
    assert f"| **{OWN}** | 0.970 [0.960, 0.980] | 0.100 [0.100, 0.100] |" in text
    assert "after round 2: selector `lead`, pool of 1,340 records, seeds 0, 1;" in text
    assert "40 to 41 distinct samples" in text
    assert "lead fidelity --rounds 2 --seeds 0,1" in text
    assert "Commit abc123; pool pppppppppppp, model mmmmmmmmmmmm." in text
    assert "LoRA dropout 0.1. Loss seen in a round's first step minus the true loss" in text
    assert "+0.0200 nats/token (16 samples)" in text
    assert "+0.1500 nats/token (40 samples)" in text
    rows = [line.split("|")[1].strip(" *") for line in text.splitlines() if line.startswith("| ")]
    assert rows[1 : len(NAMES) + 1] == NAMES  # in the order of the estimators


def test_one_seed_has_no_range():
    assert f"| **{OWN}** | 0.960 | 0.100 | 0.000 |" in markdown([make_result()], "lead fidelity")


def test_each_seed_is_judged_by_its_own_last_round():
    frame = last_rounds(figures_frame([make_result(0, rounds=2), make_result(1, rounds=3)]))
    assert set(zip(frame["seed"], frame["round"], strict=True)) == {(0, 2), (1, 3)}


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_picture_is_the_same_for_the_same_figures(seeds):
    results = [make_result(seed) for seed in range(seeds)]
    picture = fidelity_plot(results)
    assert picture == fidelity_plot(results)
    assert matplotlib.image.imread(io.BytesIO(picture)).shape[0] > 500

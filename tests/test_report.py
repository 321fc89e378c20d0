import csv
import io
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import make_tokenizer
from matplotlib.colors import to_rgb
from toy_artifacts import HOSTILE, write_artifacts

from lead_core import report_plots
from lead_core.benchmark_check import Check
from lead_core.errors import LeadError
from lead_core.plots import DARK, LIGHT
from lead_core.report import collect_metrics, write_report
from lead_core.report_data import read_run
from lead_core.report_page import render_page, verdict
from lead_core.storage import read_json, write_json

METRICS = {
    "heldout_loss_base",
    "heldout_loss_tuned",
    "heldout_loss_difference",
    "heldout_loss_low",
    "heldout_loss_high",
    "heldout_records",
    "pool_records",
    "samples_distinct",
    "visits",
    "rounds",
    "optimizer_steps",
    "training_tokens",
    "forwards_offline",
    "forwards_selection",
    "forwards_training",
    "forwards_evaluation",
    "heldout_loss_tuned/gsm8k",
    "heldout_loss_tuned/code",
    f"heldout_loss_tuned/{HOSTILE}",
}


class Page(HTMLParser):
    """The page as a browser reads it: its tags with attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A LEAD run with its report; not to be changed."""
    layout = write_artifacts(tmp_path_factory.mktemp("lead"), make_tokenizer())
    summary = write_report(layout, top_records=4, settings={"seed": 0, "train.lora.rank": 16})
    page = (layout.report / "page" / "index.html").read_text(encoding="utf-8")
    return layout, summary, Page(page)


@pytest.fixture
def run(reported):
    return read_run(reported[0])


@pytest.fixture
def layout(reported, tmp_path):
    """The same run without a report, to be changed at will."""
    root = tmp_path / "artifacts"
    shutil.copytree(reported[0].pool.parent, root, ignore=shutil.ignore_patterns("report"))
    return type(reported[0]).below(root)


def change_results(layout, change):
    path = layout.evaluation / "results.json"
    results = read_json(path, made_by="test")
    change(results)
    write_json(path, results)


def test_metrics_hold_the_figures_that_others_read(reported):
    layout = reported[0]
    metrics = read_json(layout.report / "metrics.json", made_by="test")
    assert set(metrics) >= METRICS
    assert all(isinstance(value, int | float) for value in metrics.values())
    results = read_json(layout.evaluation / "results.json", made_by="test")
    pair = results["paired"]["lead_heldout/loss"]
    assert metrics["heldout_loss_difference"] == pair["difference"]
    assert metrics["heldout_loss_low"] == pair["low"]
    assert metrics["heldout_records"] == 12
    assert metrics["samples_distinct"] == 28
    assert metrics["visits"] == metrics["forwards_training"] == 32
    assert metrics["forwards_selection"] == 0
    assert metrics["forwards_evaluation"] == 6 + 24  # monitoring while training, then this stage
    assert metrics["gsm8k/exact_match,strict-match/tuned"] == 0.5


def test_the_summary_is_the_verdict_and_where_to_look(reported):
    _, summary, _ = reported
    first, second = summary.splitlines()
    assert first.startswith(
        "The tuned model's held-out loss is 0.2290 nats per response token lower"
    )
    assert second.endswith("report/page/index.html")


def test_the_page_needs_no_network_and_no_other_file(reported):
    page = reported[2]
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base"}
    assert page.attributes("src") and all(
        source.startswith("data:image/png;base64,") for source in page.attributes("src")
    )
    assert all(
        target.startswith("#") or target.endswith(".csv") or target == "../evaluation-times.html"
        for target in page.attributes("href")
    )
    policy = [a["content"] for tag, a in page.tags if a.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_links_lead_to_something(reported):
    layout, _, page = reported
    ids = set(page.attributes("id"))
    for target in page.attributes("href"):
        if target.startswith("#"):
            assert target[1:] in ids
        else:
            assert (layout.report / "page" / target).is_file()


def test_text_of_records_and_sources_is_escaped(reported):
    page = reported[2]
    opened = [tag for tag, _ in page.tags]
    assert "script" not in opened
    assert (
        opened.count("details") == 8
    )  # four most and four least useful, none closed by their text
    assert sum(HOSTILE in text for text in page.text) >= 8 + 1


def test_every_plot_is_beside_the_page_as_png_and_csv(reported):
    layout = reported[0]
    folder = layout.report / "page"
    names = {"heldout", "training", "bandit", "utility", "pool", "map", "composition"}
    assert {path.stem for path in (folder / "plots").glob("*.png")} == names
    assert {path.stem for path in folder.glob("*.csv")} == names
    assert {path.name for path in folder.iterdir() if path.suffix != ".csv"} == {
        "plots",
        "index.html",
    }
    rows = [json.loads(line) for line in (layout.train / "rounds.jsonl").read_text().splitlines()]
    with (folder / "bandit.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["probability_2"]) for row in table] == [r["probabilities"][2] for r in rows]
    assert [int(row["arm"]) for row in table] == [row["arm"] for row in rows]


def test_a_baseline_without_a_bandit_has_no_bandit_plot(tmp_path):
    layout = write_artifacts(tmp_path, make_tokenizer(), selector="random")
    write_report(layout, top_records=2)
    assert not (layout.report / "page" / "plots" / "bandit.png").exists()
    page = Page((layout.report / "page" / "index.html").read_text())
    assert "bandit" not in page.attributes("id")
    assert "utility" in page.attributes("id")
    assert any("random, seed 0" in text for text in page.text)


def test_equal_runs_give_equal_bytes_whatever_the_users_plot_settings(reported, layout):
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 7, "savefig.dpi": 50}):
        write_report(layout, top_records=4, settings={"seed": 0, "train.lora.rank": 16})
    first, second = reported[0].report / "page", layout.report / "page"
    files = [path.relative_to(first) for path in first.rglob("*.*")]
    assert len(files) == 15
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    text = (second / "index.html").read_text()
    assert str(layout.report.parent) not in text


def test_pictures_carry_no_date_and_no_version(reported):
    for path in (reported[0].report / "page" / "plots").iterdir():
        png = path.read_bytes()
        assert png.startswith(b"\x89PNG")
        assert not any(mark in png for mark in (b"tEXt", b"iTXt", b"tIME", b"atplotlib"))


def test_settings_ledger_and_hashes_are_on_the_page(reported):
    layout, _, page = reported
    words = " ".join(" ".join(page.text).split())
    assert "train.lora.rank 16" in words
    assert "train.selector lead" in words
    assert "evaluate.lm_eval 0.4.13" in words
    assert "selection 0 0 forwards run only in order to choose" in words
    assert read_json(layout.train / "manifest.json", made_by="test")["adapter_sha256"] in words


def test_what_the_selector_fixed_is_shown_instead_of_the_parameter(run):
    run.train_manifest["fixed"] = {"utility.smoothing": 0.0}
    page = render_page(run, [], top_records=1, settings={"utility.smoothing": 0.1})
    assert "utility.smoothing 0.0" in " ".join(" ".join(Page(page).text).split())


def test_passwords_in_settings_do_not_reach_the_page(run):
    sources = [{"uri": "https://me:secret@data.test/pool.jsonl", "name": None}]
    page = render_page(run, [], top_records=1, settings={"data.sources": sources})
    assert "data.test/pool.jsonl" in page
    assert "secret" not in page


def test_most_and_least_useful_records_are_those_of_extreme_utility_when_first_chosen(run):
    page = Page(render_page(run, [], top_records=3, settings={}))
    shown = [text for text in page.text if " to " in text and text.count(".") == 2]
    first = run.samples.drop_duplicates("id").sort_values("utility_before")
    expected = [
        f"{row.utility_before:.3f} to {row.utility_after:.3f}" for row in first.itertuples()
    ]
    assert shown[-6:] == [*expected[:-4:-1], *expected[:3]]


def test_no_record_is_listed_twice_when_few_were_selected(run):
    page = Page(render_page(run, [], top_records=100, settings={}))
    assert [tag for tag, _ in page.tags].count("details") == 28
    assert any("All selected records are listed above" in text for text in page.text)


def test_a_very_long_message_is_cut_and_says_so(run, monkeypatch):
    long = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x" * 10_000}]
    monkeypatch.setattr(type(run.pool), "messages", lambda self, index: long)
    page = render_page(run, [], top_records=1, settings={})
    assert "[6,000 more characters]" in page
    assert "x" * 4_000 in page and "x" * 4_001 not in page


@pytest.mark.parametrize(
    ("low", "high", "difference", "words"),
    [
        (-0.3, -0.1, -0.2, "is 0.2000 nats per response token lower than the base model's"),
        (0.1, 0.3, 0.2, "is 0.2000 nats per response token higher than the base model's"),
        (-0.1, 0.3, 0.1, "No significant difference"),
        (None, None, 0.1, "no interval: its loss changed by +0.1000"),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(run, low, high, difference, words):
    run.headline.update(low=low, high=high, difference=difference)
    assert words in verdict(run)


def test_without_heldout_evaluation_the_report_does_without(layout):
    def drop(results):
        del results["tasks"]["lead_heldout"]
        results["paired"] = {k: p for k, p in results["paired"].items() if "heldout" not in k}

    change_results(layout, drop)
    assert "was not evaluated" in write_report(layout, top_records=1)
    metrics = read_json(layout.report / "metrics.json", made_by="test")
    assert not any(name.startswith("heldout") for name in metrics)
    assert not (layout.report / "page" / "plots" / "heldout.png").exists()


def test_an_unknown_interval_is_left_out_of_the_metrics(run):
    run.headline.update(low=None, high=None, n=1)
    metrics = collect_metrics(run)
    assert metrics["heldout_loss_difference"] and "heldout_loss_low" not in metrics
    assert report_plots.heldout_plot(run).png


def test_the_check_against_benchmarks_is_on_the_page(run):
    page = render_page(run, [], top_records=1, settings={})
    assert "removed from the pool" in page
    assert "Evaluated without a check: arc_easy." in page
    kept = replace(run, decontamination=replace(run.decontamination, action="report"))
    assert "kept in the pool" in render_page(kept, [], top_records=1, settings={})
    for action, words in (("none", "Not looked for"), ("remove", "no data of others")):
        none = replace(run, decontamination=Check(action, (), ()))
        page = render_page(none, [], top_records=1, settings={})
        assert words in page
        assert "without a check" not in page


def test_each_reason_of_rejection_comes_with_the_first_record_that_had_it(reported):
    words = " ".join(" ".join(reported[2].text).split())
    assert "too_long 6" in words and "duplicate 3" in words
    assert "pool.jsonl, line 7: 300 tokens. " in words
    assert "half a surrogate: \\ud800" in words
    assert "line 8" not in words
    assert "pool.jsonl, record 9: of line 1. [1]" in words


def test_records_that_are_set_aside_are_counted_by_reason(run):
    run.records["set_aside"] = None
    assert "set aside by rules" not in render_page(run, [], top_records=1, settings={})
    run.records.loc[:2, "set_aside"] = ["non_finite", "ifd_not_below_one", "non_finite"]
    page = render_page(run, [], top_records=1, settings={})
    assert "by rules that read IFD: ifd_not_below_one 1, non_finite 2." in page


def test_nothing_rejected_is_said(run):
    run.pool_manifest["counts"]["rejected_by_reason"] = {}
    text = render_page(run, [], top_records=1, settings={})
    assert "<p>None.</p>" in text


def test_an_evaluation_of_another_adapter_is_refused_and_the_old_report_stays(layout):
    write_report(layout, top_records=1)
    before = (layout.report / "page" / "index.html").read_bytes()
    change_results(layout, lambda results: results["inputs"].update(adapter_sha256="0" * 64))
    with pytest.raises(LeadError, match=r"the evaluation was made .* run `dvc repro evaluate`"):
        write_report(layout, top_records=1)
    assert (layout.report / "page" / "index.html").read_bytes() == before


def test_a_training_on_another_pool_is_refused(layout):
    path = layout.train / "manifest.json"
    manifest = read_json(path, made_by="test")
    write_json(path, {**manifest, "pool_sha256": "0" * 64})
    with pytest.raises(LeadError, match=r"the training \(the pool\) .* run `dvc repro train`"):
        write_report(layout, top_records=1)


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("pool/manifest.json", "prepare"),
        ("pool/rejected.jsonl", "prepare"),
        ("decontamination.json", "prepare"),
        ("scores/manifest.json", "score"),
        ("train/rounds.jsonl", "train"),
        ("train/selection.parquet", "train"),
        ("eval/results.json", "evaluate"),
    ],
)
def test_a_missing_file_names_the_stage_to_run(layout, name, stage):
    path = layout.pool.parent / name
    path.unlink()
    with pytest.raises(
        LeadError, match=rf"{path.name} is not there; run `dvc repro {stage}` first"
    ):
        write_report(layout, top_records=1)


def records_of(n, **columns):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "id": [f"{i:04d}" for i in range(n)],
            "source": "one",
            "loss": rng.gamma(4, 0.5, n),
            "ifd": rng.uniform(0.3, 1.1, n),
            "tokens": rng.integers(20, 200, n),
            "difficulty": rng.integers(-1, 7, n),
            "task": rng.integers(0, 7, n),
            "uses": (np.arange(n) % 5 == 0).astype(int),
        }
    )
    return frame.assign(**columns)


def test_a_large_pool_is_drawn_in_part_and_the_caption_says_so(monkeypatch):
    monkeypatch.setattr(report_plots, "MOST_POINTS", 50)
    plot = report_plots.pool_plot(records_of(200))
    assert len(plot.data) == 50 + 40  # all selected ones are drawn
    assert "90 of 200 records are drawn" in plot.caption


def test_values_far_out_are_counted_instead_of_squeezing_the_rest():
    records = records_of(200)
    records.loc[7, "loss"] = 900.0
    records.loc[8, "ifd"] = np.inf
    plot = report_plots.pool_plot(records)
    assert "1 lie outside the frame" in plot.caption
    assert len(plot.data) == 199


def test_small_sources_share_one_bar_and_no_record_is_lost():
    names = [f"source {i:02d} $x$ with a very long name, longer than any axis" for i in range(40)]
    records = records_of(400, source=np.repeat(names, np.tile([5, 15], 20)))
    data = report_plots.composition_plot(records).data
    sources = data[data["by"] == "source"]
    assert len(sources) == report_plots.MOST_SOURCES
    assert sources["group"].iloc[-1] == "other (25)"
    for kind, rows in data.groupby("by"):
        assert rows["pool"].sum() == 400, kind
        assert rows["selected"].sum() == 80, kind
        assert rows["pool_share"].sum() == pytest.approx(1)


def test_plots_can_be_drawn_of_very_little(run):
    one = records_of(1)
    assert report_plots.pool_plot(one).png
    assert report_plots.composition_plot(one).png
    assert report_plots.composition_plot(records_of(3, tokens=7, uses=0)).png
    assert report_plots.training_plot(run.rounds[:1]).png
    assert report_plots.bandit_plot(run.rounds[:1]).png
    assert report_plots.utility_plot(run.samples.head(1)).png


def test_hundreds_of_rounds_and_exhausted_arms_can_be_drawn(run):
    rows = [{**run.rounds[0], "round": i, "arm": i % 7} for i in range(1, 401)]
    for row in rows:
        p = np.full(7, 1 / 7) if row["round"] < 200 else np.array([0, 0, 1, 1, 1, 1, 1]) / 5
        row["probabilities"] = p.tolist()
    plot = report_plots.bandit_plot(rows)
    assert plot.data["probability_0"].iloc[-1] == 0
    assert len(plot.data) == 400


def test_the_two_colours_differ_in_greyscale():
    def luminance(colour):
        return float(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)))

    assert luminance(LIGHT) - luminance(DARK) > 0.4


def test_the_csv_of_a_hostile_name_reads_back(reported):
    text = (reported[0].report / "page" / "heldout.csv").read_text()
    assert HOSTILE in pd.read_csv(io.StringIO(text))["source"].tolist()

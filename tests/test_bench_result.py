"""Figures of `lead bench`: medians, ratios, targets, and how they are shown."""

from dataclasses import dataclass

import pytest

from lead_core.bench.effort import QUICK
from lead_core.bench.interleaving import interleave
from lead_core.bench.machine import Machine
from lead_core.bench.report import BenchReport
from lead_core.bench.result import Figure, Target, as_json, table_rows
from lead_core.bench.spread import Spread, spread_of, spread_of_rates, spread_of_ratios
from lead_core.bench.stopwatch import Stopwatch


@dataclass(frozen=True)
class TwoSides:
    seconds: dict[str, tuple[float, ...]]

    def figures(self):
        ratio = spread_of_ratios(self.seconds["slow"], self.seconds["fast"])
        return [Figure("ratio", ratio, "x", Target(3.0)), Figure("difference", 0.00123, "")]


RESULT = TwoSides({"fast": (1.0, 2.0, 1.0), "slow": (4.0, 4.0, 5.0)})
MACHINE = Machine("EPYC", 2, ("avx2",), "cpu", 2, "bf16", "2.13.0", "3.11.2")


def test_a_spread_is_the_median_between_the_least_and_the_greatest():
    assert spread_of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)
    assert spread_of([3.0]) == Spread(3.0, 3.0, 3.0)
    assert spread_of([1.0, 2.0]).times(100) == Spread(150.0, 100.0, 200.0)


def test_rates_and_ratios_are_taken_repetition_by_repetition():
    assert spread_of_rates(12, (2.0, 3.0, 4.0)) == Spread(4.0, 3.0, 6.0)
    assert spread_of_ratios((4.0, 4.0, 5.0), (1.0, 2.0, 1.0)) == Spread(4.0, 2.0, 5.0)


def test_sides_take_turns():
    order = []

    def side(name, seconds):
        def turn():
            order.append(name)
            return seconds

        return turn

    seconds = interleave({"a": side("a", 1.0), "b": side("b", 2.0)}, 3)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert seconds == {"a": (1.0, 1.0, 1.0), "b": (2.0, 2.0, 2.0)}


def test_a_stopwatch_charges_every_second_to_the_innermost_part():
    moments = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0])
    watch = Stopwatch("outside", clock=lambda: next(moments))
    watch.switch("loop")  # at 1
    with watch.charged_to("step"), watch.charged_to("gradients"):  # from 3 and 6, to 15 and 10
        pass
    watch.switch("end")  # at 21
    assert watch.seconds == {"outside": 1.0, "loop": 8.0, "step": 8.0, "gradients": 4.0}


def test_targets_are_met_from_their_own_side():
    assert Target(3.0).is_met(3.0) and not Target(3.0).is_met(2.9)
    assert Target(3.0, at_most=True).is_met(3.0) and not Target(3.0, at_most=True).is_met(3.1)


def test_the_table_says_median_range_and_verdict():
    assert table_rows("sides", RESULT) == [
        ("sides", "ratio", "4 x", "2 to 5", "at least 3: met"),
        ("sides", "difference", "0.00123", "", ""),
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(1234.56, "1,235 x"), (99.96, "100 x"), (1.2345, "1.23 x"), (0, "0 x")]
)
def test_figures_have_three_digits_or_are_whole(value, text):
    @dataclass(frozen=True)
    class One:
        def figures(self):
            return [Figure("f", value, "x")]

    assert table_rows("one", One())[0][2] == text


def test_json_holds_every_repetition_and_the_figures():
    assert as_json(RESULT) == {
        "seconds": {"fast": (1.0, 2.0, 1.0), "slow": (4.0, 4.0, 5.0)},
        "figures": [
            {
                "name": "ratio",
                "value": {"median": 4.0, "low": 2.0, "high": 5.0},
                "unit": "x",
                "target": {"limit": 3.0, "at_most": False},
            },
            {"name": "difference", "value": 0.00123, "unit": "", "target": None},
        ],
    }


def test_a_report_tells_of_machine_results_and_what_was_skipped():
    report = BenchReport(MACHINE, "a/model", QUICK, {"sides": RESULT}, {"other": "no files"})
    assert report.as_json()["skipped"] == {"other": "no files"}
    assert report.as_json()["machine"]["features"] == ("avx2",)
    page = report.as_markdown("lead bench --quick")
    assert "| sides | ratio | 4 x | 2 to 5 | at least 3: met |" in page.splitlines()
    assert "- a/model on EPYC, 2 cores (avx2); cpu, 2 threads, bf16, torch 2.13.0" in page
    assert page.endswith("- other: skipped, no files\n")

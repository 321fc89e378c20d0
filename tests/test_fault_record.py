from types import SimpleNamespace

from fault_record import FaultRecord
from pytest import TestReport

from lead_core.storage import read_json

KILL = "tests/test_faults.py::test_a_kill_costs_time_alone[dvc-1]"


def report(nodeid, outcome, *, when="call", marks=("faults",), **properties):
    return TestReport(
        nodeid,
        ("tests/test_faults.py", 1, nodeid),
        dict.fromkeys(marks, 1),
        outcome,
        None,
        when,
        user_properties=list(properties.items()),
        duration=2.5,
    )


def test_a_fault_counts_as_injected_once_its_test_ran_and_as_survived_if_it_passed(tmp_path):
    out = tmp_path / "faults.json"
    record = FaultRecord(out, ("-m", "faults"))
    items = [SimpleNamespace(keywords={"faults": 1})] * 4 + [SimpleNamespace(keywords={})]
    record.pytest_collection_finish(SimpleNamespace(items=items))
    record.pytest_runtest_logreport(report(KILL, "passed", when="setup"))
    record.pytest_runtest_logreport(report(KILL, "passed", seconds_lost=12.34))
    record.pytest_runtest_logreport(report("tests/test_faults.py::test_a_full_disk", "failed"))
    record.pytest_runtest_logreport(report("tests/test_faults.py::test_read_only", "skipped"))
    record.pytest_runtest_logreport(report("tests/test_other.py::test_x", "passed", marks=()))
    found = read_json(out, made_by="make faults")
    assert found["command"] == "python -m pytest -m faults"
    assert len(found["commit"]) == 40
    assert [found[f"faults_{word}"] for word in ("planned", "injected", "survived")] == [4, 2, 1]
    assert found["seconds_lost"] == 12.3
    assert found["faults"] == [
        {
            "name": "a kill costs time alone",
            "case": "dvc-1",
            "survived": True,
            "seconds": 2.5,
            "seconds_lost": 12.3,
        },
        {
            "name": "a full disk",
            "case": "",
            "survived": False,
            "seconds": 2.5,
            "seconds_lost": None,
        },
    ]

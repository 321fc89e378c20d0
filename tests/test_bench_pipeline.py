"""Commands that are timed as a user calls them."""

import sys

import pytest

from lead_core.bench.pipeline import measure_pipeline
from lead_core.bench.result import NotMeasured


def measure(workspace, commands):
    limits = dict.fromkeys(commands, 60.0)
    return measure_pipeline(workspace, commands, limits=limits, environment={}, repetitions=2)


def test_every_command_runs_in_the_workspace_once_to_warm_up_and_then_by_turns(tmp_path):
    note = "import sys; open('log', 'a').write(sys.argv[1])"
    commands = {name: [sys.executable, "-S", "-c", note, name] for name in "ab"}
    result = measure(tmp_path, commands)
    assert (tmp_path / "log").read_text() == "ababab"
    assert [(f.name, f.unit, f.target.limit) for f in result.figures()] == [
        ("a", "s", 60.0),
        ("b", "s", 60.0),
    ]


def test_a_command_that_fails_is_not_measured(tmp_path):
    command = [sys.executable, "-S", "-c", "import sys; sys.exit('the disk is full')"]
    with pytest.raises(NotMeasured, match=r"`dvc repro` exits with 1 \(the disk is full\)"):
        measure(tmp_path, {"dvc repro": command})

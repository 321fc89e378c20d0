import os
import sys
from pathlib import Path

from flows.environment import set_prefect_environment, stage_environment


def test_prefect_is_pointed_at_the_workspace_and_the_users_values_win(monkeypatch, tmp_path):
    for name in ("DO_NOT_TRACK", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "true")
    set_prefect_environment(tmp_path)
    assert os.environ["PREFECT_HOME"] == str(tmp_path / ".prefect")
    assert os.environ["DO_NOT_TRACK"] == "true"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "true"


def test_a_stage_finds_our_interpreter_first_and_prints_unbuffered(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    environment = stage_environment({"LEAD_FLOW_RUN_ID": "x"})
    assert environment["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/usr/bin"
    assert (environment["PYTHONUNBUFFERED"], environment["LEAD_FLOW_RUN_ID"]) == ("1", "x")

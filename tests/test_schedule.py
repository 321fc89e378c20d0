import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from toy_workspace import (
    REPOSITORY,
    environment,
    lead,
    make_workspace,
    prefect_api,
    processes_in,
    processes_with,
    wait_for,
)


@pytest.fixture
def serve():
    """Start `lead serve` in a workspace; end it with the test."""
    started = []

    def start(folder, cron, **variables):
        process = subprocess.Popen(
            lead("serve", "--cron", cron),
            cwd=folder,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def flow_runs():
    """Return the runs of the served deployment as (state name, auto-scheduled)."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    served = DeploymentFilter(name=DeploymentFilterName(any_=["lead"]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(deployment_filter=served)
        return [(run.state_name, run.auto_scheduled) for run in runs]


def deployment():
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name("lead/lead")


def test_a_scheduled_run_appears_and_the_schedule_rests_while_nobody_serves(serve, tmp_path):
    process = serve(make_workspace(tmp_path), "0 3 * * *", PREFECT_API_URL=prefect_api())
    # With sqlalchemy 2.1 this never happens, and nothing says so.
    wait_for(lambda: ("Scheduled", True) in flow_runs())
    time.sleep(2)  # past the start of the runner, which pauses the schedule at its end
    found = deployment()
    assert found.global_concurrency_limit.limit == 1
    assert found.parameters == {"workspace": str(tmp_path)}
    assert found.entrypoint == "flows.pipeline.lead_pipeline"
    assert not found.paused
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert "Serving the pipeline at '0 3 * * *' (UTC)" in out
    assert "Traceback" not in out
    assert deployment().paused
    wait_for(lambda: not processes_in(tmp_path))


def test_an_expression_that_is_not_cron_is_refused_in_one_line(tmp_path):
    make_workspace(tmp_path)
    done = subprocess.run(
        lead("serve", "--cron", "every day"),
        cwd=tmp_path,
        env=environment(PREFECT_API_URL=prefect_api()),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --cron 'every day': ")
    assert done.stderr.count("\n") == 1


def test_a_flow_run_whose_process_is_gone_is_closed_once_it_was_seen_twice(tmp_path):
    prefect_api()
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Running

    from flows.dead_runs import close_dead_runs
    from flows.pipeline import lead_pipeline

    here = make_workspace(tmp_path)
    with get_client(sync_client=True) as client:
        ours, other = [
            client.create_flow_run(
                lead_pipeline, parameters={"workspace": str(at)}, state=Running()
            )
            for at in (here, here / "other")
        ]
        suspects = close_dead_runs(here, frozenset())
        assert suspects == {ours.id}
        (here / ".lead_state").mkdir(exist_ok=True)
        with (here / ".lead_state/writer.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # somebody works here: the run may be theirs
            assert close_dead_runs(here, suspects) == frozenset()
        assert client.read_flow_run(ours.id).state_name == "Running"
        assert close_dead_runs(here, suspects) == frozenset()
        closed = client.read_flow_run(ours.id).state
        assert (closed.name, closed.message) == (
            "Crashed",
            "its process was gone before the run had ended",
        )
        assert client.read_flow_run(other.id).state_name == "Running"
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert close_dead_runs(here, suspects) == frozenset()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "said"),
    [
        ("prefect server start", "error: Prefect's server ended by itself with exit code 137"),
        ("-m flows.schedule", "error: Prefect's runner ended by itself with exit code 137"),
    ],
)
def test_serving_ends_when_its_server_or_runner_is_killed(serve, tmp_path, victim, said):
    process = serve(make_workspace(tmp_path), "0 3 * * *")
    wait_for(lambda: processes_with(tmp_path, "-m flows.schedule"), seconds=180)
    for pid in processes_with(tmp_path, victim):
        os.kill(pid, signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
    assert said in out
    assert process.returncode == 75
    wait_for(lambda: not processes_in(tmp_path))


@pytest.mark.slow
def test_a_schedule_that_rested_goes_on_when_it_is_served_again(serve, tmp_path):
    make_workspace(tmp_path)
    for _ in range(2):
        process = serve(tmp_path, "0 3 * * *", PREFECT_API_URL=prefect_api())
        wait_for(lambda: ("Scheduled", True) in flow_runs() and not deployment().paused)
        time.sleep(2)  # past the start of the runner, which pauses the schedule at its end
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert deployment().paused


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_scheduled_run_runs_on_our_own_server_and_ends_with_it(serve, tmp_path, number):
    make_workspace(tmp_path)
    (tmp_path / "train.sh").write_text("touch started; sleep 300\n")
    process = serve(tmp_path, "* * * * *")
    wait_for((tmp_path / "started").exists, seconds=180)
    process.send_signal(number)
    process.communicate(timeout=120)
    wait_for(lambda: not processes_in(tmp_path), seconds=120)


def test_the_automation_is_one_that_prefect_takes():
    from prefect.events.schemas.automations import AutomationCore

    (described,) = yaml.safe_load((REPOSITORY / "prefect-automations.yaml").read_text())[
        "automations"
    ]
    automation = AutomationCore.model_validate(described)
    assert automation.trigger.posture == "Proactive"
    assert [action.type for action in automation.actions] == ["change-flow-run-state"]


@pytest.mark.slow
def test_prefect_yaml_deploys_without_a_path_of_this_machine_and_a_worker_runs_it(tmp_path):
    make_workspace(tmp_path)
    shutil.copy(REPOSITORY / "prefect.yaml", tmp_path)
    shutil.copytree(REPOSITORY / "flows", tmp_path / "flows")

    def prefect(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=tmp_path,
            env=environment(PREFECT_API_URL=prefect_api(), PREFECT_HOME=str(tmp_path / ".prefect")),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    prefect("work-pool", "create", "lead", "--type", "process")
    prefect("--no-prompt", "deploy", "--all")
    text = prefect("deployment", "inspect", "lead/pipeline", "--output", "json")
    assert str(tmp_path) not in text
    described = json.loads(text)
    assert [schedule["active"] for schedule in described["schedules"]] == [False]
    assert described["global_concurrency_limit"]["limit"] == 1
    prefect("deployment", "run", "lead/pipeline")
    prefect("worker", "start", "--pool", "lead", "--run-once")
    assert (tmp_path / "artifacts" / "report" / "metrics.json").exists()

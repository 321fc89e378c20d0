"""Flow runs that Prefect takes for running although their process is gone.

A flow reports its own end. Killed together with whoever watches it, or while the server is away, it
stays Running for ever and keeps the deployment's only concurrency slot, so that no scheduled run starts
again (measured with Prefect 3.8.8).
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from flows.workspace import hold_workspace
from lead_core.errors import LeadError


def close_dead_runs(workspace: Path, suspects: frozenset[UUID]) -> frozenset[UUID]:
    """Mark as crashed those of `suspects` that are still not finished; return whom to suspect next.

    Who holds the workspace's lock is alone in it: a run that is not finished then is dead, or about to
    start or to report its end. Hence suspects: only a run found so twice is closed, and the caller has
    to let more time pass between than a flow needs to start. An API that is away is no error.
    """
    import httpx  # what the client raises
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
    from prefect.states import Crashed

    ours = FlowFilter.model_validate({"name": {"any_": ["lead"]}})
    unfinished = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    )
    try:
        with get_client(sync_client=True) as client:
            found = {
                run.id
                for run in client.read_flow_runs(flow_filter=ours, flow_run_filter=unfinished)
                if run.parameters.get("workspace") == str(workspace)
            }
            if found:
                with hold_workspace(workspace):
                    pass  # free; and not kept, for a run that starts now must not be refused
            for run_id in found & suspects:
                client.set_flow_run_state(
                    run_id, Crashed(message="its process was gone before the run had ended")
                )
    except (LeadError, httpx.HTTPError):  # somebody works there, or the API is away
        return frozenset()
    return frozenset(found - suspects)

"""The list of runs as MLflow's web interface shows it, with the columns that people compare by.

The interface shows neither parameters nor metrics until somebody picks them, and has no setting for it.
But it opens a view that was shared, kept in a tag of the experiment: so we share one.
"""

from __future__ import annotations

import json

VIEW = "lead"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# The interface's names for check box, name and date of a run, which stay in front of ours.
OWN_COLUMNS = ("1", "attributes.`Run Name`", "runDateAndNestInfo")
# With a width in pixels: at the default one, all metrics of a task look alike.
COLUMNS = {
    "params.`select.selector`": 120,
    "params.`seed`": 60,
    "metrics.`eval/lead_heldout/loss`": 180,
    "metrics.`eval/lead_heldout/loss.difference`": 240,
    "metrics.`compare/heldout_loss`": 160,
    "metrics.`train/distinct`": 110,
    "tags.`lead.promotion`": 260,
}


def view_state() -> str:
    """Return the view as MLflow's interface keeps it; what is not said stays as it ships."""
    return json.dumps(
        {
            "selectedColumns": list(COLUMNS),
            "columnOrder": [*OWN_COLUMNS, *COLUMNS],
            "columnWidths": COLUMNS,
        }
    )


def view_address(server: str, experiment_id: str) -> str:
    """Return where `server` shows the runs of an experiment in our view."""
    return f"{server}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}"

"""Run one stage: ``python -m flows.stages NAME [--set section.key=value]``, as dvc.yaml does.

Exit codes: 0; 2 for a user's mistake; 75 when a retry may help (`TransientError`).
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
import warnings
from pathlib import Path

from flows.stages import COMPARISON_STAGES, STAGES
from lead_core.errors import LeadError
from lead_core.params import load_params
from lead_core.shortage import shortage_advice
from lead_core.storage import append_jsonl


def main(arguments: list[str] | None = None) -> int:
    """Run one stage in the current folder; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.stages", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, *COMPARISON_STAGES])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    chosen = parser.parse_args(arguments)
    workspace = Path.cwd()
    started = time.monotonic()
    # Other people's deprecations are nothing that a user of the pipeline can act on.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        params = load_params(workspace / "params.yaml", chosen.set)
        from lead_core.artifacts import Layout

        stage = getattr(importlib.import_module(f"flows.stages.{chosen.stage}"), chosen.stage)
        print(stage(params, Layout.below(Path("artifacts")), workspace), flush=True)
        seconds = round(time.monotonic() - started, 3)
        append_jsonl(Path("artifacts/timings.jsonl"), {"stage": chosen.stage, "seconds": seconds})
    except LeadError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        advice = shortage_advice(error, chosen.stage)
        if advice is None:
            raise
        print(f"error: {advice}", file=sys.stderr)
        return LeadError.exit_code
    except KeyboardInterrupt:
        print("error: stopped by Ctrl-C", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Untrusted Python programs, each run alone in its own namespaces, or not at all (docs/security.md).

Files: `run` starts and reads, `launcher` builds the walls (a program of its own, standard library
only), `harness` runs the text inside them, `system_calls` is what the kernel is told to refuse.
"""

from lead_core.sandbox.run import (
    Limits,
    Outcome,
    SandboxResult,
    check_isolation,
    run_program,
    run_programs,
)

__all__ = [
    "Limits",
    "Outcome",
    "SandboxResult",
    "check_isolation",
    "run_program",
    "run_programs",
]

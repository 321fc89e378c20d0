"""Errors that a user can act on; everything else may keep its traceback."""

from __future__ import annotations

from collections.abc import Sequence


class LeadError(Exception):
    """A mistake or a missing thing on the user's side: shown as one line, without a traceback.

    The text says what, where, got, expected and the next step, for example
    ``params.yaml: bandit.exploration must be in (0, 1], got 1.5``.
    """

    exit_code = 2


class ProblemsError(LeadError):
    """Several problems found in one reading, all reported together."""

    def __init__(self, where: str, problems: Sequence[str]):
        self.where = where
        self.problems = list(problems)
        super().__init__("\n".join(f"{where}: {problem}" for problem in self.problems))


class TransientError(LeadError):
    """Something that may go through when tried again (network, a busy disk): flows retry it."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


def first_reason(error: BaseException) -> str:
    """Return the first line of what a library says went wrong; its type's name if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

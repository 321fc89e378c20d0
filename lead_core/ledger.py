"""The cost ledger: every sequence that the model forwards, by what it was forwarded for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

COLUMNS = ("offline", "selection", "training", "evaluation", "replayed")


@dataclass
class CostLedger:
    """Counts of forwarded sequences and tokens (padding excluded), and seconds, per column.

    A forward outside `charged_to` is an error in this program, not a free one: see `count`. Seconds
    are of this process alone; they differ between equal runs, so they are never part of `as_dict`.
    """

    sequences: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0.0))
    _column: str | None = None

    @contextmanager
    def charged_to(self, column: str) -> Iterator[None]:
        """Charge all forwards inside the block to `column`; blocks may be nested."""
        if column not in COLUMNS:
            raise ValueError(f"no ledger column {column!r}; there is {', '.join(COLUMNS)}")
        outer, self._column = self._column, column
        started = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - started
            self.seconds[column] += spent
            if outer is not None:
                self.seconds[outer] -= spent
            self._column = outer

    def count(self, sequences: int, tokens: int) -> None:
        """Add one forward of `sequences` rows with `tokens` real tokens to the open column."""
        if self._column is None:
            raise RuntimeError("a forward pass that no ledger column accounts for")
        self.sequences[self._column] += sequences
        self.tokens[self._column] += tokens

    def add(self, column: str, sequences: int, tokens: int) -> None:
        """Add work that was counted elsewhere (an earlier stage, a run before a kill)."""
        self.sequences[column] += sequences
        self.tokens[column] += tokens

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Return ``{column: {"sequences": n, "tokens": n}}``."""
        return {
            column: {"sequences": self.sequences[column], "tokens": self.tokens[column]}
            for column in COLUMNS
        }

    def restore(self, saved: Mapping[str, Mapping[str, int]]) -> None:
        """Set the counts to what `as_dict` returned earlier, but for the work that was replayed."""
        for column in COLUMNS:
            if column == "replayed":
                continue
            self.sequences[column] = saved[column]["sequences"]
            self.tokens[column] = saved[column]["tokens"]


def count_forwards(decoder: Any, ledger: CostLedger) -> Any:
    """Hook `decoder` so that each of its forward passes is counted; returns the hook's handle.

    The count sits on the module itself, so no code path can forward a sample unseen.
    """

    def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        if ids is None:
            ids = kwargs["inputs_embeds"]
        tokens = ids.shape[0] * ids.shape[1] if mask is None else int(mask.sum())
        ledger.count(int(ids.shape[0]), tokens)

    return decoder.register_forward_pre_hook(before, with_kwargs=True)

"""Writing in stages: what has stopped leaves its batch, what goes on is put together anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lead_core.model import group_by_tokens

FIRST_STAGE_TOKENS = 64


def write_in_stages(
    prompts: Sequence[list[int]],
    limit: int,
    *,
    budget_tokens: int,
    go_on: Callable[[list[list[int]], int], list[list[int]]],
    has_stopped: Callable[[list[int]], bool],
    on_stop: Callable[[int], None],
) -> list[list[int]]:
    """Return the tokens written after each of `prompts`, at most `limit`.

    A batch is computed until its last row stops, and a small model's answers are short or endless: so
    batches end after 64, 128, 256, ... tokens, and those rows that have not stopped go on in fuller
    ones, where their prompts are read again (a token read costs a small part of one written). Both
    read and written tokens count in `budget_tokens`, so short stages have many rows. `go_on` writes up
    to so many tokens after each row; `on_stop` hears how many rows have stopped.
    """
    written: list[list[int]] = [[] for _ in prompts]
    going, reached = list(range(len(prompts))), 0
    while going and reached < limit:
        step = min(max(reached, FIRST_STAGE_TOKENS), limit - reached)
        lengths = np.array([len(prompts[i]) + len(written[i]) + step for i in going])
        for chosen in group_by_tokens(lengths, budget_tokens):
            rows = [going[k] for k in chosen]
            added = go_on([prompts[i] + written[i] for i in rows], step)
            for i, tokens in zip(rows, added, strict=True):
                written[i] += tokens
        reached += step
        left = [i for i in going if reached < limit and not has_stopped(written[i])]
        on_stop(len(going) - len(left))
        going = left
    return written

"""Writing in stages, with a writer that counts what it is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lead_core.evaluation_stages import FIRST_STAGE_TOKENS, write_in_stages

STOP = 0


class Writer:
    """Writes after a prompt [n] the numbers 1, 2, ... and stops at the n-th; pads with -1."""

    def __init__(self):
        self.batches = []
        self.stopped = 0

    def go_on(self, rows, step):
        self.batches.append((len(rows), step))
        left = [row[0] - (len(row) - 1) for row in rows]
        width = min(step, max(left))
        return [
            [(len(row) + k) if k < n - 1 else (STOP if k == n - 1 else -1) for k in range(width)]
            for row, n in zip(rows, left, strict=True)
        ]

    def run(self, lengths, limit, *, budget=10**6):
        def on_stop(rows):
            self.stopped += rows

        return write_in_stages(
            [[n] for n in lengths],
            limit,
            budget_tokens=budget,
            go_on=self.go_on,
            has_stopped=lambda written: STOP in written,
            on_stop=on_stop,
        )


def cut(written):
    return written[: written.index(STOP)] if STOP in written else written


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=9),
    st.sampled_from([1, 63, 64, 65, 128, 129, 300]),
    st.sampled_from([1, 200, 10**6]),
)
def test_each_row_is_written_to_its_end_or_to_the_limit(lengths, limit, budget):
    writer = Writer()
    for n, written in zip(lengths, writer.run(lengths, limit, budget=budget), strict=True):
        assert cut(written) == list(range(1, n))[:limit]
        assert len(written) <= limit
    assert writer.stopped == len(lengths)


def test_what_goes_on_is_put_together_in_stages_that_double():
    writer = Writer()
    writer.run([10, 300, 20, 100, 300, 30, 40, 50], 1024)
    assert writer.batches == [(8, 64), (3, 64), (2, 128), (2, 256)]


def test_the_budget_holds_what_is_read_and_what_may_be_written():
    writer = Writer()
    writer.run([300] * 5, 128, budget=4 * (1 + FIRST_STAGE_TOKENS))
    assert writer.batches == [(4, 64), (1, 64), (2, 64), (2, 64), (1, 64)]


@pytest.mark.parametrize("limit", [1, 64, 100, 1024])
def test_no_more_than_the_limit_is_asked_for(limit):
    writer = Writer()
    [written] = writer.run([10**4], limit)
    assert len(written) == sum(step for _, step in writer.batches) == limit

"""Records that overlap with a benchmark: their counts and their lines in contamination.jsonl."""

from lead_core.benchmark_check import BenchmarkCheck
from lead_core.contamination import Contaminated, contamination_rows, count_contaminated
from lead_core.decontamination import (
    BenchmarkText,
    Criterion,
    Overlap,
    Thresholds,
    build_index,
)
from lead_core.sources import RawRecord

LIMITS = Thresholds(
    ngram_words=13, min_words=8, edited_ngram_words=5, edited_share=0.6, boilerplate_rows=10
)


def hit(benchmark, criterion, share=0.98765432):
    text = BenchmarkText(benchmark, 7, "A question?")
    raw = RawRecord("a", "a.jsonl", 3, 2, {})
    messages = [{"role": "user", "content": "Hm"}, {"role": "assistant", "content": "Ja"}]
    return Contaminated("0123456789abcdef", raw, messages, Overlap(text, criterion, share, 1))


def test_records_are_counted_per_benchmark_and_criterion():
    index = build_index(
        [BenchmarkText("b", 0, "What?"), BenchmarkText("b", 1, "?"), BenchmarkText("a", 0, "Who?")],
        LIMITS,
    )
    found = [hit("b", Criterion.EDITED), hit("b", Criterion.EDITED), hit("b", Criterion.VERBATIM)]
    assert count_contaminated(index, found) == (
        BenchmarkCheck("a", rows=1, unchecked_rows=0, verbatim=0, edited=0),
        BenchmarkCheck("b", rows=2, unchecked_rows=1, verbatim=1, edited=2),
    )


def test_a_line_holds_both_texts_and_where_they_stand():
    assert list(contamination_rows([hit("b", Criterion.EDITED)], removed=False)) == [
        {
            "id": "0123456789abcdef",
            "file": "a.jsonl",
            "line": 3,
            "index": 2,
            "source": "a",
            "removed": False,
            "benchmark": "b",
            "row": 7,
            "rows": 1,
            "criterion": "edited",
            "share": 0.9877,
            "benchmark_text": "A question?",
            "text": "Hm\n\nJa",
        }
    ]

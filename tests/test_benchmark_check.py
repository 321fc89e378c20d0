"""The check against benchmarks as a file and in words."""

import pytest

from lead_core.benchmark_check import BenchmarkCheck, Check, check_lines, read_check, write_check
from lead_core.errors import LeadError

CHECK = Check(
    action="remove",
    benchmarks=(BenchmarkCheck("gsm8k", 1319, 2, 3, 4), BenchmarkCheck("humaneval", 164, 0, 0, 0)),
    unchecked_tasks=("arc_easy", "piqa"),
)


def test_the_counts_read_back_as_written(tmp_path):
    write_check(tmp_path / "check.json", CHECK)
    assert read_check(tmp_path / "check.json") == CHECK
    (tmp_path / "check.json").write_text('{"schema": 2}')
    with pytest.raises(LeadError, match=r"has schema 2, this version reads 1; run `dvc repro prep"):
        read_check(tmp_path / "check.json")


def test_the_check_in_words_leaves_nothing_out():
    assert check_lines(CHECK) == [
        "checked against gsm8k (1,319 rows): 7 overlapping (3 verbatim, 4 edited), removed; 2 rows "
        "say too little to be looked for",
        "checked against humaneval (164 rows): no record overlaps",
        "note: the pool is not checked against arc_easy, piqa (data.decontaminate)",
    ]
    kept = Check("report", CHECK.benchmarks[:1], ())
    assert "4 edited), kept (data.decontaminate.action); 2 rows" in check_lines(kept)[0]
    assert check_lines(Check("none", (), ())) == []

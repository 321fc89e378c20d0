from lead_core import progress as module
from lead_core.progress import progress


def test_work_of_unknown_size_is_told_without_a_share(monkeypatch, capsys):
    clock = iter([0.0, 4.0, 12.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress(None, "reading", "records") as bar:
        bar.advance(100)
        bar.advance(100)
    assert capsys.readouterr().err == "reading: 200 records, 12 s gone\n"


def test_work_of_known_size_is_told_with_what_is_left(monkeypatch, capsys):
    clock = iter([0.0, 12.0, 20.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress(4, "reading", "records") as bar:
        bar.advance(3)
        bar.advance(1)
    assert capsys.readouterr().err == (
        "reading: 3/4 records (75 %), 12 s gone, about 4 s left\n"
        "reading: 4/4 records (100 %), 20 s gone, about 0 s left\n"
    )


def test_work_that_goes_on_starts_where_it_was_and_what_is_left_is_told_by_its_own_speed(
    monkeypatch, capsys
):
    clock = iter([0.0, 12.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress(100, "scoring", "tokens", start=50) as bar:
        bar.advance(10)
    assert capsys.readouterr().err == (
        "scoring: 60/100 tokens (60 %), 12 s gone, about 48 s left\n"
    )

import json
import subprocess
import sys
import threading
import time

from lead_core.tracking_outbox import Sent, create_outbox, list_outboxes


def test_events_are_read_back_from_any_offset(tmp_path):
    outbox = create_outbox(tmp_path, {"do": "open"})
    outbox.append({"do": "tags", "tags": {"é": "\udcff"}})
    (first, after_first), (second, end) = outbox.read(0)
    assert (first["do"], second["do"]) == ("open", "tags")
    assert list(outbox.read(after_first)) == [(second, end)]
    assert list(outbox.read(end)) == []


def test_a_line_torn_by_a_kill_is_skipped_and_does_not_spoil_the_next(tmp_path):
    outbox = create_outbox(tmp_path, {"do": "open"})
    outbox.release()
    with (outbox.directory / "events.jsonl").open("ab") as stream:
        stream.write(b'{"do": "metr')
    (left,) = list_outboxes(tmp_path)
    left.append({"do": "close"})
    assert [event["do"] for event, _ in left.read(0)] == ["open", "close"]


def test_progress_is_remembered(tmp_path):
    outbox = create_outbox(tmp_path, {"do": "open"})
    assert outbox.sent == Sent(0, 0, None)
    outbox.mark_sent(Sent(10, 5, "run"))
    outbox.release()
    assert list_outboxes(tmp_path)[0].sent == Sent(10, 5, "run")


def test_an_outbox_is_locked_as_long_as_its_process_lives(tmp_path):
    code = (
        "import sys, time, pathlib; from lead_core.tracking_outbox import create_outbox\n"
        "box = create_outbox(pathlib.Path(sys.argv[1]), {'do': 'open'}); print('up', flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "up\n"
        assert not list_outboxes(tmp_path)[0].lock()
        child.kill()
    assert list_outboxes(tmp_path)[0].lock()


def test_outboxes_are_listed_oldest_first_and_removed_ones_not_at_all(tmp_path):
    boxes = [create_outbox(tmp_path, {"do": "open", "number": number}) for number in range(3)]
    boxes[1].remove()
    listed = list_outboxes(tmp_path)
    assert [next(box.read(0))[0]["number"] for box in listed] == [0, 2]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_outboxes_keep_their_order_when_the_clock_is_set_back(tmp_path, monkeypatch):
    for number, clock in enumerate([9_000, 5_000, 5_000, 10_000]):
        monkeypatch.setattr(time, "time_ns", lambda clock=clock: clock)
        create_outbox(tmp_path, {"do": "open", "number": number})
    listed = list_outboxes(tmp_path)
    assert [next(box.read(0))[0]["number"] for box in listed] == [0, 1, 2, 3]


def test_an_outbox_that_another_process_has_just_removed_cannot_be_locked(tmp_path):
    create_outbox(tmp_path, {"do": "open"}).remove()
    outbox = create_outbox(tmp_path, {"do": "open"})
    (seen,) = list_outboxes(tmp_path)
    outbox.remove()
    assert not seen.lock()
    assert list(tmp_path.iterdir()) == []


def test_every_outbox_is_complete_and_owned_from_the_moment_it_can_be_seen(tmp_path):
    done = threading.Event()
    stolen = []

    def steal() -> None:
        while not done.is_set():
            stolen.extend(box for box in list_outboxes(tmp_path) if box.lock())

    thief = threading.Thread(target=steal)
    thief.start()
    kept = [create_outbox(tmp_path, {"do": "open"}) for _ in range(200)]
    done.set()
    thief.join()
    assert stolen == []
    assert len(list_outboxes(tmp_path)) == len(kept)


def test_a_refused_event_is_kept_with_its_reason(tmp_path):
    outbox = create_outbox(tmp_path, {"do": "open"})
    outbox.refuse({"do": "tags"}, "the run is deleted")
    (line,) = (tmp_path / "refused.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "outbox": outbox.name,
        "reason": "the run is deleted",
        "event": {"do": "tags"},
    }


def test_staged_directories_are_new_and_inside_the_outbox(tmp_path):
    outbox = create_outbox(tmp_path, {"do": "open"})
    one, two = outbox.stage(), outbox.stage()
    assert one != two
    assert one.is_relative_to(outbox.directory)
    assert list(one.iterdir()) == []

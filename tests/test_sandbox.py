"""Programs that try to harm, each really run: a failed sample, and nothing changed outside."""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lead_core import sandbox
from lead_core.errors import LeadError
from lead_core.sandbox import Limits, check_isolation, run, run_program, run_programs
from lead_core.sandbox.system_calls import Architecture, build_filter

ROOT = Path(__file__).parents[1]
SHORT = Limits(cpu_seconds=1, memory_bytes=128 << 20, disk_bytes=1 << 20)


def living_sandboxes() -> list[str]:
    """Return the processes of any sandbox that this test process started."""
    mine = {str(os.getpid())}
    found = []
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # ended meanwhile
            continue
        if parent in mine and ("launcher.py" in command or "harness.py" in command):
            mine.add(folder.name)
            found.append(command)
    return found


@pytest.fixture(autouse=True)
def nothing_stays_alive():
    yield
    deadline = time.monotonic() + 5
    while living_sandboxes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert living_sandboxes() == []


def test_a_program_that_ends_well_has_passed_and_its_output_is_kept():
    result = run_program("import math\nprint('two', math.sqrt(4))")
    assert result == sandbox.SandboxResult("passed", 0, "two 2.0\n")


def test_a_program_that_fails_says_why():
    result = run_program("values = []\nassert values, 'nothing in it'")
    assert (result.outcome, result.exit_code) == ("failed", 1)
    assert 'File "/program.py", line 2' in result.output
    assert result.output.endswith("AssertionError: nothing in it\n")


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "import os; os._exit(0)",
        "import os; os.execv('/bin/true', ['true'])",
        "import os, sys; os.execv(sys.executable, [sys.executable, '-c', ''])",
        "print('started'); print('passed'); import os; os._exit(0)",
        "import os; [os.write(fd, b'started\\n') for fd in range(5, 64)]",
        "import os\nfor fd in range(3, 64):\n  try: os.write(fd, b'0' * 32)\n  except OSError: pass\n"
        "os._exit(0)",
        "import os\nfor fd in range(3, 64):\n  try: os.close(fd)\n  except OSError: pass\n",
        "def broken(:",
        "x = '\0'",
        "\ud800",
        "(" * 100_000,
    ],
)
def test_to_pass_the_last_line_must_be_reached(program):
    assert run_program(f"{program}\nraise SystemExit").outcome == "failed"
    assert run_program(program + "\nimport os; os._exit(0)").outcome != "passed"


def test_the_proof_is_in_nothing_that_the_program_can_read_up():
    program = """
        import glob, os, sys
        seen = [open("/program.py").read(), open("/harness.py").read(), str(os.environ), str(sys.argv)]
        seen += [sys.stdin.read(), str(os.listdir(".")), str(glob.glob("/proc/*"))]
        for fd in range(3, 64):
            try:
                seen.append(str(os.read(fd, 100)))
            except OSError:
                pass
        print(len(str(seen)), sys.argv, os.listdir("."), glob.glob("/proc/*"))
        import re
        assert not re.search("[0-9a-f]{32}", str(seen)), seen
    """
    result = run_program(textwrap.dedent(program))
    assert result.outcome == "passed", result.output
    assert result.output.endswith("['/program.py'] [] []\n")


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "def f():\n  try: f()\n  finally: f()\nf()",
        "10 ** 10 ** 10",
    ],
)
def test_a_loop_ends_at_the_cpu_limit(program):
    result = run_program(program, SHORT)
    assert result.outcome == "timed_out"


@pytest.mark.parametrize(
    "program",
    [
        "import time; time.sleep(1000)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "import signal\n"
        "for s in signal.valid_signals() - {9, 19, 32, 33}: signal.signal(s, signal.SIG_IGN)\n"
        "signal.pause()",
    ],
)
def test_waiting_ends_at_the_wall_limit(program):
    start = time.monotonic()
    assert run_program(program, Limits(wall_seconds=0.8)).outcome == "timed_out"
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "program",
    [
        "x = bytearray(10 ** 10)",
        "x = []\nwhile True: x.append('x' * 10 ** 6)",
        "import mmap; mmap.mmap(-1, 1 << 32)[0] = 1",
    ],
)
def test_memory_is_limited(program):
    assert run_program(program, SHORT).outcome in ("out_of_memory", "failed")


@pytest.mark.parametrize(
    "program",
    [
        "def f(n): return f(n + 1)\nf(0)",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(n): return [*map(f, [n + 1])]\nf(0)",
        "import ctypes; ctypes.string_at(0)",
        "import os; os.abort()",
        "import os; os.kill(os.getpid(), 9)",
        "import os; os.kill(0, 9)",
        "import os; os.kill(-1, 9); raise SystemExit",
    ],
)
def test_a_crash_is_a_failed_sample(program):
    assert run_program(program, SHORT).outcome in ("failed", "killed", "out_of_memory")


@pytest.mark.parametrize(
    "program",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['/bin/true'])",
        "import threading; threading.Thread(target=print).start()",
        "import multiprocessing; multiprocessing.Pool(2)",
        "import os\nif os.fork() == 0:\n  os.setsid()\n  import time; time.sleep(1000)",
    ],
)
def test_there_is_no_second_process_to_outlive_the_first(program):
    assert run_program(program, SHORT).outcome == "failed"


def test_output_is_cut_not_buffered():
    start = time.monotonic()
    result = run_program("while True: print('x' * 100_000)")
    assert result.outcome == "too_much_output"
    assert result.output == "x" * run.KEPT_BYTES
    assert time.monotonic() - start < 5
    result = run_program("import os\nwhile True: os.write(2, b'\\xff' * 65536)")
    assert (result.outcome, result.output) == ("too_much_output", "\ufffd" * run.KEPT_BYTES)


def test_nothing_can_be_written_outside_and_little_inside(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("mine")
    before = sorted(Path("/").iterdir())
    targets = [
        kept,
        tmp_path / "new",
        Path(tempfile.gettempdir()) / "lead-sandbox-test",
        Path.home() / "lead-sandbox-test",
        ROOT / "lead-sandbox-test",
        Path("/usr/lib/lead-sandbox-test"),
        Path("/dev/shm/lead-sandbox-test"),
        Path("/lead-sandbox-test"),
        Path("/program.py"),
        Path("/harness.py"),
        Path(json.__file__),
    ]
    programs = [f"open({str(path)!r}, 'w').write('harm')" for path in targets]
    programs += [f"import os; os.remove({str(path)!r})" for path in (kept, json.__file__)]
    programs += [
        f"import os; os.chmod({json.__file__!r}, 0)",
        "import shutil; shutil.rmtree('/')",
        "open('big', 'wb').write(bytes(2 << 20)); raise SystemExit",
        "for i in range(64): open(f'part{i}', 'wb').write(bytes(1 << 19))",
        "for i in range(5000): open(f'small{i}', 'w').close()",
        "files = [open(f'open{i}', 'w') for i in range(100)]",
    ]
    for program, result in zip(programs, run_programs(programs, SHORT), strict=True):
        assert result.outcome != "passed", program
    assert kept.read_text() == "mine"
    assert not [path for path in targets if path.name == "lead-sandbox-test" and path.exists()]
    assert sorted(Path("/").iterdir()) == before


def test_its_own_directory_is_private_and_gone_afterwards():
    program = """
import os, tempfile
assert os.getcwd() == os.environ["HOME"] == tempfile.gettempdir() == "/sandbox"
assert os.listdir() == [], os.listdir()
open("mine", "w").write("x")
with tempfile.TemporaryFile() as file: file.write(b"x")
"""
    assert [result.outcome for result in run_programs([program] * 3)] == ["passed"] * 3
    assert not Path("/sandbox").exists()


def test_the_machines_files_are_not_there_to_be_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for path in (secret, "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ", ROOT):
        result = run_program(f"import os; os.stat({str(path)!r})")
        assert result.output.strip().endswith(f"No such file or directory: {str(path)!r}")


def test_no_setting_is_inherited(monkeypatch):
    monkeypatch.setenv("LEAD_TEST_SECRET", "secret")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = run_program("import os\nprint(sorted(os.environ))\nprint(*os.environ.values())")
    assert result.outcome == "passed"
    assert "LEAD_TEST_SECRET" not in result.output and "secret" not in result.output
    assert "PYTHONPATH" not in result.output
    assert run_program("import lead_core").outcome == "failed"
    assert run_program("import numpy").outcome == "failed"


def test_sets_of_text_have_one_order():
    program = "print(list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}))"
    assert len({result.output for result in run_programs([program] * 4)}) == 1


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def refuse_no_call(monkeypatch):
    monkeypatch.setattr(run, "build_filter", lambda known: build_filter(replace(known, refused=())))


def assert_nobody_called(server):
    with pytest.raises(BlockingIOError):
        server.accept()


def test_there_is_no_network(listener):
    port = listener.getsockname()[1]
    programs = [
        f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
        f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}', timeout=2)",
        "import socket; socket.getaddrinfo('example.org', 80)",
        "import socket; socket.gethostbyname('localhost')",
        *(f"import socket; socket.socket(socket.{name})" for name in ("AF_UNIX", "AF_NETLINK")),
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))",
        "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    ]
    for program, result in zip(programs, run_programs(programs, SHORT), strict=True):
        assert result.outcome == "failed", program
    assert_nobody_called(listener)


def test_without_the_filter_the_namespace_alone_has_no_network(listener, monkeypatch):
    refuse_no_call(monkeypatch)
    port = listener.getsockname()[1]
    result = run_program(f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
    assert result.output.strip().endswith("Network is unreachable")
    assert_nobody_called(listener)


def test_its_parent_and_its_rights_are_out_of_reach():
    programs = [
        "import os; os.kill(os.getppid(), 9); raise SystemExit",
        f"import os; os.kill({os.getpid()}, 15); raise SystemExit",
        "import os, signal\nos.kill(1, signal.SIGINT)\nraise SystemExit",
        "import os; os.setuid(0)",
        "import os; os.chroot('/usr')",
        "import os; os.nice(-1)",
        "import socket; socket.sethostname('harmed')",
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.mount(b'x', b'/sandbox', b'tmpfs', 0, None) == 0",
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "import ctypes; assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0",
        "import ctypes; assert ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) != -1",
        "import os; os.memfd_create('hidden')",
    ]
    for program, result in zip(programs, run_programs(programs, SHORT), strict=True):
        assert result.outcome == "failed", (program, result)


def test_results_come_in_the_order_of_the_programs_however_many_run_at_once():
    programs = [f"import time; time.sleep({0.2 / (i + 1)}); print({i})" for i in range(6)]
    results = run_programs(programs, workers=3)
    assert [result.output for result in results] == [f"{i}\n" for i in range(6)]
    assert run_programs([]) == []


def test_when_the_run_is_killed_its_programs_die_with_it():
    code = (
        "from lead_core.sandbox import run_program\n"
        "run_program('print(1, flush=True)\\nimport time; time.sleep(1000)')"
    )
    own = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    children = Path(f"/proc/{own.pid}/task/{own.pid}/children")

    def descendants(pid):
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return below + [grandchild for child in below for grandchild in descendants(child)]

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            found = descendants(own.pid) if children.exists() else []
        except OSError:
            found = []
        if len(found) == 3:  # launcher, init, program
            break
        time.sleep(0.02)
    assert len(found) == 3
    own.kill()
    own.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in found) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)


def test_this_machine_isolates():
    check_isolation()


def test_a_machine_that_cannot_isolate_runs_nothing(tmp_path):
    """Where namespaces are refused, as in a default container: shown under our own filter."""
    code = f"""
import ctypes, platform
from lead_core.errors import LeadError
from lead_core.sandbox import launcher, run_program
from lead_core.sandbox.system_calls import build_filter, find_architecture
lines = build_filter(find_architecture(platform.machine()))
launcher._prctl("", launcher.NO_NEW_PRIVILEGES, 1)
program = launcher._Filter(len(lines) // 8, lines)
launcher._prctl("", launcher.SECCOMP, launcher.SECCOMP_FILTER, ctypes.byref(program))
try:
    run_program("open({str(tmp_path / "written")!r}, 'w')")
except LeadError as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout == (
        "generated code cannot be isolated on this machine: unshare: Operation not permitted; it was "
        "not run (what it needs: docs/security.md); set evaluate.run_generated_code to false in "
        "params.yaml\n"
    )
    assert not (tmp_path / "written").exists()


def test_a_wall_that_is_missing_is_found_by_looking_around(monkeypatch):
    refuse_no_call(monkeypatch)
    with pytest.raises(
        LeadError, match=r"was not isolated \(a socket of family .* works\); it was"
    ):
        check_isolation()


def test_an_interpreter_that_does_not_start_inside_is_no_failed_sample(monkeypatch):
    monkeypatch.setattr(run, "_interpreter", lambda: (os.path.realpath(sys.executable), [], {}))
    with pytest.raises(LeadError, match="cannot be isolated on this machine: "):
        run_program("print('hello')")


def test_an_unknown_processor_and_another_system_are_refused(monkeypatch):
    monkeypatch.setattr(run.platform, "machine", lambda: "sparc")
    with pytest.raises(
        LeadError, match="knows x86_64 and aarch64, this machine is sparc; set eval"
    ):
        run_program("")
    monkeypatch.setattr(run.sys, "platform", "darwin")
    with pytest.raises(LeadError, match="it takes Linux, this is darwin; it was not run"):
        run_program("")


def test_the_filter_jumps_to_its_last_line_for_what_is_refused():
    lines = build_filter(Architecture(audit=7, foreign_bit=1 << 30, pivot_root=0, refused=(3, 5)))
    decoded = list(struct.iter_unpack("=HBBI", lines))
    assert decoded == [
        (0x20, 0, 0, 4),
        (0x15, 1, 0, 7),
        (0x06, 0, 0, 0x80000000),
        (0x20, 0, 0, 0),
        (0x45, 3, 0, 1 << 30),
        (0x15, 2, 0, 3),
        (0x15, 1, 0, 5),
        (0x06, 0, 0, 0x7FFF0000),
        (0x06, 0, 0, 0x00050001),
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests are run by such a user already")
def test_an_unprivileged_user_gets_the_same_isolation():
    """With the system's Python, if it is recent enough: root's own may be out of nobody's reach."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    folder = Path(tempfile.mkdtemp())
    try:
        package = folder / "lead_core"
        shutil.copytree(ROOT / "lead_core/sandbox", package / "sandbox")
        for name in ("__init__.py", "errors.py"):
            shutil.copy(ROOT / "lead_core" / name, package / name)
        subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
        code = """
import os, sys
if sys.version_info < (3, 11): raise SystemExit(77)
from lead_core.sandbox import check_isolation, run_program
check_isolation()
for text in ("import os; os.kill(os.getppid(), 9); os.kill(0, 15)", "import os; os.fork()",
             "open('/tmp/lead-sandbox-test', 'w')", "import os; os.setuid(0)"):
    assert run_program(text).outcome in ("failed", "killed"), text
print(os.getuid(), run_program("print(1)").outcome)
"""
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        if python is None:
            pytest.skip("no system Python")
        ended = subprocess.run(
            [python, "-c", code], cwd=folder, capture_output=True, text=True, **nobody
        )
        if ended.returncode == 77:
            pytest.skip("the system's Python is older than 3.11")
        assert ended.stdout == "65534 passed\n", ended.stderr
    finally:
        shutil.rmtree(folder)

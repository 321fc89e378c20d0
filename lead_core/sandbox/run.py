"""Starts untrusted programs in the sandbox, reads what they print, and says how they ended."""

from __future__ import annotations

import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from lead_core.errors import LeadError
from lead_core.sandbox.system_calls import build_filter, find_architecture

Outcome = Literal["passed", "failed", "timed_out", "out_of_memory", "too_much_output", "killed"]

KEPT_BYTES = 2_000  # of a program's output, for people who ask why it failed
GRACE_SECONDS = 30  # for the launcher itself, on a machine that is busy
STACK_BYTES = 8 << 20
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Limits:
    """What one program may use. It is always one process of one thread."""

    cpu_seconds: int = 5
    wall_seconds: float = 20.0
    memory_bytes: int = 512 << 20  # address space
    disk_bytes: int = 16 << 20  # its directory, in memory; also the largest file
    open_files: int = 64
    output_bytes: int = 1 << 20  # printed; beyond it the program is ended

    def resource_limits(self) -> dict[str, tuple[int, int]]:
        """Return soft and hard values of setrlimit."""
        return {
            "RLIMIT_CPU": (self.cpu_seconds, self.cpu_seconds + 1),  # SIGXCPU, then SIGKILL
            "RLIMIT_AS": (self.memory_bytes, self.memory_bytes),
            "RLIMIT_STACK": (STACK_BYTES, STACK_BYTES),
            "RLIMIT_FSIZE": (self.disk_bytes, self.disk_bytes),
            "RLIMIT_NOFILE": (self.open_files, self.open_files),
            "RLIMIT_NPROC": (0, 0),  # no further process or thread, whatever the user runs already
            "RLIMIT_CORE": (1, 1),  # not 0: that would still start the system's crash handler
        }


@dataclass(frozen=True)
class SandboxResult:
    """How one program ended.

    outcome: passed only if it ran to its last line and left with 0. exit_code: minus the signal if
    it was killed by one, as `subprocess` has it. output: the first bytes that it printed.
    """

    outcome: Outcome
    exit_code: int
    output: str


def run_programs(
    programs: Sequence[str], limits: Limits | None = None, *, workers: int | None = None
) -> list[SandboxResult]:
    """Run each text as a Python program of its own, `workers` at a time (default: one per CPU)."""
    workers = workers or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda program: run_program(program, limits), programs))


def check_isolation() -> None:
    """Raise LeadError unless this machine can isolate a program, shown by one that looks around."""
    result = run_program((_FOLDER / "probe.py").read_text(encoding="utf-8"))
    if result.outcome != "passed":
        seen = (result.output.strip().splitlines() or [result.outcome])[-1]
        raise _no_isolation(f"a test program inside was not isolated ({seen})")


def run_program(program: str, limits: Limits | None = None) -> SandboxResult:
    """Run one text as a Python program in the sandbox.

    Whatever it does is its outcome, never an exception; LeadError is for a machine that cannot isolate
    it: then it was not run.
    """
    limits = limits or Limits()
    answer, printed, cut = _launch(_request(program, limits), limits)
    text = printed.decode("utf-8", "replace")
    if cut:
        return SandboxResult("too_much_output", -signal.SIGKILL, text)
    if "error" in answer:
        raise _no_isolation(answer["error"])
    return SandboxResult(_outcome(answer, limits), answer["exit_code"], text)


def _launch(request: Mapping[str, Any], limits: Limits) -> tuple[dict[str, Any], bytes, bool]:
    """Return (the launcher's answer, the start of the output, whether there was too much of it)."""
    status_out, status_in = os.pipe()
    output_out, output_in = os.pipe()
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(json.dumps(request).encode())
            stdin.seek(0)
            launcher = subprocess.Popen(
                [
                    *(request["python"], "-I", "-S", str(_FOLDER / "launcher.py")),
                    *(str(status_in), str(os.getpid())),
                ],
                stdin=stdin,
                stdout=output_in,
                stderr=output_in,
                pass_fds=[status_in],
                env={},
                cwd="/",
                start_new_session=True,
            )
    except BaseException:
        os.close(status_out)
        os.close(output_out)
        raise
    finally:
        os.close(status_in)
        os.close(output_in)
    with launcher, FileIO(status_out) as status, FileIO(output_out) as output:
        try:
            return _listen(launcher, status, output, limits)
        finally:
            launcher.kill()  # and with it all that it started


def _listen(
    launcher: subprocess.Popen[bytes], status: FileIO, output: FileIO, limits: Limits
) -> tuple[dict[str, Any], bytes, bool]:
    """Read until nobody holds the other ends any more, so that all inside has ended."""
    deadline = time.monotonic() + limits.wall_seconds + GRACE_SECONDS
    answer, printed, size = b"", b"", 0
    with selectors.DefaultSelector() as waiting:
        waiting.register(status, selectors.EVENT_READ)
        waiting.register(output, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise _no_isolation("the launcher does not answer")
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    waiting.unregister(key.fileobj)
                elif key.fileobj is status:
                    answer += data
                else:
                    size += len(data)
                    printed += data[: KEPT_BYTES - len(printed)]
            if size > limits.output_bytes:
                launcher.kill()
    cut = size > limits.output_bytes
    if not answer and not cut:
        lines = printed.decode("utf-8", "replace").strip().splitlines()
        raise _no_isolation(f"the launcher ended without an answer ({(lines or ['no text'])[-1]})")
    return json.loads(answer or b"{}"), printed, cut


def _outcome(answer: dict[str, Any], limits: Limits) -> Outcome:
    if answer["finished"]:
        return "passed"
    signalled = -answer["exit_code"]
    spent = signalled == signal.SIGKILL and answer["cpu_seconds"] >= limits.cpu_seconds
    if answer["timed_out"] or signalled == signal.SIGXCPU or spent:
        return "timed_out"
    if answer["out_of_memory"]:
        return "out_of_memory"
    return "killed" if signalled > 0 else "failed"


def _no_isolation(reason: str) -> LeadError:
    return LeadError(
        f"generated code cannot be isolated on this machine: {reason}; it was not run (what it needs: "
        "docs/security.md); set evaluate.run_generated_code to false in params.yaml"
    )


def _request(program: str, limits: Limits) -> dict[str, Any]:
    """Return what `launcher` is told, as JSON would have it."""
    if sys.platform != "linux":
        raise _no_isolation(f"it takes Linux, this is {sys.platform}")
    architecture = find_architecture(platform.machine())
    python, readonly, links = _interpreter()
    return {
        "program": program,
        "harness": (_FOLDER / "harness.py").read_text(encoding="utf-8"),
        "python": python,
        "readonly": readonly,
        "links": links,
        "pivot_root": architecture.pivot_root,
        "filter": build_filter(architecture).hex(),
        "rlimits": limits.resource_limits(),
        "wall_seconds": limits.wall_seconds,
        "disk_bytes": limits.disk_bytes,
    }


def _interpreter() -> tuple[str, list[str], dict[str, str]]:
    """Return the interpreter outside of any environment, what it reads, and the links on the way.

    Only libraries: no home, no settings, no other programs, no packages but its own.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    own = Path(sys.base_prefix) / "bin" / f"python{version}"
    python = os.path.realpath(own if own.exists() else sys.executable)
    shared = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"]
    wanted = [
        *shared,
        *("/etc/ld.so.cache", "/nix/store", "/gnu/store"),
        f"{sys.base_prefix}/lib",
        f"{sys.base_exec_prefix}/lib",
        sysconfig.get_path("stdlib"),
        python,
    ]
    links = {path: str(Path(path).readlink()) for path in shared if Path(path).is_symlink()}
    outermost: list[Path] = []
    for path in sorted({Path(path).resolve() for path in wanted if Path(path).exists()}):
        if not any(path.is_relative_to(other) for other in outermost):
            outermost.append(path)
    return python, [str(path) for path in outermost], links

"""Builds the walls around one untrusted program: ``python -I -S launcher.py STATUS_FD PARENT_PID``.

Reads a request (JSON) from standard input, answers with one line of JSON on STATUS_FD: ``{"error":
...}`` if any wall could not be built (the program was not started then), else how the program ended.
The program's output goes to standard output. Three processes, so that nothing outlives anything:

    launcher   leaves for new user, mount, network, IPC and PID namespaces; dies with its parent
    init       first process of the PID namespace: builds the root, keeps the time; dies with launcher
    program    no capabilities, no way back; the kernel ends it, and all in the namespace, with init

Standard library only, and nothing of this package: it runs outside of its environment.
"""

import ctypes
import errno
import itertools
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

NOBODY = 65534

# sched.h
NEW_MOUNTS, NEW_IPC, NEW_USERS = 0x00020000, 0x08000000, 0x10000000
NEW_PROCESSES, NEW_NETWORK = 0x20000000, 0x40000000
# sys/mount.h, linux/mount.h
NO_SUID, NO_DEVICES, NO_EXEC = 2, 4, 8
BIND, RECURSIVE, PRIVATE, DETACH = 0x1000, 0x4000, 1 << 18, 2
MOUNT_SETATTR, AT_CWD, AT_RECURSIVE = 442, -100, 0x8000  # one number on every architecture
ATTRIBUTES_LOCKED_DOWN = 1 | NO_SUID | NO_DEVICES  # the first: read-only
# linux/prctl.h
DIE_WITH_PARENT, DROP_BOUNDING, SECCOMP, NO_NEW_PRIVILEGES = 1, 24, 22, 38
SECCOMP_FILTER = 2

# Any directory that every system has and that no interpreter lives in; nobody sees what is below.
NEW_ROOT = Path("/proc")
HOME = "/sandbox"
PROGRAM, HARNESS = "/program.py", "/harness.py"
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
# -I would ignore PYTHONHASHSEED; its other halves are -P and -s, and the environment is ours anyway.
FLAGS = ("-P", "-s", "-S", "-B")
ENVIRONMENT = {
    "HOME": HOME,
    "TMPDIR": HOME,
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
}

_libc = ctypes.CDLL(None, use_errno=True)


class WallError(Exception):
    """A wall that could not be built: what was tried, and why the kernel refused."""


def main() -> None:
    """Run the program of the request; answer exactly once."""
    status, parent = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(status, False)
    try:
        request = json.loads(sys.stdin.buffer.read())
        leave_for_new_namespaces()
        _prctl("die with the parent", DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            return
        init = os.fork()
        if init == 0:
            _as_init(request, status)
        os.waitpid(init, 0)
    except (WallError, OSError) as error:
        _answer(status, {"error": str(error)})


def _as_init(request: dict[str, Any], status: int) -> NoReturn:
    """Be the first process of the PID namespace: signals from inside it do not touch this one."""
    try:
        _prctl("die with the launcher", DIE_WITH_PARENT, signal.SIGKILL)
        os.setsid()  # kill(0) would reach the launcher
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would let it through
        build_root(request)
        _answer(status, supervise(request))
    except (WallError, OSError) as error:
        _answer(status, {"error": str(error)})
    os._exit(0)


def _answer(status: int, answer: dict[str, Any]) -> None:
    os.write(status, json.dumps(answer).encode() + b"\n")


def leave_for_new_namespaces() -> None:
    """Enter new namespaces, with every right inside and none outside.

    As root the program becomes nobody (0 stays mapped, so that init may read root's own files); any
    other user stays itself, called nobody inside.
    """
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        try:
            os.setgroups([])
        except OSError as error:
            raise WallError(f"leaving root's groups: {error.strerror}") from error
    go, ready = os.pipe()
    launcher = os.getpid()
    mapper = os.fork()
    if mapper == 0:  # only a process that stays outside may map more than itself
        os.close(ready)
        os.read(go, 1)
        os._exit(_map_ids(launcher, user, group))
    os.close(go)
    _check(
        "unshare",
        _libc.unshare(NEW_USERS | NEW_MOUNTS | NEW_NETWORK | NEW_IPC | NEW_PROCESSES),
    )
    os.close(ready)
    code = os.waitstatus_to_exitcode(os.waitpid(mapper, 0)[1])
    if code:
        raise WallError(f"mapping users: {os.strerror(code)}")


def _map_ids(process: int, user: int, group: int) -> int:
    """Write the user and group maps of `process`; return 0, or errno."""
    folder = Path(f"/proc/{process}")
    try:
        if user != 0:
            (folder / "setgroups").write_text("deny")
        for name, number in (("uid_map", user), ("gid_map", group)):
            zero = "0 0 1\n" if user == 0 else ""
            outside = NOBODY if user == 0 else number
            (folder / name).write_text(f"{zero}{NOBODY} {outside} 1\n")
    except OSError as error:
        return error.errno or 1
    return 0


def build_root(request: dict[str, Any]) -> None:
    """Make a root that holds the interpreter, read-only, and one small writable directory."""
    os.umask(0o022)
    _mount(None, Path("/"), None, RECURSIVE | PRIVATE)
    _mount("tmpfs", NEW_ROOT, "tmpfs", NO_SUID | NO_DEVICES, "mode=755")
    for path, target in request["links"].items():
        link = NEW_ROOT / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    for path in (*request["readonly"], *DEVICES):
        place = NEW_ROOT / path.lstrip("/")
        if Path(path).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        _mount(path, place, None, BIND | RECURSIVE)
        if path not in DEVICES:
            _lock_down(place, AT_RECURSIVE)
    _write(NEW_ROOT / PROGRAM.lstrip("/"), request["program"])
    _write(NEW_ROOT / HARNESS.lstrip("/"), request["harness"])
    home = NEW_ROOT / HOME.lstrip("/")
    home.mkdir()
    _mount(
        "tmpfs",
        home,
        "tmpfs",
        NO_SUID | NO_DEVICES | NO_EXEC,
        f"mode=700,uid={NOBODY},gid={NOBODY},size={request['disk_bytes']},nr_inodes=1024",
    )
    os.chdir(NEW_ROOT)
    _check("pivot_root", _libc.syscall(request["pivot_root"], b".", b"."))
    _check("leaving the old root", _libc.umount2(b".", DETACH))
    os.chdir("/")
    _lock_down(Path("/"), 0)


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    path.chmod(0o444)


def _mount(
    source: str | None, target: Path, kind: str | None, flags: int, options: str | None = None
) -> None:
    arguments = [
        None if x is None else os.fsencode(x) for x in (source, str(target), kind, options)
    ]
    _check(
        f"mount {source or target}",
        _libc.mount(*arguments[:3], ctypes.c_ulong(flags), arguments[3]),
    )


def _lock_down(target: Path, flags: int) -> None:
    """Make a mount read-only, without set-user-ID and devices (needs Linux 5.12)."""
    attributes = (ctypes.c_uint64 * 4)(ATTRIBUTES_LOCKED_DOWN, 0, 0, 0)
    _check(
        f"mount_setattr {target}",
        _libc.syscall(MOUNT_SETATTR, AT_CWD, bytes(target), flags, ctypes.byref(attributes), 32),
    )


def supervise(request: dict[str, Any]) -> dict[str, Any]:
    """Start the program, wait for its end or the wall limit; return how it ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    nonce = os.urandom(16).hex().encode()
    nonce_out, nonce_in = os.pipe()
    proof_out, proof_in = os.pipe()
    trouble_out, trouble_in = os.pipe()
    os.write(nonce_in, nonce)
    os.close(nonce_in)
    program = os.fork()
    if program == 0:
        try:
            become_program(request, nonce_out, proof_in)
        except (WallError, OSError) as error:
            os.write(trouble_in, str(error).encode())
        os._exit(1)
    for descriptor in (nonce_out, proof_in, trouble_in):
        os.close(descriptor)
    timed_out, status, usage = _wait(program, request["wall_seconds"])
    trouble = os.read(trouble_out, 4096)
    if trouble:
        raise WallError(trouble.decode())
    os.set_blocking(proof_out, False)
    try:
        proof = os.read(proof_out, 4096)
    except BlockingIOError:
        proof = b""
    if not proof.startswith(b"started\n") and not timed_out:
        raise WallError("Python does not start inside")
    return {
        "exit_code": os.waitstatus_to_exitcode(status),
        "finished": status == 0 and proof == b"started\n" + nonce,
        "timed_out": timed_out,
        "out_of_memory": proof == b"started\nmemory\n",
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }


def _wait(process: int, seconds: float) -> tuple[bool, int, Any]:
    """Return (whether it had to be ended, wait status, resource usage) of `process`."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            return False, status, usage
        left = deadline - time.monotonic()
        if left <= 0:
            os.kill(process, signal.SIGKILL)
            return True, *os.wait4(process, 0)[1:]
        signal.sigtimedwait([signal.SIGCHLD], left)  # comes early for one that stops itself


def become_program(request: dict[str, Any], nonce: int, proof: int) -> NoReturn:
    """Give up every right and become the interpreter that runs the harness."""
    _drop_capabilities()
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _prctl("no new privileges", NO_NEW_PRIVILEGES, 1)
    os.chdir(HOME)
    os.umask(0o077)
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(1, 2)
    for descriptor in (nonce, proof):
        os.set_inheritable(descriptor, True)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for name, (soft, hard) in request["rlimits"].items():
        _limit(getattr(resource, name), soft, hard)
    lines = bytes.fromhex(request["filter"])
    program = _Filter(len(lines) // 8, lines)
    _prctl("seccomp", SECCOMP, SECCOMP_FILTER, ctypes.byref(program))
    arguments = [request["python"], *FLAGS, HARNESS, str(nonce), str(proof), PROGRAM]
    os.execve(request["python"], arguments, ENVIRONMENT)  # noqa: S606  no shell is the point


def _drop_capabilities() -> None:
    """Take all capabilities out of reach: exec as nobody clears what is held, this what could be."""
    for number in itertools.count():
        try:
            _prctl("dropping capabilities", DROP_BOUNDING, number)
        except WallError:
            if ctypes.get_errno() == errno.EINVAL:
                return  # the kernel knows no capability of this number
            raise


class _Filter(ctypes.Structure):
    """``struct sock_fprog``: the number of lines and where they are."""

    _fields_ = (("lines", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _limit(name: int, soft: int, hard: int) -> None:
    """Lower a limit; one that is lower already stays."""
    _, highest = resource.getrlimit(name)
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    resource.setrlimit(name, (soft, hard))


def _prctl(what: str, option: int, *arguments: Any) -> None:
    longs = [ctypes.c_ulong(x) if isinstance(x, int) else x for x in (*arguments, 0, 0, 0)[:4]]
    _check(what, _libc.prctl(option, *longs))


def _check(what: str, result: int) -> None:
    if result == -1:
        raise WallError(f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()

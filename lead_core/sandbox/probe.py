"""Looks around inside the sandbox and fails if a wall is missing: run by `check_isolation`."""

import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

SYSTEM = {"dev", "etc", "gnu", "lib", "lib64", "nix", "usr"}
OURS = {"harness.py", "program.py", "sandbox"}


def refused(what: str, attempt: Callable[[], object]) -> None:
    """Fail unless `attempt` is refused by the system."""
    try:
        attempt()
    except OSError:
        return
    raise SystemExit(f"{what} works")


seen = {path.name for path in Path("/").iterdir()}
if seen - SYSTEM - OURS - {Path(sys.base_prefix).parts[1]}:
    raise SystemExit(f"files of the machine are visible: {sorted(seen)}")
if 0 in (*os.getresuid(), *os.getresgid()):
    raise SystemExit("it runs as root")
if os.getppid() != 1:
    raise SystemExit("it sees the machine's processes")
if "PATH" not in os.environ or len(os.environ) > 10:
    raise SystemExit(f"it inherits settings: {sorted(os.environ)}")
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_VSOCK):
    refused(f"a socket of family {family.name}", partial(socket.socket, family))
refused("starting a process", os.fork)
refused("writing outside", Path("/written").touch)
refused("changing the root", lambda: os.chroot("/usr"))
Path("inside").write_text("its own directory can be written to")

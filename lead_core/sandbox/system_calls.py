"""The system calls that a sandboxed program is refused, as a seccomp filter.

Namespaces leave gaps that only a filter closes: sockets of families that no network namespace holds
(vsock reaches the host of a virtual machine), io_uring (opens sockets behind a filter's back), keyrings
(inherited from the login), memory that RLIMIT_AS does not count (memfd, System V and POSIX queues), and
kernel interfaces that a small program never needs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lead_core.errors import LeadError


@dataclass(frozen=True)
class Architecture:
    """What differs between machines.

    audit: AUDIT_ARCH of linux/audit.h. foreign_bit: marks numbers of a second ABI (x32), 0 if there
    is none. pivot_root: number of that call, which the C library does not wrap. refused: numbers.
    """

    audit: int
    foreign_bit: int
    pivot_root: int
    refused: tuple[int, ...]


# name: number on x86_64, on aarch64 (asm/unistd_64.h, asm-generic/unistd.h)
_REFUSED = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "perf_event_open": (298, 241),
    "ptrace": (101, 117),
    "request_key": (249, 218),
    "semget": (64, 190),
    "setns": (308, 268),
    "shmget": (29, 194),
    "socket": (41, 198),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}

ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, 1 << 30, 155, tuple(x for x, _ in _REFUSED.values())),
    "aarch64": Architecture(0xC00000B7, 0, 41, tuple(x for _, x in _REFUSED.values())),
}

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # linux/bpf_common.h
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000  # linux/seccomp.h; errno 1: EPERM
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # offsets in struct seccomp_data


def find_architecture(machine: str) -> Architecture:
    """Return what is known of `machine` (as `platform.machine` names it), or raise LeadError."""
    if machine not in ARCHITECTURES:
        raise LeadError(
            f"the sandbox for generated code knows {' and '.join(ARCHITECTURES)}, this machine is "
            f"{machine or 'unknown'}; set evaluate.run_generated_code to false in params.yaml"
        )
    return ARCHITECTURES[machine]


def build_filter(architecture: Architecture) -> bytes:
    """Return the filter as an array of ``struct sock_filter``, in the machine's byte order.

    Refused calls fail with EPERM; calls by another architecture's table end the program.
    """
    refused = architecture.refused
    second_abi = [(_ANY_BIT, len(refused) + 1, 0, architecture.foreign_bit)]
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *(second_abi if architecture.foreign_bit else []),
        *((_EQUAL, len(refused) - i, 0, number) for i, number in enumerate(refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)

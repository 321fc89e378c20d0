"""A full disk and a full memory, in the words of the libraries that meet them."""

import errno

import pytest

from lead_core.shortage import shortage_advice

DISK = "make room, with `lead gc` for example, and run again"


@pytest.mark.parametrize(
    ("error", "stage", "advice"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "artifacts/pool/pool.arrow"),
            "prepare",
            f"artifacts/pool/pool.arrow cannot be written (No space left on device); {DISK}",
        ),
        (
            OSError("[Errno 28] Error writing bytes. Detail: No space left on device"),  # Arrow
            "score",
            f"its output cannot be written (No space left on device); {DISK}",
        ),
        (
            RuntimeError('Io { error: "File too large" (os error 27) }: File too large'),
            "train",
            "its output cannot be written (File too large); raise the limit of a file's size "
            "(`ulimit -f`), and run again",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "artifacts/.pool.x"),
            "prepare",
            "artifacts/.pool.x cannot be written (Read-only file system); mount its file system for "
            "writing, and run again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "artifacts/.pool.x"),
            "prepare",
            "artifacts/.pool.x cannot be opened (Permission denied); check its permissions, and run "
            "again",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            "train",
            "the memory is full; lower train.micro_batch_tokens or data.max_tokens, and run again",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
            "evaluate",
            "the memory is full; lower evaluate.batch_size or data.max_tokens, and run again",
        ),
        (
            MemoryError(),
            "cluster",
            "the memory is full; lower data.max_tokens, and run again",
        ),
        (ValueError("something else"), "train", None),
        (OSError(errno.ENOENT, "No such file or directory", "x"), "train", None),
    ],
)
def test_a_shortage_is_told_with_what_to_do(error, stage, advice):
    assert shortage_advice(error, stage) == advice

"""What a full disk, a read-only one and a full memory look like in errors of many libraries."""

from __future__ import annotations

import errno
import os

_MAKE_ROOM = "make room, with `lead gc` for example"
_DISK_ADVICE = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: "raise the limit of a file's size (`ulimit -f`)",
    errno.EROFS: "mount its file system for writing",
}
_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")
_MEMORY_KNOBS = {
    "score": "score.batch_tokens",
    "train": "train.micro_batch_tokens",
    "cell": "train.micro_batch_tokens",
    "evaluate": "evaluate.batch_size",
    "base": "evaluate.batch_size",
}


def shortage_advice(error: BaseException, stage: str) -> str | None:
    """Return what kept `stage` from working and what to do, in one line; None for any other error."""
    text = str(error)
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _MEMORY_SIGNS):
        return f"the memory is full; {memory_advice(stage)}"
    number = getattr(error, "errno", None)
    file = getattr(error, "filename", None) or "its output"
    for known, advice in _DISK_ADVICE.items():
        # Arrow and safetensors tell the number, or only the system's words for it.
        if number == known or os.strerror(known) in text:
            return f"{file} cannot be written ({os.strerror(known)}); {advice}, and run again"
    if number == errno.EACCES:  # of files that are read, too
        return f"{file} cannot be opened (Permission denied); check its permissions, and run again"
    return None


def memory_advice(stage: str) -> str:
    """Return which parameters make `stage` need less memory."""
    knob = _MEMORY_KNOBS.get(stage)
    return f"lower {f'{knob} or ' if knob else ''}data.max_tokens, and run again"

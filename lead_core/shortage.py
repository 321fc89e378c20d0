"""What a full disk and a full memory look like in errors of many libraries, and what to do then."""

from __future__ import annotations

import errno
import os

DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")
_MEMORY_KNOBS = {
    "score": "score.batch_tokens",
    "train": "train.micro_batch_tokens",
    "cell": "train.micro_batch_tokens",
    "evaluate": "evaluate.batch_size",
    "base": "evaluate.batch_size",
}


def shortage_advice(error: BaseException, stage: str) -> str | None:
    """Return what `stage` lacked and what to do, in one line; None for any other error."""
    text = str(error)
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _MEMORY_SIGNS):
        return f"the memory is full; {memory_advice(stage)}"
    number = getattr(error, "errno", None)
    for known in DISK_ERRNOS:
        # Arrow and safetensors tell the number, or only the system's words for it.
        if number == known or os.strerror(known) in text:
            file = getattr(error, "filename", None) or "its output"
            return (
                f"{file} cannot be written ({os.strerror(known)}); make room, with `lead gc` for "
                "example, and run again"
            )
    return None


def memory_advice(stage: str) -> str:
    """Return which parameters make `stage` need less memory."""
    knob = _MEMORY_KNOBS.get(stage)
    return f"lower {f'{knob} or ' if knob else ''}data.max_tokens, and run again"

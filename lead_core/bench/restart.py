"""Starting a training again: each repetition begins with the same adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def remember_start(model: Any) -> Callable[[], None]:
    """Return a function that puts the trainable parameters of `model` back to what they are now.

    Gradients go; an optimizer's own state stays: it changes where a step leads, not what it costs.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in trainable]

    def restart() -> None:
        with torch.no_grad():
            for parameter, value in zip(trainable, start, strict=True):
                parameter.copy_(value)
                parameter.grad = None

    return restart

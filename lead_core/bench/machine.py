"""The machine that a benchmark ran on, as far as it explains the figures."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import torch

from lead_core.model import ResolvedRuntime

# What matrix products and the like run on; the whole list is 40 names long.
FEATURES = ("avx2", "avx512_f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "amx_fp16")


@dataclass(frozen=True)
class Machine:
    """Processor, its vector extensions, and how torch uses it."""

    processor: str
    cores: int
    features: tuple[str, ...]
    device: str
    threads: int
    precision: str
    torch: str
    python: str

    def __str__(self) -> str:
        features = ", ".join(self.features) or "no known vector extension"
        return (
            f"{self.processor}, {self.cores} cores ({features}); {self.device}, {self.threads} "
            f"threads, {self.precision}, torch {self.torch}, Python {self.python}"
        )


def describe_machine(runtime: ResolvedRuntime) -> Machine:
    """Return the facts of this machine and of how `runtime` uses it."""
    capabilities = torch.cpu.get_capabilities()
    name = str(capabilities.get("cpu_name") or platform.machine())
    if runtime.device == "cuda":
        name = f"{torch.cuda.get_device_name()} beside {name}"
    return Machine(
        processor=name,
        cores=os.cpu_count() or 1,
        features=tuple(feature for feature in FEATURES if capabilities.get(feature)),
        device=runtime.device,
        threads=runtime.threads,
        precision=runtime.precision,
        torch=torch.__version__,
        python=platform.python_version(),
    )

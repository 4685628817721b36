"""Where and how a training computes: device, precision and compilation."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from bfedge.config import ViTConfig
from bfedge.errors import BfedgeError
from bfedge.training.processes import from_torchrun
from bfedge.training.recipe import TrainingSettings

DEVICES = ("auto", "cpu", "cuda")
BF16_CAPABILITY = 8
"""CUDA compute capability (major) from which on GPUs multiply in bf16"""


@dataclass(frozen=True)
class Execution:
    device: torch.device
    bf16: bool
    compiled: bool

    def autocast(self) -> AbstractContextManager[object]:
        """For the training step only: evaluation computes exactly and must not run inside."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    @property
    def words(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return ", ".join([name, "bf16" if self.bf16 else "float32", *["compiled"] * self.compiled])


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one. Of several processes on a machine, each takes a GPU of its own."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise BfedgeError("torch finds no CUDA device here", "--device cpu trains without")
    local = from_torchrun("LOCAL_RANK", 0)
    if local >= torch.cuda.device_count():
        raise BfedgeError(
            f"{os.environ.get('LOCAL_WORLD_SIZE', local + 1)} processes were started here, "
            f"there are {torch.cuda.device_count()} CUDA devices",
            "start one process for each, or use --device cpu",
        )
    return torch.device("cuda", local)


def choose_execution(device: torch.device, settings: TrainingSettings, config: ViTConfig) -> Execution:
    """What `auto` stands for. On CPUs compiling does not pay (measured). Routing to the independent experts of the
    `standard` layer gives shapes that differ from step to step, which would be compiled again and again.

    Raises BfedgeError for bf16 on a CPU: it is no faster there (measured), and the native passes take float32.
    """
    if settings.precision == "bf16" and device.type != "cuda":
        raise BfedgeError("training.precision bf16 needs a GPU", "--set training.precision=auto")
    able = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= BF16_CAPABILITY
    bf16 = able if settings.precision == "auto" else settings.precision == "bf16"
    automatic = able and config.feed_forward != "standard"
    return Execution(device, bf16, automatic if settings.compile == "auto" else settings.compile)

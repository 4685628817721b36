"""Accuracy and loss on the test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bfedge.device.host import HostModel
from bfedge.errors import BfedgeError
from bfedge.lowered.lower import lower
from bfedge.model.vit import ViT
from bfedge.packed.writer import pack
from bfedge.training import processes
from bfedge.training.data import DataSet

CPU_BATCH = 32
"""Images at a time. On CPUs 32 are a third faster than 256 (measured): more of what is computed stays in the cache."""
GPU_ATTENTION = 512 * 65 * 65
"""Attention weights of a head, for all images of a batch: what bounds the memory on GPUs"""


@dataclass(frozen=True)
class Evaluation:
    accuracy: float
    """Share of the images that are classified right, 0..1"""
    loss: float
    """Mean cross entropy"""


@torch.no_grad()
def evaluate(
    model: ViT,
    data: DataSet,
    on_images: Callable[[int, int], None] = lambda done, of: None,
) -> Evaluation:
    """All test images, divided among the processes, in the model's present arithmetic.

    Quantised, on a CPU, that is bit for bit what devices compute; a GPU's sums may differ in the last bits.
    """
    model.eval()
    device = next(model.parameters()).device
    own = processes.part(len(data.test_targets))
    images, targets = (
        torch.from_numpy(data.test_images[own]),
        torch.from_numpy(data.test_targets[own]),
    )
    classify = in_runtime(model) or model
    size = CPU_BATCH if device.type == "cpu" else max(1, min(512, GPU_ATTENTION // model.config.tokens**2))
    found = torch.zeros(2, dtype=torch.float64, device=device)
    for start in range(0, len(images), size):
        expected = targets[start : start + size].to(device)
        logits = classify(images[start : start + size].to(device))
        found[0] += (logits.argmax(1) == expected).sum()
        found[1] += F.cross_entropy(logits, expected, reduction="sum")
        on_images(start + len(expected), len(images))
    correct, loss = (processes.total(found) / len(data.test_targets)).tolist()
    return Evaluation(correct, loss)


def in_runtime(model: ViT) -> Callable[[Tensor], Tensor] | None:
    """The model in the C runtime, which has the bits of the quantised torch model and is some fifteen times faster.

    None for what it does not run: float arithmetic, baselines, models on GPUs, weights that no file can hold.
    """
    if not model.norm.exact or model.config.feed_forward != "butterfly" or model.head.weight.device.type != "cpu":
        return None
    try:
        runtime = HostModel(pack(lower(model)), threads=torch.get_num_threads())
    except BfedgeError:
        return None
    return lambda images: torch.from_numpy(np.stack([runtime.run(image) for image in images.numpy()]))

"""Distillation: a trained model's predictions as targets beside the labels (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bfedge.config import ViTConfig
from bfedge.errors import BfedgeError
from bfedge.model.checkpoint import load_checkpoint
from bfedge.model.layers import float_arithmetic


class Teacher:
    """Predicts in float arithmetic, with weights that stay as they are."""

    def __init__(
        self,
        path: Path,
        config: ViTConfig,
        labels: tuple[str, ...],
        device: torch.device,
    ) -> None:
        """Raises BfedgeError unless its images and classes are those of a model with `config` and `labels`."""
        checkpoint = load_checkpoint(path)
        theirs = checkpoint.model.config
        for name in ("image_height", "image_width", "channels", "classes"):
            if getattr(theirs, name) != getattr(config, name):
                raise BfedgeError(
                    f"the teacher `{path}` has {name} {getattr(theirs, name)}, the model {getattr(config, name)}",
                    "train the teacher on the same data",
                )
        if checkpoint.labels and labels and checkpoint.labels != labels:
            raise BfedgeError(
                f"the teacher `{path}` has other classes than the data: {different(checkpoint.labels, labels)}",
                "train the teacher on the same data",
            )
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.model = checkpoint.model.to(device).requires_grad_(False).eval()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """[images, classes]"""
        with float_arithmetic(self.model):
            result: Tensor = self.model(images)
        return result


def different(theirs: tuple[str, ...], ours: tuple[str, ...]) -> str:
    number = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
    return f"class {number} is `{theirs[number]}` and not `{ours[number]}`"


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened predictions, mean over the images, times temperature squared so
    that its gradients keep their size (section 2 of the paper).
    """
    ours, theirs = (F.log_softmax(x.float() / temperature, -1) for x in (logits, teacher))
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2

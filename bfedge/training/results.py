"""What a training reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from bfedge.config import ViTConfig


@dataclass(frozen=True)
class Progress:
    """What a step reports."""

    epoch: int
    epochs: int
    step: int
    """Steps done in this epoch"""
    steps: int
    loss: float
    """Mean over the epoch so far"""
    expert_load: list[float]
    """Share of the routed pairs that each expert took in the epoch so far, over all layers; empty for dense models"""
    images_per_second: float


@dataclass(frozen=True)
class EpochResult:
    """Two are equal if the same was learnt, however long it took."""

    epoch: int
    loss: float
    """Mean over the epoch of what is minimised"""
    accuracy: float | None
    """On the test images, in the deployed arithmetic, 0..1; None where the epoch was not evaluated"""
    test_loss: float | None
    """Mean cross entropy there"""
    expert_load: list[float]
    learning_rate: float
    """Of the last step"""
    seconds: float = field(compare=False)
    """Of the training steps, without evaluation"""
    images_per_second: float = field(compare=False)


@dataclass(frozen=True)
class TrainingResult:
    config: ViTConfig
    epochs: list[EpochResult]
    deployed_accuracy: float
    float_accuracy: float
    parameters: int

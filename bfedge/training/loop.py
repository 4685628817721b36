"""The training loop: AdamW, linear warm-up and cosine decay, a checkpoint an epoch, resumable to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from bfedge.config import BOUNDS, ViTConfig, config_from_dict, config_to_dict
from bfedge.errors import BfedgeError
from bfedge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bfedge.model.experts import Routing
from bfedge.model.layers import float_arithmetic
from bfedge.model.losses import training_loss
from bfedge.model.vit import ViT
from bfedge.training.augment import augment
from bfedge.training.data import DataSet, load_data
from bfedge.training.recipe import Recipe

EVALUATION_BATCH = 256
SMALL_ACTIVATIONS = 2_000_000
"""Below this many hidden values a batch, a second thread gains little (1.6 times on two idle cores) and loses much
where the cores are shared: the threads wait for each other in every operation (2 to 30 times slower, measured)."""


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


@dataclass(frozen=True)
class EpochResult:
    epoch: int
    loss: float
    accuracy: float
    """On the test images, in the deployed arithmetic, 0..1"""
    expert_load: list[float]


@dataclass(frozen=True)
class TrainingResult:
    config: ViTConfig
    epochs: list[EpochResult]
    deployed_accuracy: float
    float_accuracy: float
    parameters: int


def model_config(recipe: Recipe, data: DataSet) -> ViTConfig:
    """The recipe's model with what the data determines."""
    mean, std = data.pixel_statistics
    _, height, width, channels = data.train_images.shape
    known = dict(
        image_height=height,
        image_width=width,
        channels=channels,
        classes=len(data.labels),
        pixel_mean=mean,
        pixel_std=std,
    )
    for name in ("image_height", "image_width", "channels", "classes"):
        if recipe.model.get(name, known[name]) != known[name]:
            raise BfedgeError(f"the recipe says {name} {recipe.model[name]}, the data has {known[name]}")
    return config_from_dict(known | recipe.model)


def load_recipe_data(recipe: Recipe) -> DataSet:
    model = recipe.model
    for name in ("image_height", "image_width", "channels"):
        low, high = BOUNDS[name]
        if name in model and (type(model[name]) is not int or not low <= model[name] <= high):
            raise BfedgeError(f"model configuration: {name} is {model[name]!r}; it must be an integer, {low} to {high}")
    size = (model["image_height"], model["image_width"]) if {"image_height", "image_width"} <= model.keys() else None
    return load_data(recipe.data, size, model.get("channels"))


class Trainer:
    """One training run. `run` may be called once; state after each epoch goes to `out`."""

    def __init__(self, recipe: Recipe, data: DataSet, out: Path) -> None:
        self.settings = recipe.training
        self.recipe = recipe
        self.data = data
        self.out = out
        if len(data.train_images) < self.settings.batch_size:
            raise BfedgeError(
                f"{len(data.train_images)} training images are less than one batch of {self.settings.batch_size}",
                f"--set training.batch_size={len(data.train_images)}",
            )
        self.config = model_config(recipe, data)
        hidden = self.settings.batch_size * self.config.tokens * self.config.top_k * self.config.d_ff
        if hidden < SMALL_ACTIVATIONS:
            torch.set_num_threads(1)
        torch.manual_seed(self.settings.seed)
        self.generator = torch.Generator().manual_seed(self.settings.seed)
        self.model = ViT(self.config)
        self.optimiser = torch.optim.AdamW(parameter_groups(self.model, self.settings.weight_decay))
        self.epoch = 0
        self.history: list[EpochResult] = []

    @property
    def steps_an_epoch(self) -> int:
        return len(self.data.train_images) // self.settings.batch_size

    def resume(self) -> None:
        """Goes on from the checkpoint at `out`. Raises BfedgeError if it belongs to another recipe or has no
        training state.
        """
        checkpoint = load_checkpoint(self.out)
        state = checkpoint.training
        if not state:
            raise BfedgeError(
                f"`{self.out}` has no training state to resume from",
                "only .pt checkpoints carry it; train without --resume",
            )
        if state.get("recipe") != comparable(self.recipe) or config_to_dict(checkpoint.model.config) != config_to_dict(
            self.config
        ):
            raise BfedgeError(
                f"`{self.out}` was trained by another recipe or on other data",
                "resume with the options it was started with",
            )
        try:
            self.model.load_state_dict(checkpoint.model.state_dict())
            self.optimiser.load_state_dict(state["optimiser"])
            check_moments(self.optimiser)
            self.generator.set_state(state["generator"])
            self.epoch = int(state["epoch"])
            self.history = [EpochResult(**result) for result in state["history"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as problem:
            raise BfedgeError(f"the training state in `{self.out}` is damaged ({problem})") from None

    def run(
        self,
        on_step: Callable[[Progress], None] = lambda _: None,
        on_epoch: Callable[[EpochResult], None] = lambda _: None,
    ) -> TrainingResult:
        while self.epoch < self.settings.epochs:
            self.epoch += 1
            loss, load = self.train_epoch(on_step)
            if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
                raise self.diverged("weights are no longer finite")
            result = EpochResult(self.epoch, loss, accuracy(self.model, self.data), load)
            self.history.append(result)
            self.save()
            on_epoch(result)
        with float_arithmetic(self.model):
            in_float = accuracy(self.model, self.data)
        return TrainingResult(
            self.config,
            self.history,
            accuracy(self.model, self.data),
            in_float,
            sum(p.numel() for p in self.model.parameters()),
        )

    def train_epoch(self, on_step: Callable[[Progress], None]) -> tuple[float, list[float]]:
        settings = self.settings
        images, targets = torch.from_numpy(self.data.train_images), torch.from_numpy(self.data.train_targets)
        order = torch.randperm(len(images), generator=self.generator)
        self.model.train()
        total, counts = 0.0, torch.zeros(self.config.experts)
        load: list[float] = []
        for step in range(self.steps_an_epoch):
            batch = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            inputs = augment(images[batch].float(), settings.augmentation, self.generator)
            loss, routings = self.train_step(inputs, targets[batch], step)
            total += loss
            for routing in routings:
                counts += torch.bincount(routing.selected.flatten(), minlength=self.config.experts)
            load = (counts / counts.sum()).tolist() if routings else []
            on_step(Progress(self.epoch, settings.epochs, step + 1, self.steps_an_epoch, total / (step + 1), load))
        return total / self.steps_an_epoch, load

    def train_step(self, inputs: Tensor, targets: Tensor, step: int) -> tuple[float, list[Routing]]:
        settings = self.settings
        done = (self.epoch - 1) * self.steps_an_epoch + step
        rate = settings.learning_rate * schedule(done, settings.epochs * self.steps_an_epoch, settings.warmup_share)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        logits, routings = self.model.forward_with_routing(inputs)
        losses = training_loss(
            logits,
            targets,
            routings,
            self.config.pooling == "class",
            settings.balance_weight,
            settings.smoothness_weight,
            settings.label_smoothing,
        )
        value = losses.total.item()
        if not math.isfinite(value):
            raise self.diverged(f"the loss is {value}")
        self.optimiser.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
        self.optimiser.step()
        return value, routings

    def diverged(self, how: str) -> BfedgeError:
        rate = self.settings.learning_rate / 3
        return BfedgeError(
            f"training diverged: {how} in epoch {self.epoch}",
            f"lower the rate, for example --set training.learning_rate={rate:.1g}",
        )

    def save(self) -> None:
        state: dict[str, Any] = {}
        if self.out.suffix == ".pt":
            state = {
                "recipe": comparable(self.recipe),
                "epoch": self.epoch,
                "optimiser": self.optimiser.state_dict(),
                "generator": self.generator.get_state(),
                "history": [msgspec.to_builtins(result) for result in self.history],
            }
        save_checkpoint(self.out, Checkpoint(self.model, self.data.labels, self.recipe.data, state))


def check_moments(optimiser: torch.optim.Optimizer) -> None:
    """Raises ValueError unless each state tensor fits its parameter; loading checks no shapes."""
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if not isinstance(value, Tensor) or value.numel() == 1:
                continue
            whole = value.untyped_storage().nbytes() >= value.numel() * value.element_size()
            if value.shape != parameter.shape or not whole:
                raise ValueError(f"`{name}` has shape {list(value.shape)}, its parameter {list(parameter.shape)}")


def comparable(recipe: Recipe) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(recipe)
    return values


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """Factor on the learning rate: linear warm-up, then cosine to zero."""
    warmup = warmup_share * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only: not for angles, positions, norms and biases."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and not name.endswith(("angles", "position"))
        (matrices if is_matrix else others).append(parameter)
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def logits_in_batches(model: ViT, images: Tensor) -> Iterator[Tensor]:
    model.eval()
    with torch.no_grad():
        for start in range(0, len(images), EVALUATION_BATCH):
            yield model(images[start : start + EVALUATION_BATCH])


def accuracy(model: ViT, data: DataSet) -> float:
    """Share of the test images that the model classifies right, in its present arithmetic."""
    logits = torch.cat(list(logits_in_batches(model, torch.from_numpy(data.test_images))))
    return float((logits.argmax(1) == torch.from_numpy(data.test_targets)).float().mean())

"""The training loop: AdamW, linear warm-up and cosine decay, a checkpoint an epoch; on CPUs resumable to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
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
from bfedge.model.losses import Losses, training_loss
from bfedge.model.vit import ViT
from bfedge.training import processes
from bfedge.training.average import AverageModel
from bfedge.training.batches import batches
from bfedge.training.data import DataSet, load_data
from bfedge.training.evaluation import Evaluation, evaluate
from bfedge.training.execution import choose_execution
from bfedge.training.image_folder import Track
from bfedge.training.optimiser import parameter_groups, schedule
from bfedge.training.recipe import Recipe
from bfedge.training.results import EpochResult, Progress, TrainingResult
from bfedge.training.state import (
    STATE_VERSION,
    check_origin,
    check_weights,
    comparable,
    load_moments,
)
from bfedge.training.subset import choose_subset
from bfedge.training.teacher import Teacher, distillation_loss

SMALL_ACTIVATIONS = 2_000_000
"""Below this many hidden values a batch, a second thread gains little (1.6 times on two idle cores) and loses much
where the cores are shared: the threads wait for each other in every operation (2 to 30 times slower, measured)."""
GPU_STEPS_A_REPORT = 10
"""Reading the loss makes a GPU wait; on CPUs every step reports."""


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


def load_recipe_data(recipe: Recipe, track: Track = lambda items, _: items) -> DataSet:
    """What the recipe names; `track` shows progress."""
    model = recipe.model
    for name in ("image_height", "image_width", "channels"):
        low, high = BOUNDS[name]
        if name in model and (type(model[name]) is not int or not low <= model[name] <= high):
            raise BfedgeError(f"model configuration: {name} is {model[name]!r}; it must be an integer, {low} to {high}")
    size = (model["image_height"], model["image_width"]) if {"image_height", "image_width"} <= model.keys() else None
    return load_data(recipe.data, size, model.get("channels"), track)


class RoutedModel(nn.Module):
    """The model as DistributedDataParallel and torch.compile take it: called, it gives logits and routings."""

    def __init__(self, model: ViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, list[Routing]]:
        return self.model.forward_with_routing(images)


class Trainer:
    """One training run. `run` may be called once; state after each epoch goes to `out`.

    Among several processes (`bfedge.training.processes`) each has a Trainer of the same recipe and data.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        out: Path,
        device: torch.device | None = None,
        threads: int | None = None,
    ) -> None:
        """`threads` of torch on the CPU; None for its own choice, or one where the model is small."""
        self.settings = settings = recipe.training
        self.recipe = recipe
        self.out = out
        self.images_there_are = len(data.train_targets)
        self.data = choose_subset(data, settings.subset, settings.seed)
        self.check_batch()
        self.config = model_config(recipe, self.data)
        hidden = settings.batch_size // processes.count() * self.config.tokens * self.config.top_k * self.config.d_ff
        if threads or hidden < SMALL_ACTIVATIONS:
            torch.set_num_threads(threads or 1)
        self.execution = choose_execution(device or torch.device("cpu"), settings, self.config)
        self.device = self.execution.device
        torch.manual_seed(settings.seed)
        self.model = ViT(self.config).to(self.device)
        self.average = AverageModel(self.model, settings.ema) if settings.ema else None
        self.teacher = None
        if settings.teacher:
            self.teacher = Teacher(Path(settings.teacher), self.config, data.labels, self.device)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.model, settings.weight_decay, settings.angle_rate), fused=True
        )
        self.forward = self.shared_forward()
        self.epoch = 0
        self.history: list[EpochResult] = []

    def check_batch(self) -> None:
        size, images, parts = (
            self.settings.batch_size,
            len(self.data.train_targets),
            processes.count(),
        )
        if images < size:
            raise BfedgeError(
                f"{images} training images are less than one batch of {size}",
                f"--set training.batch_size={images}",
            )
        if size % parts:
            raise BfedgeError(
                f"training.batch_size {size} does not divide among {parts} processes",
                f"--set training.batch_size={size + -size % parts}",
            )

    def shared_forward(self) -> Callable[[Tensor], tuple[Tensor, list[Routing]]]:
        forward: nn.Module = RoutedModel(self.model)
        if processes.count() > 1:
            own = [self.device] if self.device.type == "cuda" else None
            forward = nn.parallel.DistributedDataParallel(forward, own)
        return torch.compile(forward) if self.execution.compiled else forward

    @property
    def steps_an_epoch(self) -> int:
        return len(self.data.train_targets) // self.settings.batch_size

    @property
    def final_model(self) -> ViT:
        """What is evaluated and saved."""
        return self.average.model if self.average else self.model

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def resume(self) -> None:
        """Goes on from the checkpoint at `out`. Raises BfedgeError if it belongs to another recipe or has no
        training state.
        """
        checkpoint = load_checkpoint(self.out)
        check_origin(
            self.out,
            checkpoint,
            self.recipe,
            config_to_dict(self.config),
            self.teacher_sha256,
        )
        state = checkpoint.training
        try:
            if self.average:
                check_weights(self.out, state["weights"], checkpoint.model)
                self.model.load_state_dict(state["weights"])
            self.final_model.load_state_dict(checkpoint.model.state_dict())
            load_moments(self.optimiser, state["optimiser"])
            self.epoch = int(state["epoch"])
            self.history = msgspec.convert(state["history"], list[EpochResult])
            if len(self.history) != self.epoch:
                raise ValueError(f"{len(self.history)} results of {self.epoch} epochs")
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as problem:
            raise BfedgeError(f"the training state in `{self.out}` is damaged ({problem})") from None

    def run(
        self,
        on_step: Callable[[Progress], None] = lambda _: None,
        on_epoch: Callable[[EpochResult], None] = lambda _: None,
        on_evaluation: Callable[[int, int], None] = lambda done, of: None,
    ) -> TrainingResult:
        """Trains the epochs that are left. The callbacks hear of every step (on GPUs every few), every epoch, and of
        the test images while they are classified: how many are done, of how many in this process.
        """
        while self.epoch < self.settings.epochs:
            self.epoch += 1
            started = time.perf_counter()
            loss, load = self.train_epoch(on_step)
            seconds = time.perf_counter() - started
            if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
                raise self.diverged("weights are no longer finite")
            test = self.evaluate(on_evaluation)
            result = EpochResult(
                epoch=self.epoch,
                loss=loss,
                accuracy=test.accuracy if test else None,
                test_loss=test.loss if test else None,
                expert_load=load,
                learning_rate=self.rate(self.steps_an_epoch),
                seconds=seconds,
                images_per_second=self.steps_an_epoch * self.settings.batch_size / seconds,
            )
            self.history.append(result)
            if processes.rank() == 0:
                self.save()
            on_epoch(result)
        with float_arithmetic(self.final_model):
            in_float = evaluate(self.final_model, self.data, on_evaluation).accuracy
        deployed = self.history[-1].accuracy
        if deployed is None:
            raise BfedgeError(f"the training state in `{self.out}` is damaged (its last epoch was not evaluated)")
        return TrainingResult(self.config, self.history, deployed, in_float, self.parameters)

    def evaluate(self, on_evaluation: Callable[[int, int], None]) -> Evaluation | None:
        """Of the deployed arithmetic, in the epochs that are to be evaluated."""
        if self.epoch % self.settings.evaluate_every and self.epoch < self.settings.epochs:
            return None
        return evaluate(self.final_model, self.data, on_evaluation)

    def train_epoch(self, on_step: Callable[[Progress], None]) -> tuple[float, list[float]]:
        """Mean loss, and the share of the routed pairs that each expert took."""
        settings, steps = self.settings, self.steps_an_epoch
        own = processes.part(settings.batch_size)
        every = 1 if self.device.type == "cpu" else GPU_STEPS_A_REPORT
        self.model.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        shares = torch.zeros(self.config.experts, device=self.device)
        loss, load = math.nan, list[float]()
        started = time.perf_counter()
        stream = batches(
            self.data,
            settings.batch_size,
            self.recipe.augmentation,
            settings.seed,
            self.epoch,
            own,
            self.device,
        )
        with closing(stream):  # type: ignore[type-var]  # it is a generator: its thread ends with the epoch
            for step, (images, targets) in enumerate(stream, 1):
                losses = self.train_step(images, targets, step)
                total += losses.total.detach()
                if len(losses.shares):
                    shares += losses.shares.mean(0)
                if step % every and step < steps:
                    continue
                loss = float(processes.mean(total)) / step
                if not math.isfinite(loss):
                    raise self.diverged(f"the loss is {loss}")
                load = (shares / step).tolist() if len(losses.shares) else []
                rate = step * settings.batch_size / (time.perf_counter() - started)
                on_step(Progress(self.epoch, settings.epochs, step, steps, loss, load, rate))
        return loss, load

    def train_step(self, images: Tensor, targets: Tensor, step: int) -> Losses:
        """Of the part of a batch that this process takes; steps are counted from 1 in an epoch."""
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * self.rate(step)
        with self.execution.autocast():
            logits, routings = self.forward(images)
        losses = training_loss(
            logits,
            targets,
            routings,
            self.config.pooling == "class",
            settings.balance_weight,
            settings.smoothness_weight,
            settings.label_smoothing,
        )
        if self.teacher:
            losses = self.distilled(losses, images, logits)
        self.optimiser.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
        self.optimiser.step()
        if self.average:
            self.average.update(self.model, self.steps_done(step))
        return losses

    def distilled(self, losses: Losses, images: Tensor, logits: Tensor) -> Losses:
        """The teacher's predictions in place of a share of the labels."""
        assert self.teacher
        with self.execution.autocast():
            theirs = self.teacher.logits(images)
        share = self.settings.distillation
        imitation = distillation_loss(logits, theirs, self.settings.temperature)
        return replace(losses, total=losses.total + share * (imitation - losses.cross_entropy))

    def steps_done(self, step: int) -> int:
        """Of the whole training, after `step` of this epoch."""
        return (self.epoch - 1) * self.steps_an_epoch + step

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 1, of this epoch."""
        steps = self.settings.epochs * self.steps_an_epoch
        return self.settings.learning_rate * schedule(self.steps_done(step) - 1, steps, self.settings.warmup_share)

    def diverged(self, how: str) -> BfedgeError:
        rate = self.settings.learning_rate / 3
        return BfedgeError(
            f"training diverged: {how} in epoch {self.epoch}",
            f"lower the rate, for example --set training.learning_rate={rate:.1g}",
        )

    @property
    def teacher_sha256(self) -> str:
        return self.teacher.sha256 if self.teacher else ""

    def save(self) -> None:
        state: dict[str, Any] = {}
        if self.out.suffix == ".pt":
            state = {
                "version": STATE_VERSION,
                "recipe": comparable(self.recipe),
                "teacher": self.teacher_sha256,
                "epoch": self.epoch,
                "optimiser": self.optimiser.state_dict(),
                "history": [msgspec.to_builtins(result) for result in self.history],
            }
            state |= {"weights": self.model.state_dict()} if self.average else {}
        save_checkpoint(
            self.out,
            Checkpoint(self.final_model, self.data.labels, self.recipe.data, state),
        )

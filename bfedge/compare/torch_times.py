"""How long torch takes for a training step and an inference of feed-forward layers and whole models, interleaved."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bfedge.bench.random_models import cifar_shape
from bfedge.bench.timing import Clock, Competitor, Timed, clock_for, time_interleaved
from bfedge.config import ViTConfig, config_from_dict
from bfedge.model.experts import FEED_FORWARD
from bfedge.model.layers import float_arithmetic
from bfedge.model.losses import training_loss
from bfedge.model.vit import Block, ViT
from bfedge.training.execution import choose_execution
from bfedge.training.optimiser import parameter_groups
from bfedge.training.recipe import TrainingSettings

PAPER_EXPERTS = (8, 64)
KINDS = ("standard", "butterfly", "dense")
"""The first is what the others' ratios refer to"""
SETTINGS = TrainingSettings()

Track = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Subject:
    """A layer or a model to time."""

    name: str
    config: ViTConfig
    module: nn.Module
    output: Callable[[], Tensor]
    """Forward"""
    loss: Callable[[], Tensor]
    """Forward, and what is differentiated"""


@dataclass(frozen=True)
class Times:
    """One thing that all subjects did in turn."""

    of: str
    """The layer or the model"""
    what: str
    arithmetic: str
    kinds: dict[str, str]
    """Kind of feed-forward layer by the name of the subject"""
    timed: list[Timed]
    """Microseconds a call, and ratios to the first subject's"""


def time_subjects(
    of: str, subjects: Sequence[Subject], rounds: int, track: Track, clock: Clock | None = None
) -> list[Times]:
    """Leaves all weights as they are."""
    device = next(subjects[0].module.parameters()).device
    clock = clock or device_clock(device)
    found = []
    for what, in_float in track(CASES, of):
        with ExitStack() as stack:
            for subject in subjects:
                subject.module.train(what != "inference")
                if in_float:
                    stack.enter_context(float_arithmetic(subject.module))
            competitors = [Competitor(s.name, CALLS[what](s, device), "torch") for s in subjects]
            timed = time_interleaved(competitors, rounds, clock)
        kinds = {subject.name: str(subject.config.feed_forward) for subject in subjects}
        found.append(Times(of, what, "float" if in_float else "quantised", kinds, timed))
    for subject in subjects:
        subject.module.eval().zero_grad()
    return found


def device_clock(device: torch.device) -> Clock:
    """A GPU works on after a call has returned, so it is waited for."""
    if device.type != "cuda":
        return clock_for(torch.get_num_threads())

    def now() -> int:
        torch.cuda.synchronize(device)
        return time.perf_counter_ns()

    return Clock("time that passes, until the GPU is done", now)


def inference(subject: Subject, device: torch.device) -> Callable[[], object]:
    def call() -> None:
        with torch.no_grad():
            subject.output()

    return call


def passes(subject: Subject, device: torch.device) -> Callable[[], object]:
    """Forward and backward, in the precision that `bfedge train` chooses."""
    autocast = precision(subject, device)

    def call() -> None:
        subject.module.zero_grad()
        with autocast():
            loss = subject.loss()
        loss.backward()  # type: ignore[no-untyped-call]

    return call


def update(subject: Subject, device: torch.device) -> Callable[[], object]:
    """Gradient clipping and AdamW. The rate is 0, so that the model that is timed stays the same."""
    passes(subject, device)()
    parameters = list(subject.module.parameters())
    groups = parameter_groups(subject.module, SETTINGS.weight_decay, SETTINGS.angle_rate)
    optimiser = torch.optim.AdamW(groups, lr=0.0, fused=True)

    def call() -> None:
        nn.utils.clip_grad_norm_(parameters, SETTINGS.gradient_clip)
        optimiser.step()

    return call


def training_step(subject: Subject, device: torch.device) -> Callable[[], object]:
    forward_and_backward, adamw = passes(subject, device), update(subject, device)

    def call() -> None:
        forward_and_backward()
        adamw()

    return call


CALLS: dict[str, Callable[[Subject, torch.device], Callable[[], object]]] = {
    "training step": training_step,
    "forward and backward": passes,
    "clipping and AdamW": update,
    "inference": inference,
}
CASES = (
    ("training step", False),
    ("forward and backward", False),
    ("clipping and AdamW", False),
    ("training step", True),
    ("inference", True),
)
"""What is done, and whether in float arithmetic rather than quantised. An inference as deployed is the C runtime's;
torch only emulates its bits."""


def precision(subject: Subject, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    execution = choose_execution(device, SETTINGS, subject.config)
    return execution.autocast if execution.bf16 else nullcontext


def execution_words(config: ViTConfig, device: torch.device) -> str:
    """Where and how the training steps run: never compiled, whatever `bfedge train` does."""
    return dataclasses.replace(choose_execution(device, SETTINGS, config), compiled=False).words


def layer_subject(name: str, config: ViTConfig, layer: nn.Module, h: Tensor) -> Subject:
    """A feed-forward layer with h [images, tokens, d_model]; its gradient reaches h, as in a model."""
    h = h.detach().clone().requires_grad_()
    gradient = torch.randn(h.shape, generator=torch.Generator().manual_seed(0)).to(h.device) / h.numel()

    def output() -> Tensor:
        h.grad = None
        out: Tensor = layer(h)[0]
        return out

    return Subject(name, config, layer, output, lambda: (output() * gradient).sum())


def model_subject(name: str, model: ViT, images: Tensor, targets: Tensor) -> Subject:
    """A model with images [images, height, width, channels] and the training loss of their classes."""
    class_token = model.config.pooling == "class"

    def loss() -> Tensor:
        logits, routings = model.forward_with_routing(images)
        return training_loss(logits, targets, routings, class_token).total

    return Subject(name, model.config, model, lambda: model(images), loss)


def trained_layers(models: dict[str, ViT], images: Tensor) -> list[Subject]:
    """The first feed-forward layer of each model, with what it gets for these images."""
    subjects = []
    for name, model in models.items():
        block = model.blocks[0]
        assert isinstance(block, Block)
        with torch.no_grad(), float_arithmetic(model):
            z = model.embedding(images)
            z = z + block.attention(block.norm1(z))
            subjects.append(layer_subject(name, model.config, block.experts, block.norm2(z)))
    return subjects


def trained_models(models: dict[str, ViT], images: Tensor, targets: Tensor) -> list[Subject]:
    return [model_subject(name, model, images, targets) for name, model in models.items()]


def paper_layers(experts: int, images: int, device: torch.device) -> list[Subject]:
    """Untrained feed-forward layers of the paper's shape (d_model 256, d_ff 1024, top-2, 65 tokens), with normally
    distributed inputs.
    """
    torch.manual_seed(0)
    h = torch.randn(images, cifar_shape(experts).tokens, cifar_shape(experts).d_model)
    subjects = []
    for kind in KINDS:
        config = paper_config(experts, kind)
        layer = FEED_FORWARD[config.feed_forward](config).to(device)
        subjects.append(layer_subject(kind, config, layer, h.to(device)))
    return subjects


def paper_config(experts: int, feed_forward: str) -> ViTConfig:
    shape = cifar_shape(experts)
    names = ("image_height", "image_width", "channels", "patch_size", "classes", "d_model", "d_ff", "layers", "heads")
    values = {name: getattr(shape, name) for name in (*names, "experts", "top_k", "pooling")}
    return config_from_dict(values | {"feed_forward": feed_forward})

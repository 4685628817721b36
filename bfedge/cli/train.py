"""`bfedge train`: a recipe to a checkpoint, with progress."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bfedge.cli.output import (
    count,
    counted,
    finite,
    json_option,
    needs,
    out,
    print_json,
    track,
    words,
)
from bfedge.cli.train_progress import train_with_progress
from bfedge.errors import BfedgeError
from bfedge.files import check_place, write_atomically

if TYPE_CHECKING:
    from bfedge.training.loop import Trainer
    from bfedge.training.results import EpochResult, TrainingResult


@click.command("train")
@click.argument("recipe", default="digits")
@click.option("--out", "out_path", type=click.Path(path_type=Path), default=Path("model.pt"), show_default=True,
              help="Checkpoint to write: .pt, or .safetensors (which cannot be resumed).")  # fmt: skip
@click.option(
    "--data",
    help="Replaces the recipe's data: `digits`, CIFAR-10 or CIFAR-100, a folder of images by class.",
)
@click.option("--epochs", type=int, help="Replaces the recipe's number of epochs.")
@click.option("--seed", type=int, help="Replaces the recipe's seed.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE",
              help="Replaces a field of the recipe, for example --set model.experts=16. May be repeated.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the checkpoint at --out.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="Where to train; auto is the GPU if there is one.")  # fmt: skip
@click.option(
    "--threads",
    type=click.IntRange(1, 4096),
    help="Threads of torch on the CPU; small models take one.",
)
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="File for the learning curve: a line of JSON an epoch.",
)
@json_option
def command(
    recipe: str,
    out_path: Path,
    data: str | None,
    epochs: int | None,
    seed: int | None,
    settings: tuple[str, ...],
    resume: bool,
    device: str,
    threads: int | None,
    log: Path | None,
    as_json: bool,
) -> None:
    """Train a model by RECIPE: a built-in one (digits) or a TOML file.

    A checkpoint is written after every epoch; --resume goes on from it and ends with the same result as an unbroken
    run. Several processes share the work under torchrun: torchrun --nproc-per-node 2 -m bfedge train ...
    """
    try:
        from bfedge.training import processes
        from bfedge.training.execution import choose_device
        from bfedge.training.loop import Trainer, load_recipe_data
        from bfedge.training.recipe import load_recipe
    except ImportError as problem:
        raise needs("train", problem) from None

    if out_path.suffix not in (".pt", ".safetensors"):
        raise BfedgeError(f"`{out_path}`: a checkpoint ends in .pt or .safetensors")
    check_place(out_path)
    overrides = parse_settings(settings)
    overrides |= {"data": json.dumps(data)} if data else {}
    overrides |= {"training.epochs": str(epochs)} if epochs is not None else {}
    overrides |= {"training.seed": str(seed)} if seed is not None else {}
    chosen = choose_device(device)
    with processes.processes(chosen):
        loaded = load_recipe(recipe, overrides)
        trainer = Trainer(loaded, load_recipe_data(loaded, track), out_path, chosen, threads)
        if resume:
            trainer.resume()
        speaks = processes.rank() == 0
        if speaks:
            describe(trainer, recipe)
        started = time.perf_counter()
        result = run_training(trainer, log if speaks else None, speaks)
        if speaks:
            report(result, out_path, time.perf_counter() - started, as_json)


def parse_settings(settings: tuple[str, ...]) -> dict[str, str]:
    overrides = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise BfedgeError(f"`--set {setting}` has no value", "write it as --set model.d_model=32")
        overrides[key.strip()] = value.strip()
    return overrides


def describe(trainer: Trainer, recipe: str) -> None:
    """What is going to be trained, in a few lines."""
    import torch

    from bfedge.training import processes

    config, settings, data = trainer.config, trainer.settings, trainer.data
    experts = "" if config.feed_forward == "dense" else f", {config.experts} experts, top-{config.top_k}"
    images = count(len(data.train_targets))
    if len(data.train_targets) < trainer.images_there_are:
        images += f" of {count(trainer.images_there_are)}"
    where = trainer.execution.words
    if trainer.device.type == "cpu":
        threads = torch.get_num_threads()
        where += f", {threads} thread{'s' * (threads > 1)}"
    if processes.count() > 1:
        where = f"{processes.count()} processes, each: {where}"
    words.print(
        f"{recipe}: {config.feed_forward}, {counted(config.layers, 'layer')}, d_model {config.d_model}, "
        f"d_ff {config.d_ff}{experts}; {count(trainer.parameters)} parameters\n"
        f"{trainer.recipe.data}: {images} training images, {count(len(data.test_targets))} test images, "
        f"{config.classes} classes\n"
        f"{counted(settings.epochs, 'epoch')} of {counted(trainer.steps_an_epoch, 'step')} of "
        f"{settings.batch_size} images; {where}"
    )
    if settings.teacher:
        words.print(f"taught by {settings.teacher}, {settings.distillation:.0%} of the loss")
    if trainer.epoch:
        words.print(f"resuming after epoch {trainer.epoch} of {settings.epochs}")


def run_training(trainer: Trainer, log: Path | None, shown: bool) -> TrainingResult:
    import torch

    if log:
        write_log(log, trainer.history)  # before hours are spent, in case it cannot be written
    try:
        return train_with_progress(trainer, lambda: write_log(log, trainer.history) if log else None, shown)
    except torch.OutOfMemoryError:
        size = trainer.settings.batch_size
        raise BfedgeError(
            f"{trainer.execution.words} has too little memory for {size} images at a time",
            f"--set training.batch_size={max(1, size // 2)}",
        ) from None
    except KeyboardInterrupt:
        raise BfedgeError(
            f"interrupted in epoch {trainer.epoch}; `{trainer.out}` holds the last whole epoch"
            if trainer.history
            else "interrupted before the first epoch was done",
            "the same command with --resume goes on" if trainer.history else None,
        ) from None


def write_log(path: Path, history: list[EpochResult]) -> None:
    """Whole, so that it has each epoch once after a --resume too."""
    lines = "".join(json.dumps(finite(epoch_fields(result)), allow_nan=False) + "\n" for result in history)
    write_atomically(path, lambda temporary: Path(temporary).write_text(lines))


def epoch_fields(result: EpochResult) -> dict[str, Any]:
    return dataclasses.asdict(result)


def report(result: TrainingResult, path: Path, seconds: float, as_json: bool) -> None:
    last = result.epochs[-1]
    if as_json:
        print_json(
            "train",
            {
                "checkpoint": str(path),
                "parameters": result.parameters,
                "epochs": [epoch_fields(e) for e in result.epochs],
                "float_accuracy": result.float_accuracy,
                "deployed_accuracy": result.deployed_accuracy,
                "expert_load": last.expert_load,
                "seconds": round(seconds, 2),
            },
        )
        return
    out.print(
        f"{count(result.parameters)} parameters, {seconds:.0f} s\n"
        f"test accuracy {result.float_accuracy:.2%} in float, {result.deployed_accuracy:.2%} as deployed\n"
        f"wrote {path}"
    )

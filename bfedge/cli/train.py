"""`bfedge train`: a recipe to a checkpoint, with progress."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bfedge.cli.output import count, json_option, needs, out, print_json, words
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    from bfedge.training.loop import EpochResult, Trainer, TrainingResult
    from bfedge.training.loop import Progress as StepProgress

SPARKS = "▁▂▃▄▅▆▇█"


@click.command("train")
@click.argument("recipe", default="digits")
@click.option("--out", "out_path", type=click.Path(path_type=Path), default=Path("model.pt"), show_default=True,
              help="Checkpoint to write: .pt, or .safetensors (which cannot be resumed).")  # fmt: skip
@click.option("--data", help="`digits`, or a folder of images by class; replaces the recipe's.")
@click.option("--epochs", type=int, help="Replaces the recipe's number of epochs.")
@click.option("--seed", type=int, help="Replaces the recipe's seed.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE",
              help="Replaces a field of the recipe, for example --set model.experts=16. May be repeated.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the checkpoint at --out.")
@json_option
def command(
    recipe: str,
    out_path: Path,
    data: str | None,
    epochs: int | None,
    seed: int | None,
    settings: tuple[str, ...],
    resume: bool,
    as_json: bool,
) -> None:
    """Train a model by RECIPE: a built-in one (digits) or a TOML file.

    A checkpoint is written after every epoch; --resume goes on from it and ends with the same result as an unbroken
    run.
    """
    try:
        from bfedge.training.loop import Trainer, load_recipe_data
        from bfedge.training.recipe import load_recipe
    except ImportError as problem:
        raise needs("train", problem) from None

    if out_path.suffix not in (".pt", ".safetensors"):
        raise BfedgeError(f"`{out_path}`: a checkpoint ends in .pt or .safetensors")
    overrides = parse_settings(settings)
    overrides |= {"data": json.dumps(data)} if data else {}
    overrides |= {"training.epochs": str(epochs)} if epochs is not None else {}
    overrides |= {"training.seed": str(seed)} if seed is not None else {}
    loaded = load_recipe(recipe, overrides)
    trainer = Trainer(loaded, load_recipe_data(loaded), out_path)
    if resume:
        trainer.resume()
        words.print(f"resuming after epoch {trainer.epoch} of {loaded.training.epochs}")
    started = time.perf_counter()
    try:
        result = train_with_progress(trainer)
    except KeyboardInterrupt:
        raise BfedgeError(
            f"interrupted in epoch {trainer.epoch}; `{out_path}` holds the last whole epoch"
            if trainer.history
            else "interrupted before the first epoch was done",
            "the same command with --resume goes on" if trainer.history else None,
        ) from None
    report(result, out_path, time.perf_counter() - started, as_json)


def parse_settings(settings: tuple[str, ...]) -> dict[str, str]:
    overrides = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise BfedgeError(f"`--set {setting}` has no value", "write it as --set model.d_model=32")
        overrides[key.strip()] = value.strip()
    return overrides


def train_with_progress(trainer: Trainer) -> TrainingResult:
    bar = Progress(
        TextColumn("epoch {task.fields[epoch]:>3}"),
        BarColumn(bar_width=24),
        TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]}  experts {task.fields[load]}"),
        TimeRemainingColumn(),
        console=words,
        disable=not words.is_terminal,
    )
    steps = trainer.steps_an_epoch * trainer.settings.epochs
    task = bar.add_task("", total=steps, epoch=0, loss=0.0, accuracy="  -  ", load="")

    def on_step(step: StepProgress) -> None:
        done = (step.epoch - 1) * step.steps + step.step
        bar.update(task, completed=done, epoch=step.epoch, loss=step.loss, load=sparkline(step.expert_load))

    def on_epoch(result: EpochResult) -> None:
        bar.update(task, accuracy=f"{result.accuracy:.1%}")
        if not words.is_terminal:
            load = f"  experts {sparkline(result.expert_load)}" if result.expert_load else ""
            words.print(
                f"epoch {result.epoch:>3}/{trainer.settings.epochs}  loss {result.loss:.3f}  "
                f"accuracy {result.accuracy:.1%}{load}"
            )

    with bar:
        return trainer.run(on_step, on_epoch)


def sparkline(shares: list[float]) -> str:
    """Expert load as bars: full height is twice the even share."""
    if not shares:
        return ""
    even = 1 / len(shares)
    return "".join(SPARKS[min(int(share / even * 4), len(SPARKS) - 1)] for share in shares[:32])


def report(result: TrainingResult, path: Path, seconds: float, as_json: bool) -> None:
    last = result.epochs[-1] if result.epochs else None
    if as_json:
        print_json(
            "train",
            {
                "checkpoint": str(path),
                "parameters": result.parameters,
                "epochs": [{"epoch": e.epoch, "loss": e.loss, "accuracy": e.accuracy} for e in result.epochs],
                "float_accuracy": result.float_accuracy,
                "deployed_accuracy": result.deployed_accuracy,
                "expert_load": last.expert_load if last else [],
                "seconds": round(seconds, 2),
            },
        )
        return
    out.print(
        f"{count(result.parameters)} parameters, {seconds:.0f} s\n"
        f"test accuracy {result.float_accuracy:.2%} in float, {result.deployed_accuracy:.2%} as deployed\n"
        f"wrote {path}"
    )

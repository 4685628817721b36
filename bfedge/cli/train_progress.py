"""The progress bar of `bfedge train`; where there is no terminal, a line an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bfedge.cli.output import words

if TYPE_CHECKING:
    from bfedge.training.loop import Trainer
    from bfedge.training.results import EpochResult, TrainingResult
    from bfedge.training.results import Progress as StepProgress

SPARKS = "▁▂▃▄▅▆▇█"


def train_with_progress(trainer: Trainer, after_epoch: Callable[[], None], shown: bool) -> TrainingResult:
    """Runs the trainer; `after_epoch` is called once an epoch is saved."""
    bar = Progress(
        TextColumn("epoch {task.fields[epoch]:>3}"),
        BarColumn(bar_width=24),
        TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]}  experts {task.fields[load]}"),
        TextColumn("{task.fields[phase]}"),
        TimeRemainingColumn(),
        console=words,
        disable=not (shown and words.is_terminal),
    )
    epochs, steps = trainer.settings.epochs, trainer.steps_an_epoch
    task = bar.add_task(
        "", total=steps * epochs, completed=steps * trainer.epoch, epoch=0, loss=0.0, accuracy="  -  ", load="",
        phase="",
    )  # fmt: skip

    def on_step(step: StepProgress) -> None:
        bar.update(
            task,
            completed=(step.epoch - 1) * step.steps + step.step,
            epoch=step.epoch,
            loss=step.loss,
            load=sparkline(step.expert_load),
            phase=f"{step.images_per_second:,.0f} images/s",
        )

    def on_evaluation(done: int, of: int) -> None:
        bar.update(task, phase=f"testing {done / of:>4.0%}")

    def on_epoch(result: EpochResult) -> None:
        if result.accuracy is not None:
            bar.update(task, accuracy=f"{result.accuracy:.1%}")
        after_epoch()
        if shown and not words.is_terminal:
            words.print(epoch_line(result, epochs))

    with bar:
        return trainer.run(on_step, on_epoch, on_evaluation)


def epoch_line(result: EpochResult, epochs: int) -> str:
    accuracy = f"  accuracy {result.accuracy:.1%}" if result.accuracy is not None else ""
    load = f"  experts {sparkline(result.expert_load)}" if result.expert_load else ""
    return (
        f"epoch {result.epoch:>3}/{epochs}  loss {result.loss:.3f}{accuracy}{load}"
        f"  {result.seconds:.0f} s, {result.images_per_second:,.0f} images/s"
    )


def sparkline(shares: list[float]) -> str:
    """Expert load as bars: full height is twice the even share."""
    if not shares:
        return ""
    even = 1 / len(shares)
    return "".join(SPARKS[min(int(share / even * 4), len(SPARKS) - 1)] for share in shares[:32])

"""Learning curves of several trainings in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bfedge.files import write_atomically
from bfedge.report.words import printable
from bfedge.training.results import EpochResult

Curves = Mapping[str, Sequence[EpochResult]]
STYLES = ("o-", "s--", "^:", "D-.")


def label(name: str) -> str:
    """For matplotlib, to which dollars are formulas and a leading underscore means no label."""
    shown = printable(name).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def write_plot(path: Path, curves: Curves) -> None:
    """Training loss and test accuracy against epochs."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {"font.size": 9, "svg.hashsalt": "bfedge", "svg.fonttype": "none"}
    style |= {"axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(10, 4), layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        for number, (name, epochs) in enumerate(curves.items()):
            options: dict[str, Any] = {"label": label(name), "color": f"C{number % 10}", "markersize": 3}
            line = STYLES[number % len(STYLES)]
            loss.plot([e.epoch for e in epochs], [e.loss for e in epochs], line, **options)
            tested = [(e.epoch, 100 * e.accuracy) for e in epochs if e.accuracy is not None]
            accuracy.plot([epoch for epoch, _ in tested], [value for _, value in tested], line, **options)
        loss.set_title("training loss", loc="left")
        accuracy.set_title("test accuracy as deployed, %", loc="left")
        for axes in (loss, accuracy):
            axes.set_xlabel("epoch")
            axes.grid(axis="y", linewidth=0.5)
            axes.xaxis.get_major_locator().set_params(integer=True)
        loss.legend(frameon=False)
        kind = path.suffix.lower()[1:]
        metadata = {"Date": None} if kind == "svg" else {}
        write_atomically(path, lambda name: figure.savefig(name, format=kind, metadata=metadata, dpi=150))

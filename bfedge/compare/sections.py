"""The comparison as tables in words, which the terminal and Markdown show alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bfedge.compare import words
from bfedge.compare.claims import Beside
from bfedge.compare.study import Study
from bfedge.compare.torch_times import Times
from bfedge.measure.experts import LayerAnalysis

NONE = "n/a"
MOST_EPOCHS = 25
"""Rows of the learning curve"""

Cell = Callable[[Study], str]


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    columns: tuple[str, ...]
    """The first is the rows' name"""
    rows: Sequence[tuple[str, ...]]
    figures: bool = True
    """Whether all but the first column hold figures rather than words"""


def number(value: float | None, form: str = ".3g") -> str:
    return NONE if value is None else format(value, form)


def model_sections(studies: Sequence[Study]) -> Iterator[Section]:
    """All but times and the paper's figures."""
    yield by_model("Models", words.MODELS_TEXT, studies, MODEL_ROWS)
    yield by_model(
        "Accuracy", words.ACCURACY_TEXT.format(images=studies[0].deployed.images), studies, accuracy_rows(studies)
    )
    learning = learning_curve(studies)
    if learning:
        yield learning
    routed = [found for found in studies if found.experts]
    if routed:
        yield by_model("Expert similarity", words.SIMILARITY_TEXT, routed, SIMILARITY_ROWS)
    yield rounding_section(studies)
    if any(found.subject.kind == "butterfly" for found in studies):
        butterfly = [found for found in studies if found.subject.kind == "butterfly"]
        yield by_model("Quantisation error of the ternary substrate", words.SUBSTRATE_TEXT, butterfly, SUBSTRATE_ROWS)
    if routed:
        yield by_model("Activation outliers", words.OUTLIER_TEXT, routed, OUTLIER_ROWS)
        yield by_model("Routing smoothness", words.SMOOTHNESS_TEXT, routed, SMOOTHNESS_ROWS)
        yield by_model("Expert load", words.LOAD_TEXT, routed, LOAD_ROWS)


def by_model(title: str, text: str, studies: Sequence[Study], rows: dict[str, Cell]) -> Section:
    columns = ("", *(found.subject.name for found in studies))
    return Section(title, text, columns, [(name, *map(cell, studies)) for name, cell in rows.items()])


# ----- models -----


def epochs(found: Study) -> str:
    record = found.subject.training
    if record is None:
        return NONE
    done, planned = len(record.epochs), record.recipe.training.epochs
    return f"{done}" if done == planned else f"{done} of {planned}"


def recipe(found: Study, field: str, form: str = "") -> str:
    record = found.subject.training
    return format(getattr(record.recipe.training, field), form) if record else NONE


def subset(found: Study) -> str:
    record = found.subject.training
    if record is None:
        return NONE
    return f"{record.recipe.training.subset:,}" if record.recipe.training.subset else "all"


def images_per_second(found: Study) -> float | None:
    return found.subject.training.images_per_second if found.subject.training else None


def megabytes(size: float | None) -> str:
    return NONE if size is None else f"{size / 1e6:,.3f} MB"


MODEL_ROWS: dict[str, Cell] = {
    "feed-forward layers": lambda s: s.subject.kind,
    "layers": lambda s: str(s.subject.config.layers),
    "d_model": lambda s: str(s.subject.config.d_model),
    "d_ff": lambda s: str(s.subject.config.d_ff),
    "experts, top-k": lambda s: NONE if not s.experts else f"{s.subject.config.experts}, {s.subject.config.top_k}",
    "parameters": lambda s: f"{s.sizes.parameters:,}",
    "expert memory as deployed": lambda s: megabytes(s.sizes.experts),
    "expert memory as the paper counts": lambda s: megabytes(s.sizes.experts_as_counted),
    "whole packed file": lambda s: megabytes(s.sizes.file),
    "training images": subset,
    "epochs": epochs,
    "batch size": lambda s: recipe(s, "batch_size", ","),
    "smoothness weight": lambda s: recipe(s, "smoothness_weight", "g"),
    "seed": lambda s: recipe(s, "seed"),
    "training time": lambda s: f"{s.subject.training.seconds:,.0f} s" if s.subject.training else NONE,
    "training images a second": lambda s: number(images_per_second(s), ",.0f"),
}


# ----- accuracy -----


def accuracy_rows(studies: Sequence[Study]) -> dict[str, Cell]:
    first = studies[0]
    rows: dict[str, Cell] = {
        "in float": lambda s: f"{s.in_float.top1:.2%}",
        "as deployed": lambda s: f"{s.deployed.top1:.2%} ± {s.deployed.standard_error:.2%}",
        "deployed less float, points": lambda s: f"{100 * (s.deployed.top1 - s.in_float.top1):+.2f}",
        "top-5 in float": lambda s: number(s.in_float.top5, ".2%"),
        "top-5 as deployed": lambda s: number(s.deployed.top5, ".2%"),
        "deployed in": lambda s: s.deployed_by,
    }
    if len(studies) > 1:
        rows[f"deployed, points from {first.subject.name}"] = lambda s: (
            f"{100 * (s.deployed.top1 - first.deployed.top1):+.2f}"
        )
    return rows


def learning_curve(studies: Sequence[Study]) -> Section | None:
    """None if no checkpoint says."""
    curves = {s.subject.name: s.subject.training.epochs for s in studies if s.subject.training}
    longest = max((len(curve) for curve in curves.values()), default=0)
    if not longest:
        return None
    shown = np.unique(np.linspace(0, longest - 1, min(longest, MOST_EPOCHS)).round().astype(int))

    def cell(name: str, epoch: int) -> str:
        if epoch >= len(curves[name]):
            return ""
        result = curves[name][epoch]
        accuracy = "" if result.accuracy is None else f", {result.accuracy:.2%}"
        return f"{result.loss:.3f}{accuracy}"

    rows = [(str(epoch + 1), *(cell(name, epoch) for name in curves)) for epoch in shown.tolist()]
    text = "Mean training loss, and accuracy on the test images in the deployed arithmetic, after an epoch."
    return Section("Learning curve", text, ("epoch", *curves), rows)


# ----- experts -----


def over_layers(value: Callable[[LayerAnalysis], float | None], form: str = ".3f") -> Cell:
    return lambda s: number(s.experts.mean(value) if s.experts else None, form)


SIMILARITY_ROWS = {
    "outputs": over_layers(lambda layer: layer.mean_similarity),
    "up matrices": over_layers(lambda layer: layer.mean_matrix_similarity),
}
SUBSTRATE_ROWS = {
    "in the rotated basis": over_layers(lambda layer: layer.ternary_error.rotated if layer.ternary_error else None),
    "static": over_layers(lambda layer: layer.ternary_error.static if layer.ternary_error else None),
    "less by": over_layers(lambda layer: layer.ternary_error.saved if layer.ternary_error else None, ".1%"),
}
OUTLIER_ROWS = {
    "peak before the rotation": over_layers(lambda layer: layer.before.peak, ".2f"),
    "peak after it": over_layers(lambda layer: layer.after.peak if layer.after else None, ".2f"),
    "excess kurtosis before": over_layers(lambda layer: layer.before.kurtosis),
    "excess kurtosis after": over_layers(lambda layer: layer.after.kurtosis if layer.after else None),
    "int8 error before": over_layers(lambda layer: layer.int8_error_before, ".2e"),
    "int8 error after": over_layers(lambda layer: layer.int8_error_after, ".2e"),
}


def rounding_section(studies: Sequence[Study]) -> Section:
    text = words.ROUNDING_TEXT.format(chance=1 / studies[0].subject.config.classes)
    rows = [
        (
            f"{found.subject.name}, {r.name}",
            f"{r.error:.2e}",
            f"{r.accuracy.top1:.2%}",
            f"{100 * (r.accuracy.top1 - found.in_float.top1):+.2f}",
        )
        for found in studies
        for r in found.rounding
    ]
    columns = ("", "error of layer outputs", "accuracy", "points from float")
    return Section("Quantisation error of the feed-forward layers", text, columns, rows)


# ----- routing -----

SMOOTHNESS_ROWS: dict[str, Cell] = {
    "weight of the loss": lambda s: recipe(s, "smoothness_weight", "g"),
    "squared difference of neighbours": lambda s: number(s.mean_routing("smoothness")),
    "over that of any two patches": lambda s: number(s.mean_routing("relative_smoothness"), ".3f"),
    "neighbours with the same experts": lambda s: number(s.mean_routing("same_experts"), ".1%"),
    "any two patches with the same experts": lambda s: number(s.mean_routing("any_same_experts"), ".1%"),
}
LOAD_ROWS: dict[str, Cell] = {
    "N Σ f²": lambda s: number(s.mean_routing("load_balance"), ".3f"),
    "smallest share": lambda s: f"{min(min(layer.shares) for layer in s.routing):.1%}",
    "largest share": lambda s: f"{max(max(layer.shares) for layer in s.routing):.1%}",
    "an even share": lambda s: f"{1 / s.subject.config.experts:.1%}",
}


# ----- times and the paper -----


def time_section(times: Sequence[Times], text: str) -> Section:
    """Of one layer or model."""
    rows = [
        (
            f"{case.what}, {case.arithmetic}",
            *(f"{t.microseconds.median / 1000:,.2f} ms ({t.ratio.median:.2f})" for t in case.timed),
        )
        for case in times
    ]
    return Section(f"Time, {times[0].of}", text, ("", *(timed.name for timed in times[0].timed)), rows)


def paper_section(rows: Sequence[Beside]) -> Section:
    cells = []
    for row in rows:
        found = row.comparison
        ours = with_unit(found.here, found.unit)
        difference = with_unit(found.difference, found.unit.replace("%", "points"), "+")
        note = f"{found.paper}, {found.where}; {row.model}; {found.why}"
        cells.append((found.what, found.paper_says, ours, difference, note))
    columns = ("", "the paper", "ours", "difference", "note")
    return Section("Beside the papers", words.PAPER_TEXT, columns, cells, figures=False)


def with_unit(value: float | None, unit: str, sign: str = "") -> str:
    return NONE if value is None else f"{value:{sign}.2f} {unit}".rstrip()

"""Curves, drawn by matplotlib as inline SVG whose colours are the page's CSS variables."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bfedge.measure.plan import TileWorkspace
from bfedge.report.data import GrowthPoint

WIDTH, HEIGHT = 4.6, 3.2
"""Inches of 72 units: as wide as a phone, so that letters are of the page's size"""
STAND_INS = {f"#0101{number:02x}": f"var(--{name})" for number, name in enumerate(
    ["ink", "muted", "line", "card", *(f"c{index}" for index in range(10))]
)}  # fmt: skip
"""Colours that the drawings have no use for, and what they stand for on the page"""
COLOUR = {variable[6:-1]: stand_in for stand_in, variable in STAND_INS.items()}
LABEL_SPACE = 0.12
"""Share of a diagram's height that is left free above its curves"""
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆"}
MEGABYTE, KIBIBYTE = 1e6, 1024


@dataclass(frozen=True)
class Curve:
    name: str
    colour: str
    """A CSS variable without its dashes: c0"""
    marker: str
    values: tuple[float, ...]

    @property
    def symbol(self) -> str:
        return MARKERS[self.marker]


@dataclass(frozen=True)
class Plot:
    svg: Markup
    curves: tuple[Curve, ...]
    """For the legend and the table"""
    places: tuple[str, ...]
    """On the x axis, in words"""


def memory_plot(points: Sequence[GrowthPoint], here: int) -> Plot:
    """Megabytes against experts; `here` is the model's own number."""
    curves = growth_curves(points, lambda p, size: size / MEGABYTE)
    return expert_plot(
        "memory-plot", points, here, curves, "MB (1,000,000 bytes)", "Memory in megabytes against experts"
    )


def compression_plot(points: Sequence[GrowthPoint], here: int) -> Plot:
    """Standard experts in float32 over each."""
    curves = growth_curves(points, lambda p, size: p.standard_bytes / size)[1:]
    return expert_plot("compression-plot", points, here, curves, "times smaller", "Compression against experts")


def growth_curves(points: Sequence[GrowthPoint], value: Callable[[GrowthPoint, float], float]) -> tuple[Curve, ...]:
    return (
        Curve("standard MoE, FP32 experts", "c9", "s", tuple(value(p, p.standard_bytes) for p in points)),
        Curve("our whole file", "c0", "o", tuple(value(p, p.file_bytes) for p in points)),
        Curve("our experts in it", "c2", "^", tuple(value(p, p.packed_bytes) for p in points)),
        Curve("paper's formula, FP32 angles", "c1", "D", tuple(value(p, p.paper_fp32_bytes) for p in points)),
        Curve("paper's formula, FP16 angles", "c3", "D", tuple(value(p, p.paper_fp16_bytes) for p in points)),
    )


def expert_plot(
    name: str, points: Sequence[GrowthPoint], here: int, curves: tuple[Curve, ...], unit: str, says: str
) -> Plot:
    experts = [point.experts for point in points]

    def draw(axes: Any) -> None:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.axvline(here, color=COLOUR["muted"], linewidth=1, linestyle=(0, (2, 3)), zorder=1)
        draw_curves(axes, experts, curves)
        ticks = experts[:: -(-len(experts) // 9)]
        axes.set_xticks(ticks, [str(number) for number in ticks])
        axes.set_xlabel("experts a layer")
        low, high = axes.get_ylim()
        top = high * (high / low) ** LABEL_SPACE
        axes.set_ylim(low, top)
        axes.annotate(
            "this model",
            (here, top),
            (4 if here <= experts[len(experts) // 2] else -4, -4),
            textcoords="offset points",
            ha="left" if here <= experts[len(experts) // 2] else "right",
            va="top",
            color=COLOUR["muted"],
        )

    return Plot(draw_svg(name, says, unit, draw), curves, tuple(f"{number:,}" for number in experts))


def workspace_plot(tiles: Sequence[TileWorkspace], tokens: int) -> Plot:
    """KiB of workspace against the tokens that go through the experts together."""
    sizes = [tile.tile or tokens for tile in tiles]
    curves = (
        Curve("weights in place: microcontrollers", "c2", "o", tuple(t.in_place / KIBIBYTE for t in tiles)),
        Curve("weights rearranged: Linux boards", "c6", "s", tuple(t.rearranged / KIBIBYTE for t in tiles)),
    )

    def draw(axes: Any) -> None:
        axes.set_xscale("log", base=2)
        draw_curves(axes, sizes, curves)
        ticks = [size for size in sizes[:: -(-len(sizes) // 9)] if size < 0.7 * tokens] + [tokens]
        axes.set_xticks(ticks, [str(size) for size in ticks])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("tokens through the experts at a time")

    says = "Workspace in KiB against tokens through the experts at a time"
    return Plot(draw_svg("workspace-plot", says, "KiB", draw), curves, tuple(f"{size:,}" for size in sizes))


def draw_curves(axes: Any, places: Sequence[int], curves: Sequence[Curve]) -> None:
    for curve in curves:
        dashed = curve.marker == "D"
        axes.plot(
            places,
            curve.values,
            marker=curve.marker,
            color=COLOUR[curve.colour],
            linestyle=(0, (4, 2)) if dashed else "-",
            linewidth=1.2 if dashed else 1.8,
            markersize=4 if dashed else 5,
            markeredgewidth=0,
        )


def draw_svg(name: str, says: str, unit: str, draw: Callable[[Any], None]) -> Markup:
    """A figure of one diagram, with the unit of the y axis above it."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    style: Any = {
        "font.size": 11.5,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.color": COLOUR["ink"],
        "axes.labelcolor": COLOUR["ink"],
        "axes.edgecolor": COLOUR["muted"],
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": COLOUR["line"],
        "grid.linewidth": 1,
        "axes.axisbelow": True,
        "xtick.color": COLOUR["muted"],
        "ytick.color": COLOUR["muted"],
        "xtick.labelcolor": COLOUR["ink"],
        "ytick.labelcolor": COLOUR["ink"],
        "ytick.major.size": 0,
        "ytick.minor.size": 0,
        "xtick.minor.size": 0,
        "figure.facecolor": "none",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title(unit, loc="left", fontsize=11.5, color=COLOUR["muted"])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        low, high = axes.get_ylim()
        if axes.get_yscale() == "log" and high < 300 * low:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return inline(drawn.getvalue(), name, says)


def inline(svg: str, name: str, says: str) -> Markup:
    """matplotlib's file as an element of a page: without prologue, metadata, style and size of its own, with ids that
    no other drawing has, and with the page's colours.
    """
    box = re.search(r'viewBox="([\d. -]+)"', svg)
    assert box
    content = svg[svg.index(">", svg.index("<svg")) + 1 :]
    content = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", content, flags=re.S)
    content = re.sub(r"font-family: [^;]*; ", "", content)
    content = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", content)
    for stand_in, variable in STAND_INS.items():
        content = content.replace(stand_in, variable)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box[1]}" role="img" aria-label="{says}">'
    )
    return Markup(opening + content.strip())

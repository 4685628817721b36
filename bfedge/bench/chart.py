"""A chart of a benchmark, from what `bfedge bench --json` prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bfedge.errors import BfedgeError
from bfedge.files import write_atomically

SUFFIXES = (".svg", ".png")
OURS, OTHERS = "#1f6feb", "#9aa4b2"
LATENCY_UNIT = 1000
"""Microseconds in a millisecond"""


def demand_chart(path: Path) -> None:
    """Raises BfedgeError if no chart can be written there: before a benchmark, not after it."""
    if path.suffix.lower() not in SUFFIXES:
        raise BfedgeError(f"`{path}`: a chart ends in {' or '.join(SUFFIXES)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise BfedgeError("a chart needs matplotlib", '`pip install "bfedge[bench]"` installs it') from None


def write_chart(result: dict[str, Any], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    panels: list[Callable[[Any], None]] = []
    if "products" in result:
        panels.append(lambda axes: draw_products(axes, result["products"]))
    if "layers" in result:
        panels.append(lambda axes: draw_bars(axes, result["layers"], "one layer's experts, top-2, 65 tokens"))
    if "whole_model" in result:
        panels.append(lambda axes: draw_bars(axes, result["whole_model"], "whole CIFAR-100 model, batch 1"))
    if "curves" in result:
        curves = result["curves"]
        panels.append(lambda axes: draw_time_by_experts(axes, curves["time_by_experts"]))
        panels.append(lambda axes: draw_memory(axes, curves["memory_by_experts"]))
        panels.append(lambda axes: draw_time_by_tokens(axes, curves["time_by_tokens"]))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(
        {"font.size": 8, "svg.hashsalt": "bfedge", "svg.fonttype": "none", "axes.spines.top": False}
    ):
        figure = Figure(figsize=(7.5 * columns, 4.2 * rows), layout="constrained")
        for index, draw in enumerate(panels):
            draw(figure.add_subplot(rows, columns, index + 1))
        settings, machine = result["settings"], result["machine"]
        figure.suptitle(
            f"{machine['processor']}, {settings['threads']} thread{'s' * (settings['threads'] > 1)}, "
            f"kernels {settings['kernels']}\nmedians of {settings['rounds']} interleaved rounds",
            fontsize=9,
        )
        kind = path.suffix.lower()[1:]
        metadata = {"Date": None} if kind == "svg" else {}
        write_atomically(path, lambda name: figure.savefig(name, format=kind, metadata=metadata, dpi=150))


def fastest(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each family the variant that counts."""
    return [timed for timed in case["timed"] if timed["fastest_of_family"]]


def draw_products(axes: Any, cases: list[dict[str, Any]]) -> None:
    families = list(dict.fromkeys(timed["family"] for case in cases for timed in fastest(case)))[1:]
    markers = "os^vDPX*<>"
    for index, family in enumerate(families):
        points = [
            (place, timed["ratio"]["median"])
            for place, case in enumerate(cases)
            for timed in fastest(case)
            if timed["family"] == family
        ]
        axes.plot(*zip(*points, strict=True), markers[index % len(markers)], label=family, markersize=5)
    axes.axhline(1, color=OURS, linewidth=1)
    axes.set_yscale("log")
    parameters = [case["parameters"] for case in cases]
    labels = [f"{p['rows']}x{p['columns']}, {p['count']}" for p in parameters]
    axes.set_xticks(range(len(cases)), labels, rotation=60, ha="right")
    axes.set_ylim(top=axes.get_ylim()[1] * 8)  # room for the legend
    axes.set_title("one product: time over ours, ternary")
    axes.legend(frameon=False, fontsize=7, loc="upper center", ncols=2)


def draw_bars(axes: Any, cases: list[dict[str, Any]], title: str) -> None:
    names: list[str] = list(dict.fromkeys(timed["family"] for case in cases for timed in fastest(case)))
    height = 0.8 / len(cases)
    for index, case in enumerate(cases):
        times = {timed["family"]: timed["microseconds"] for timed in fastest(case)}
        places = [place + index * height for place, name in enumerate(names) if name in times]
        found = [times[name] for name in names if name in times]
        medians = [time["median"] / LATENCY_UNIT for time in found]
        spread = [
            [(time["median"] - time["first_quartile"]) / LATENCY_UNIT for time in found],
            [(time["third_quartile"] - time["median"]) / LATENCY_UNIT for time in found],
        ]
        label = f"{case['parameters']['experts']} experts"
        axes.barh(places, medians, height, xerr=spread, label=label, color=f"C{index}", ecolor="black")
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.set_title(title)
    axes.legend(frameon=False)


def draw_time_by_experts(axes: Any, cases: list[dict[str, Any]]) -> None:
    for case in cases:
        ratios = [timed["ratio"] for timed in case["timed"]]
        experts, medians = case["parameters"]["experts"], [ratio["median"] for ratio in ratios]
        axes.plot(experts, medians, "o-", label=case["name"])
        axes.fill_between(
            experts, [r["first_quartile"] for r in ratios], [r["third_quartile"] for r in ratios], alpha=0.2
        )
    experts = cases[0]["parameters"]["experts"]
    axes.axhline(1.15, color=OTHERS, linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(experts, [str(number) for number in experts])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("experts")
    axes.set_title(f"time over that of {experts[0]} experts, top-{cases[0]['parameters']['top_k']} (dashed: 15 % more)")
    axes.legend(frameon=False)


def draw_memory(axes: Any, points: list[dict[str, Any]]) -> None:
    experts = [point["experts"] for point in points]
    for name, label, style in (
        ("standard_float32_bytes", "standard MoE, float32 experts", "s-"),
        ("file_bytes", "whole packed file", "o-"),
        ("experts_bytes", "its experts: substrate and angles", "^-"),
        ("paper_formula_bytes", "paper's formula, 1.58 bits", ":"),
    ):
        axes.plot(experts, [point[name] / 1e6 for point in points], style, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(experts, [str(number) for number in experts])
    axes.set_xlabel("experts")
    axes.set_ylabel("megabytes")
    axes.set_title("memory")
    axes.legend(frameon=False)


def draw_time_by_tokens(axes: Any, points: list[dict[str, Any]]) -> None:
    tokens = [point["tokens"] for point in points]
    for name, label in (("other_microseconds", "all but attention"), ("attention_microseconds", "attention")):
        axes.plot(tokens, [point[name]["median"] / LATENCY_UNIT for point in points], "o-", label=label)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens")
    axes.set_ylabel("milliseconds")
    axes.set_title("whole model, 64 experts")
    axes.legend(frameon=False)

"""What the page shows of the model itself: its parts, memory against experts, and what its experts do."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from bfedge.measure.plan import PaperMemory
from bfedge.report.data import Experts, Fact, Report, TestImage
from bfedge.report.pictures import (
    MOST_COLUMNS,
    MOST_LAYERS,
    MOST_PIXELS,
    averaged,
    image_picture,
    layer_picture,
    shown_layers,
    signed_picture,
)
from bfedge.report.plots import Plot, compression_plot, memory_plot, workspace_plot
from bfedge.report.words import TIMES, amount, cosine, count, digits, percent, times

PARTS = {
    "expert substrate": "c2",
    "expert angles": "c3",
    "down projection": "c1",
    "router": "c6",
    "attention": "c0",
    "patch embedding and positions": "c4",
    "head": "c5",
    "queries, keys and values": "c0",
    "attention scores": "c0",
    "attention mixing": "c0",
    "attention projection": "c0",
    "rotations": "c3",
    "substrate": "c2",
    "weighted sum of experts": "c2",
    "patch embedding": "c4",
}
OTHER = "c9"
BROAD = 2.5
"""Times as wide as high: a picture that takes the whole width"""
BROADEST, TALLEST = 5, 1.5
"""Times as wide as high, and as high as wide: in pictures of even longer images patches are stretched"""
CELL = 20
"""Units of a patch's shorter side"""
MOST_BUSY = 16
"""Experts of a layer whose shares are listed"""
PAPER_SIMILARITY = "The paper quotes 0.29 for ButterflyViT and 0.10 for a standard MoE (ButterflyViT, section 4.3)."


def model_context(report: Report) -> dict[str, Any]:
    shape, plan = report.shape, report.plan
    height, width, channels = shape.image_shape
    facts = [
        Fact("image", f"{height} {TIMES} {width} pixels, {count(channels)} channel{'s' * (channels > 1)}"),
        Fact("patch", f"{shape.patch_size} {TIMES} {shape.patch_size} pixels"),
        Fact("tokens", count(shape.tokens) + (" with the class token" if shape.pooling == "class" else "")),
        Fact("classes", count(shape.classes)),
        Fact("layers", count(shape.layers)),
        Fact("d_model, d_ff", f"{count(shape.d_model)}, {count(shape.d_ff)}"),
        Fact("attention heads", count(shape.heads)),
        Fact("experts a layer", f"{count(shape.experts)}, top-{shape.top_k}"),
        Fact("rotation layers", f"{shape.theta_layers} before, {shape.phi_layers} after the substrate"),
        Fact("stored as", report.storage),
    ]
    work = sum(plan.multiply_adds.values())
    return {
        "configuration": facts,
        "expert_memory": expert_memory(plan.paper),
        "file_rows": part_rows(plan.parts, plan.file_bytes, lambda size: f"{count(size)} B"),
        "work_rows": part_rows(plan.multiply_adds, work, amount),
        "work_total": work,
    }


def expert_memory(paper: PaperMemory) -> list[tuple[str, str, str]]:
    rows = (
        ("standard MoE, FP32", paper.standard_experts),
        ("paper's formula, FP32 angles", paper.butterfly_fp32_angles),
        ("paper's formula, FP16 angles", paper.butterfly_fp16_angles),
        ("this file", paper.packed_experts),
    )
    return [(name, count(size), times(paper.standard_experts / size)) for name, size in rows]


def part_rows(parts: dict[str, int], whole: int, in_words: Any) -> list[dict[str, Any]]:
    """The largest first."""
    most = max(parts.values())
    return [
        {
            "name": name,
            "value": in_words(value),
            "note": percent(value / whole),
            "pieces": [{"percent": 100 * value / most, "colour": PARTS.get(name, OTHER)}],
        }
        for name, value in sorted(parts.items(), key=lambda item: -item[1])
    ]


def memory_context(report: Report) -> dict[str, Any]:
    here = report.shape.experts
    return {
        "plots": [
            plot_view(
                "memory",
                "Memory against experts",
                memory_plot(report.growth, here),
                "All layers, everything but the number of experts as in this model. The formula is that of "
                "ButterflyViT's Table 2: 1.58 bits a trit, no padding.",
                "experts",
            ),
            plot_view(
                "compression",
                "Compression against experts",
                compression_plot(report.growth, here),
                "Memory of standard experts in FP32 over ours. The whole file also has attention, down projection, "
                "embedding and head, which the standard experts' memory leaves out.",
                "experts",
            ),
            plot_view(
                "workspace",
                "Workspace against tile",
                workspace_plot(report.plan.tiles, report.shape.tokens),
                "What the runtime asks for, exact; fewer tokens at a time need less and take longer.",
                "tokens",
            ),
        ]
    }


def plot_view(identity: str, title: str, drawn: Plot, caption: str, place: str) -> dict[str, Any]:
    return {
        "id": identity,
        "title": title,
        "drawn": drawn,
        "caption": caption,
        "head": [place, *(curve.name for curve in drawn.curves)],
        "rows": [
            (name, *(digits(curve.values[index]) for curve in drawn.curves)) for index, name in enumerate(drawn.places)
        ],
    }


def experts_context(report: Report) -> dict[str, Any]:
    experts = report.experts
    return {
        "many_layers": report.shape.layers > 2,
        "image": image_view(report.image, report.shape.experts) if report.image else None,
        "shares": shares_view(experts) if experts.is_data else None,
        "similarity": similarity_view(experts),
    }


def image_view(image: TestImage, experts: int) -> dict[str, Any]:
    routing = image.routing
    shown = shown_layers(len(routing.selected))
    pictures = [layer_picture(routing, layer, experts) for layer in shown]
    weights = [picture.first_weight for picture in pictures]
    answer = Markup("The model says <bdi>{}</bdi>").format(image.answer)
    if image.true_class is not None:
        answer += Markup("; it is <bdi>{}</bdi>").format(image.true_class)
    low, high = digits(min(weights)), digits(max(weights))
    says = (
        f". {'Colour and number say' if pictures[0].numbers else 'The colour says'} which expert has the "
        "largest weight in a patch; that weight is "
        f"{low if low == high else f'{low} to {high}'} in a layer's mean. Below: the "
        "patches of each expert."
    )
    if routing.class_token:
        says += " The class token is not drawn."
    channels = image.pixels.shape[-1]
    if channels not in (1, 3):
        says += f" Of the image's {channels} channels the first is shown."
    width, height = cell(routing.rows, routing.columns)
    if width != height:
        says += f" Patches are drawn {'wider' if width > height else 'higher'} than they are."
    return {
        "what": image.what,
        "says": answer + says + left_out(shown, len(routing.selected)),
        "picture": image_picture(image.pixels),
        "rows": routing.rows,
        "columns": routing.columns,
        "cell_width": round(width, 3),
        "cell_height": round(height, 3),
        "broad": width * routing.columns > BROAD * height * routing.rows,
        "font": round(CELL * min(0.5, 0.075 * routing.columns), 3),
        "layers": pictures,
    }


def cell(rows: int, columns: int) -> tuple[float, float]:
    """Width and height of a patch as it is drawn, so that no picture is far higher or wider than others."""
    return CELL * max(1.0, rows / (TALLEST * columns)), CELL * max(1.0, columns / (BROADEST * rows))


def left_out(shown: list[int], layers: int) -> str:
    return f" {len(shown)} of {layers} layers are shown." if layers > MOST_LAYERS else ""


def together(number: int, most: int, place: str) -> str:
    if number <= most:
        return ""
    fewest, rest = divmod(number, most)
    return f" A {place} is the mean of {f'{fewest} or {fewest + 1}' if rest else fewest} experts."


def shares_view(experts: Experts) -> dict[str, Any]:
    layers = experts.analysis.layers
    shown = shown_layers(len(layers))
    number = len(layers[0].shares)
    bars = {index: averaged(layers[index].shares, MOST_COLUMNS) for index in shown}
    most = max(float(shares.max()) for shares in bars.values())
    listed = min(number, MOST_BUSY)
    return {
        "says": f"Share of all (token, expert) pairs, by expert from 0 to {number - 1}; the line is an even share, "
        f"{percent(1 / number)}. From {experts.seen}.{together(number, MOST_COLUMNS, 'column')}"
        + left_out(shown, len(layers)),
        "even": 100 / number / most,
        "layers": [
            {
                "layer": index,
                "bars": [100 * share / most for share in bars[index].tolist()],
                "largest": percent(float(layers[index].shares.max())),
                "note": f"{np.count_nonzero(layers[index].shares)} of {number} used, the most "
                f"{percent(float(layers[index].shares.max()))}; load balance {digits(layers[index].load_balance)}",
            }
            for index in shown
        ],
        "head": ["layer", "load balance", "entropy, bits", *(f"most used, {rank + 1}" for rank in range(listed))],
        "numbers": [
            (
                str(index),
                digits(layer.load_balance),
                digits(layer.entropy),
                *(f"{e}: {percent(float(layer.shares[e]))}" for e in np.argsort(-layer.shares, kind="stable")[:listed]),
            )
            for index, layer in enumerate(layers)
        ],
    }


def similarity_view(experts: Experts) -> dict[str, Any]:
    layers = experts.analysis.layers
    shown = shown_layers(len(layers))
    number = len(layers[0].similarity)
    mean = experts.analysis.mean(lambda layer: layer.mean_similarity)
    side = min(number, MOST_PIXELS)
    says = (
        f"Cosine of two experts' outputs for the same token, the mean over {count(experts.analysis.tokens)} tokens of "
        f"{experts.seen}; experts 0 to {number - 1} from the top left. Off the diagonal {cosine(mean)} in "
        f"the mean. {PAPER_SIMILARITY}{together(number, MOST_PIXELS, 'cell')}"
    )
    return {
        "says": says + left_out(shown, len(layers)),
        "experts": number,
        "layers": [
            {
                "layer": index,
                "mean": cosine(layers[index].mean_similarity),
                "picture": signed_picture(layers[index].similarity),
                "side": side,
            }
            for index in shown
        ],
        "head": ["layer", "outputs, mean", "least", "largest", "up matrices, mean"],
        "numbers": [
            (
                str(index),
                cosine(layer.mean_similarity),
                *map(cosine, extremes(layer.similarity)),
                cosine(layer.mean_matrix_similarity),
            )
            for index, layer in enumerate(layers)
        ],
    }


def extremes(matrix: np.ndarray) -> tuple[float | None, float | None]:
    """Of the values off the diagonal."""
    values = matrix[~np.eye(len(matrix), dtype=bool)]
    return (float(values.min()), float(values.max())) if len(values) else (None, None)

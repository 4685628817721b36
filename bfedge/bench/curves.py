"""How time and memory grow: with the number of experts, and with the number of tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from bfedge.bench.layers import experts_used
from bfedge.bench.library import BenchModel
from bfedge.bench.peers import Bench, Case
from bfedge.bench.random_models import cifar_shape, random_image, random_model, random_tokens
from bfedge.bench.timing import SEED, WARM_UP_CALLS, Competitor, no_collection, spread
from bfedge.config import padded_width
from bfedge.lowered.model import Shape
from bfedge.measure.plan import plan
from bfedge.packed.outline import outline_of
from bfedge.packed.writer import pack

EXPERTS = (8, 16, 32, 64, 128, 256)
SIDES = (16, 24, 32, 40, 48, 64)
"""Of images: 17 to 257 tokens"""
ATTENTION = 1
"""bfe_stage"""


def time_by_experts(bench: Bench, shapes: Sequence[Shape] | None = None) -> list[Case]:
    """One experts' stage, and the whole model; the ratios are to the fewest experts."""
    shapes = shapes or [cifar_shape(experts) for experts in EXPERTS]
    stages, models, used = [], [], []
    bench.on_case("time against experts")
    for shape in shapes:
        model, z = random_model(shape), random_tokens(shape)
        opened = BenchModel(bench.library, pack(model), bench.kernels, random_image(shape))
        stages.append(Competitor(f"{shape.experts} experts", bench.library.experts(opened, 0, z).call, "ours"))
        models.append(Competitor(f"{shape.experts} experts", opened.run, "ours"))
        used.append(experts_used(model, z))
    parameters = {"experts": [shape.experts for shape in shapes], "top_k": shapes[0].top_k, "tokens": shapes[0].tokens}
    return [
        bench.time("one layer's experts", {**parameters, "experts_used": used}, stages),
        bench.time("whole model", {**parameters, "layers": shapes[0].layers}, models),
    ]


def memory_by_experts(bench: Bench, shapes: Sequence[Shape] | None = None) -> list[dict[str, Any]]:
    """Bytes of the packed file beside the formula for its experts: substrate at 2 bits and binary16 angles."""
    bench.on_case("memory against experts")
    points = []
    for shape in shapes or [cifar_shape(experts) for experts in EXPERTS]:
        packed = pack(random_model(shape))
        found = plan(outline_of(packed))
        angles = (shape.theta_layers * padded_width(shape.d_model) + shape.phi_layers * padded_width(shape.d_ff)) // 2
        opened = BenchModel(bench.library, packed, bench.kernels, random_image(shape))
        points.append(
            {
                "experts": shape.experts,
                "file_bytes": found.file_bytes,
                "experts_bytes": found.paper.packed_experts,
                "formula_bytes": shape.layers * (shape.d_ff * shape.d_model // 4 + 4 + shape.experts * angles * 2),
                "paper_formula_bytes": round(found.paper.butterfly_fp16_angles),
                "standard_float32_bytes": round(found.paper.standard_experts),
                "prepared_bytes": opened.host.prepared_bytes,
                "workspace_bytes": opened.workspace.nbytes,
            }
        )
    return points


def time_by_tokens(bench: Bench, shapes: Sequence[Shape] | None = None) -> list[dict[str, Any]]:
    """Of the whole model, attention apart: microseconds of each, taken at the ends of its stages."""
    bench.on_case("time against tokens")
    shapes = shapes or [cifar_shape(64, side=side) for side in SIDES]
    opened = [BenchModel(bench.library, pack(random_model(s)), bench.kernels, random_image(s)) for s in shapes]
    splits = [StageTimes(bench, model) for model in opened]
    order = random.Random(SEED)
    times = np.empty((len(splits), bench.rounds, 2))
    with no_collection():
        for split in splits:
            for _ in range(WARM_UP_CALLS):
                split.run()
        for turn in range(bench.rounds):
            for index in order.sample(range(len(splits)), len(splits)):
                times[index, turn] = splits[index].run()
    points = []
    for shape, (attention, others) in zip(shapes, times.transpose(0, 2, 1), strict=True):
        outside = spread(others)
        points.append(
            {
                "tokens": shape.tokens,
                "attention_microseconds": spread(attention),
                "other_microseconds": outside,
                "other_microseconds_a_token": outside.median / shape.tokens,
            }
        )
    return points


class StageTimes:
    """Runs a model, and divides the time into attention's and the rest."""

    def __init__(self, bench: Bench, model: BenchModel) -> None:
        self.model = model
        self.now_ns = bench.clock.now_ns
        self.attention = self.last = 0
        model.trace(self.stage_ended)

    def stage_ended(self, stage: int) -> None:
        now = self.now_ns()
        if stage == ATTENTION:
            self.attention += now - self.last
        self.last = now

    def run(self) -> tuple[float, float]:
        """Microseconds in attention, and outside it."""
        self.attention = 0
        start = self.last = self.now_ns()
        self.model.run()
        return self.attention / 1000, (self.last - start - self.attention) / 1000

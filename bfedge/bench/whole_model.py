"""The paper's CIFAR-100 model, one image at a time: ours beside its ONNX, torch, and a dense ViT of the same shape."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bfedge.bench.library import BenchModel
from bfedge.bench.peers import Absent, Bench, Case, demand_alike, demand_correct
from bfedge.bench.random_models import cifar_shape, random_image, random_model
from bfedge.bench.timing import Competitor, clock_for
from bfedge.config import config_from_dict
from bfedge.lowered import reference
from bfedge.lowered.model import LoweredViT, Shape
from bfedge.packed.writer import pack

EXPERTS = (8, 64)
DENSE_ERROR = 1e-3
"""Between two float32 runtimes, in logits around 1"""

Floats = NDArray[np.float32]


def bench_model(bench: Bench, threads: int, shapes: Sequence[Shape] | None = None) -> list[Case]:
    bench.absent["TFLite export"] = Absent("TFLite export", "bfedge does not write TFLite files yet", None)
    cases = []
    for shape in shapes or [cifar_shape(experts) for experts in EXPERTS]:
        name = f"{shape.layers} layers, {shape.experts} experts, {shape.tokens} tokens"
        bench.on_case(name)
        model, image = random_model(shape), random_image(shape)
        expected = reference.run(model, image[None])[0]
        competitors = [ours(bench, model, image, expected, threads)]
        if "onnxruntime" in bench.installed:
            competitors += onnxruntime_peers(model, image, expected, threads)
        if "torch" in bench.installed:
            competitors += torch_peers(bench, model, image, expected)
        cases.append(bench.time(name, {**parameters(shape), "threads": threads}, competitors))
    return cases


def bench_threads(bench: Bench, shape: Shape | None = None) -> Case:
    """Ours alone, by the time that passes, with more and more threads."""
    shape = shape or cifar_shape(EXPERTS[-1])
    name = f"threads, {shape.experts} experts"
    bench.on_case(name)
    model, image = random_model(shape), random_image(shape)
    expected = reference.run(model, image[None])[0]
    counts = [count for count in (1, 2, 4, 8) if count <= max(2, os.cpu_count() or 1)]
    competitors = [ours(bench, model, image, expected, count) for count in counts]
    return dataclasses.replace(bench, clock=clock_for(2)).time(name, parameters(shape), competitors)


def parameters(shape: Shape) -> dict[str, Any]:
    names = ("layers", "experts", "top_k", "tokens", "d_model", "d_ff", "classes")
    return {name: getattr(shape, name) for name in names}


def ours(bench: Bench, model: LoweredViT, image: NDArray[np.uint8], expected: Floats, threads: int) -> Competitor:
    opened = BenchModel(bench.library, pack(model), bench.kernels, image, threads)
    opened.run()
    name = f"ours, {threads} thread{'s' * (threads > 1)}"
    return Competitor(name, opened.run, "ours", demand_correct(name, opened.logits, expected, 0))


def onnxruntime_peers(
    model: LoweredViT, image: NDArray[np.uint8], expected: Floats, threads: int
) -> Iterator[Competitor]:
    from bfedge.bench import peer_onnx
    from bfedge.bench.peer_dense_vit import dense_vit, with_int8_weights
    from bfedge.export.onnx_graph import to_onnx

    side = "onnxruntime"
    bound = peer_onnx.bind(to_onnx(model), {"image": image[None]}, threads)
    bound.call()
    name = f"{side}, our exported ONNX"
    yield Competitor(name, bound.call, side, demand_correct(name, bound.result()[0], expected, 0))

    family = f"{side}, dense ViT, float32"
    written_out, one_node = (dense_vit(model, one_node_attention) for one_node_attention in (False, True))
    first = None
    for variant, graph in (("attention written out", written_out), ("attention as one operator", one_node)):
        bound = peer_onnx.bind(graph, {"image": image}, threads)
        bound.call()
        name = f"{family}, {variant}"
        first = bound.result().copy() if first is None else first
        yield Competitor(name, bound.call, side, demand_correct(name, bound.result(), first, DENSE_ERROR), family)
    bound = peer_onnx.bind(with_int8_weights(written_out), {"image": image}, threads)
    bound.call()
    name = f"{side}, dense ViT, dynamic int8"
    assert first is not None
    yield Competitor(name, bound.call, side, demand_alike(name, bound.result(), first))


def torch_peers(bench: Bench, model: LoweredViT, image: NDArray[np.uint8], expected: Floats) -> Iterator[Competitor]:
    """Eager and compiled, a float32 form of our model that leaves nothing to prepare, and one of a dense ViT. The model
    that is trained, in its exact form, takes part in eager alone: it is several times slower, compiled no less so.
    """
    import torch

    from bfedge.bench.peer_torch import FloatVit, compiled

    with torch.inference_mode(False), torch.no_grad():
        exact, exact_check = exact_model(model.shape, image)
        x = torch.from_numpy(image)
    ours, dense = "torch {}, our model", "torch {}, dense ViT"

    def competitor(title: str, form: str, call: Callable[[], Any], check: Callable[[str, Floats], str]) -> Competitor:
        family = title.format(form.split()[0])
        name = f"{title.format(form)}, float32"
        return Competitor(name, call, "torch", check(name, call().numpy()), family)

    def is_alike(name: str, result: Floats) -> str:
        return demand_alike(name, result, expected)

    def is_finite(name: str, result: Floats) -> str:
        """A dense ViT is another function, and has no reference here."""
        demand_correct(name, np.isfinite(result).astype(np.int8), np.ones_like(result, np.int8), 0)
        return "finite"

    family = ours.format("eager")
    yield Competitor(f"{family}, exact", functools.partial(exact, x[None]), "torch", exact_check, family)
    for title, check, eager, fused in (
        (ours, is_alike, FloatVit(model, "eager"), FloatVit(model, "fused")),
        (dense, is_finite, FloatVit(model, "dense"), FloatVit(model, "dense")),
    ):
        yield competitor(title, "eager", functools.partial(eager.eval(), x), check)
        try:
            call = compiled(fused.eval(), x)
        except Exception as problem:  # torch raises many kinds, most of them for the lack of a C++ compiler
            bench.leave_out(title.format("compiled"), f"torch.compile fails: {type(problem).__name__}")
            continue
        yield competitor(title, "compiled", call, check)


def exact_model(shape: Shape, image: NDArray[np.uint8]) -> tuple[Any, str]:
    """The model that is trained, in `eval()`, with this shape, and what its comparison with the reference says."""
    import torch

    from bfedge.lowered.lower import lower
    from bfedge.model.vit import ViT

    names = ("image_height", "image_width", "channels", "patch_size", "classes", "d_model", "d_ff", "layers")
    values = {name: getattr(shape, name) for name in (*names, "heads", "experts", "top_k", "pooling")}
    torch.manual_seed(1)
    module = ViT(config_from_dict({**values, "rotation_layers": shape.theta_layers})).eval()
    expected = reference.run(lower(module), image[None])
    name = "torch, our model in eval()"
    return module, demand_correct(name, module(torch.from_numpy(image[None])).numpy(), expected, 0)

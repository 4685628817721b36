"""One product of a matrix and some columns: ours beside the operators that others would use for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bfedge.bench.peers import Bench, Case, demand_correct
from bfedge.bench.random_models import random_int8, random_ternary
from bfedge.bench.timing import Competitor
from bfedge.errors import BfedgeError
from bfedge.lowered.arithmetic import multiply
from bfedge.lowered.model import Int8Matrix, TernaryMatrix

SHAPES = ((1024, 256), (2048, 512), (4096, 1024))
COUNTS = (1, 8, 64, 130)
FLOAT_ERROR = 1e-5
"""Of float32 sums, relative to the largest"""
INT8_ERROR = 0.02
"""Of activations that a peer rounds to int8 itself, relative to the largest sum"""


def bench_products(
    bench: Bench, shapes: Sequence[tuple[int, int]] | None = None, counts: Sequence[int] | None = None
) -> list[Case]:
    """All on one thread, all with the same trits and the same activations."""
    cases = []
    for rows, columns in shapes or SHAPES:
        r = np.random.default_rng(rows + columns)
        ternary, int8 = random_ternary(r, rows, columns), random_int8(r, rows, columns)
        for count in counts or COUNTS:
            name = f"{rows}x{columns}, {count} column{'s' * (count > 1)}"
            bench.on_case(name)
            q = r.integers(-127, 128, (count, columns)).astype(np.int8)
            competitors = [*ours(bench, ternary, int8, q), *peers(bench, ternary.trits, q)]
            cases.append(bench.time(name, {"rows": rows, "columns": columns, "count": count}, competitors))
    return cases


def ours(bench: Bench, ternary: TernaryMatrix, int8: Int8Matrix, q: NDArray[np.int8]) -> Iterator[Competitor]:
    scales = np.random.default_rng(0).uniform(0.5, 2, len(q)).astype(np.float32)
    for name, matrix in (("ours, ternary", ternary), ("ours, int8", int8)):
        prepared = bench.library.product(bench.kernels, matrix, q, scales)
        prepared.call()
        check = demand_correct(name, prepared.result(), multiply(matrix, q, scales), 0)
        yield Competitor(name, prepared.call, "ours", check)


def peers(bench: Bench, trits: NDArray[np.int8], q: NDArray[np.int8]) -> Iterator[Competitor]:
    sums = q.astype(np.int32) @ trits.T.astype(np.int32)
    if "onnxruntime" in bench.installed:
        yield from onnxruntime_peers(bench, trits, q, sums)
    if "torch" in bench.installed:
        yield torch_peer(trits, q, sums)
    if "llama.cpp" in bench.installed:
        yield from llama_peers(bench, trits, q, sums)
    if "LiteRT" in bench.installed:
        try:
            yield litert_peer(trits, q, sums)
        except (RuntimeError, ValueError) as problem:  # what it raises when it refuses a graph
            bench.leave_out("LiteRT", str(problem).splitlines()[0])


def onnxruntime_peers(
    bench: Bench, trits: NDArray[np.int8], q: NDArray[np.int8], sums: NDArray[np.int32]
) -> Iterator[Competitor]:
    from bfedge.bench import peer_onnx

    side, x = "onnxruntime", q.astype(np.float32)
    largest = float(np.abs(sums).max())
    families: dict[str, tuple[float, Iterator[tuple[str, Callable[[], Any]]]]] = {
        "MatMulInteger": (0, peer_onnx.matmul_integer(trits, q, 1)),
        "MatMulNBits, 4 bits": (INT8_ERROR * largest, peer_onnx.matmul_nbits(trits, x, 4, 1)),
        "MatMulNBits, 2 bits": (INT8_ERROR * largest, peer_onnx.matmul_nbits(trits, x, 2, 1)),
    }
    for kind, (allowed, variants) in families.items():
        family, problem, found = f"{side} {kind}", None, False
        for variant, bind in variants:
            try:
                bound = bind()
            except BfedgeError as refusal:
                problem = refusal
                continue
            bound.call()
            name, found = f"{family}, {variant}", True
            yield Competitor(name, bound.call, side, demand_correct(name, bound.result(), sums, allowed), family)
        if problem and not found:
            bench.leave_out(family, problem.message)
    bound = peer_onnx.matmul_float(trits.astype(np.float32), x, 1)
    bound.call()
    name = f"{side} MatMul, float32"
    yield Competitor(name, bound.call, side, demand_correct(name, bound.result(), sums, FLOAT_ERROR * largest))


def torch_peer(trits: NDArray[np.int8], q: NDArray[np.int8], sums: NDArray[np.int32]) -> Competitor:
    import torch
    import torch.nn.functional as F

    weight, x = torch.from_numpy(trits.astype(np.float32)), torch.from_numpy(q.astype(np.float32))
    name = "torch linear, float32"
    check = demand_correct(name, F.linear(x, weight).numpy(), sums, FLOAT_ERROR * float(np.abs(sums).max()))
    return Competitor(name, lambda: F.linear(x, weight), "torch", check)


def llama_peers(
    bench: Bench, trits: NDArray[np.int8], q: NDArray[np.int8], sums: NDArray[np.int32]
) -> Iterator[Competitor]:
    from bfedge.bench import peer_ggml

    if trits.shape[1] % peer_ggml.BLOCK:
        return
    for kind in peer_ggml.TERNARY:
        name = f"llama.cpp {kind}, ternary"
        try:
            product = peer_ggml.multiply(trits, q.astype(np.float32), kind, 1)
        except BfedgeError as problem:
            bench.leave_out("llama.cpp", problem.message)
            return
        product.call()
        check = demand_correct(name, product.result(), sums, INT8_ERROR * float(np.abs(sums).max()))
        yield Competitor(name, product.call, "llama.cpp", check)


def litert_peer(trits: NDArray[np.int8], q: NDArray[np.int8], sums: NDArray[np.int32]) -> Competitor:
    from bfedge.bench import peer_litert

    scale = float(np.float32(max(1.0, np.abs(sums).max() / 127)))
    invoked = peer_litert.fully_connected(trits, q, scale, 1)
    name = "LiteRT fully connected, int8"
    check = demand_correct(name, invoked.result(), sums / scale, 1)
    return Competitor(name, invoked.call, "LiteRT", check)


def empty_calls(bench: Bench) -> Case:
    """What calling each side costs when there is next to nothing to compute."""
    bench.on_case("empty calls")
    competitors = [Competitor("ours", bench.library.nothing(), "ours")]
    if "onnxruntime" in bench.installed:
        from bfedge.bench import peer_onnx

        competitors.append(Competitor("onnxruntime", peer_onnx.nothing(1).call, "onnxruntime"))
    if "torch" in bench.installed:
        import torch
        import torch.nn.functional as F

        one = torch.ones(1, 1)
        competitors.append(Competitor("torch", lambda: F.linear(one, one), "torch"))
    if "LiteRT" in bench.installed:
        from bfedge.bench import peer_litert

        competitors.append(Competitor("LiteRT", peer_litert.nothing(1).call, "LiteRT"))
    return bench.time("an empty call", {}, competitors)

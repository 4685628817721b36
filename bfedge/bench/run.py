"""Benchmarks this machine: our kernels beside other runtimes, in one run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bfedge.bench.curves import memory_by_experts, time_by_experts, time_by_tokens
from bfedge.bench.layers import bench_layers
from bfedge.bench.library import bench_library
from bfedge.bench.machine import load, machine, versions
from bfedge.bench.peers import Bench
from bfedge.bench.products import bench_products, empty_calls
from bfedge.bench.timing import SEED, clock_for
from bfedge.bench.whole_model import bench_model, bench_threads
from bfedge.errors import BfedgeError

PARTS = ("products", "layers", "model", "curves")


def bench_machine(
    parts: Sequence[str] = PARTS,
    rounds: int = 31,
    threads: int = 1,
    kernels: str | None = None,
    cc: str | None = None,
    on_case: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """All that `bfedge bench --json` prints, as plain values. `on_case` is told what is measured next.

    Raises BfedgeError if a result is wrong, there is no C compiler, or this processor lacks the kernels.
    """
    if threads > (os.cpu_count() or threads):
        raise BfedgeError(f"{threads} threads are more than this machine's {os.cpu_count()} processors")
    on_case("building our kernels")
    library = bench_library(cc)
    chosen = library.choose(kernels)
    one_thread = Bench(library, chosen, rounds, clock_for(1), on_case=on_case)
    whole = Bench(library, chosen, rounds, clock_for(threads), one_thread.absent, on_case)
    result: dict[str, Any] = {
        "settings": {
            "parts": [part for part in PARTS if part in parts],
            "rounds": rounds,
            "threads": threads,
            "kernels": chosen,
            "kernels_of_this_processor": library.kernels(),
            "clock": one_thread.clock.name,
            "clock_of_the_model": whole.clock.name,
            "seed": SEED,
        },
        "machine": machine(),
        "versions": versions(library.compiler.version),
    }
    with torch_ready(one_thread, 1):
        result["empty_calls"] = empty_calls(one_thread)
        if "products" in parts:
            result["products"] = bench_products(one_thread)
        if "layers" in parts:
            result["layers"] = bench_layers(one_thread)
    if "model" in parts:
        with torch_ready(whole, threads):
            result["whole_model"] = bench_model(whole, threads)
        result["threads"] = bench_threads(one_thread)
    if "curves" in parts:
        result["curves"] = {
            "time_by_experts": time_by_experts(one_thread),
            "memory_by_experts": memory_by_experts(one_thread),
            "time_by_tokens": time_by_tokens(one_thread),
        }
    result["absent"] = list(one_thread.absent.values())
    result["machine"]["load_at_the_end"] = load()
    values: dict[str, Any] = plain(result)
    return values


def case_count(parts: Sequence[str]) -> int:
    """How often `on_case` is called."""
    return 2 + sum({"products": 12, "layers": 3, "model": 3, "curves": 3}[part] for part in set(parts))


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, and floats to five digits: more would be noise."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


@contextmanager
def torch_ready(bench: Bench, threads: int) -> Iterator[None]:
    """torch, if it is there, with so many threads and without gradients."""
    if "torch" not in bench.installed:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)

"""`bfedge bench` without a model: the timing, every part on small shapes with the real peers, and what users see."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfedge.bench import layers as bench_layers
from bfedge.bench import peers as bench_peers
from bfedge.bench import products as bench_products
from bfedge.bench import run as whole
from bfedge.bench import whole_model as bench_model
from bfedge.bench.curves import memory_by_experts, time_by_experts, time_by_tokens
from bfedge.bench.layers import bench_layers as layers_of
from bfedge.bench.library import BenchLibrary, bench_library
from bfedge.bench.machine import features, processor_name
from bfedge.bench.peers import Bench, Case, demand_alike, demand_correct
from bfedge.bench.products import bench_products as products_of
from bfedge.bench.products import empty_calls
from bfedge.bench.random_models import cifar_shape
from bfedge.bench.timing import Clock, Competitor, Timed, clock_for, time_interleaved
from bfedge.cli import main
from bfedge.errors import BfedgeError

RECORDED = Path(__file__).parents[1] / "docs" / "bench"


class FakeClock:
    """Time that passes only inside calls."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[str] = []

    def competitor(self, name: str, microseconds: float, family: str = "") -> Competitor:
        def call() -> None:
            self.now += int(microseconds * 1000)
            self.calls.append(name)

        return Competitor(name, call, name, family=family)

    def clock(self) -> Clock:
        return Clock("fake", lambda: self.now)


def test_times_are_those_of_one_call_and_ratios_those_to_the_first() -> None:
    clock = FakeClock()
    found = time_interleaved([clock.competitor("a", 5), clock.competitor("b", 20)], 7, clock.clock())
    assert [(t.name, t.microseconds.median, t.ratio.median) for t in found] == [("a", 5, 1), ("b", 20, 4)]
    assert [t.repetitions for t in found] == [200, 50]  # a millisecond each


def test_every_round_runs_everybody_in_a_new_order_that_is_the_same_every_time() -> None:
    def turns() -> list[str]:
        clock = FakeClock()
        time_interleaved([clock.competitor(name, 2000) for name in "abc"], 8, clock.clock())
        return clock.calls[-3 * 8 :]

    first = turns()
    rounds = ["".join(first[i : i + 3]) for i in range(0, 24, 3)]
    assert all(sorted(r) == list("abc") for r in rounds)
    assert len(set(rounds)) > 1
    assert turns() == first


def test_of_a_family_the_fastest_counts() -> None:
    clock = FakeClock()
    competitors = [clock.competitor("ours", 5), clock.competitor("x", 9, "peer"), clock.competitor("y", 7, "peer")]
    found = time_interleaved(competitors, 3, clock.clock())
    assert [(t.family, t.fastest_of_family) for t in found] == [("ours", True), ("peer", False), ("peer", True)]


def test_a_wrong_result_is_refused() -> None:
    right = np.array([1.0, 2.0, 4.0])
    assert demand_correct("x", right, right, 0) == "exact"
    with pytest.raises(BfedgeError, match="x computes something else"):
        demand_correct("x", right + 1e-3, right, 1e-4)
    with pytest.raises(BfedgeError, match="computes something else"):
        demand_correct("x", np.full(3, np.nan), right, 1)
    with pytest.raises(BfedgeError, match="computes something else"):
        demand_alike("x", right[::-1], right)


@pytest.fixture(scope="module")
def library() -> BenchLibrary:
    return bench_library()


@pytest.fixture
def bench(library: BenchLibrary) -> Bench:
    return Bench(library, library.kernels()[0], 3, clock_for(1))


def only(peers: set[str]) -> Callable[[str], bool]:
    """For `is_installed`."""
    modules = {module for peer in peers for module in bench_peers.PEERS[peer]}
    return lambda module: module in modules


def timed(case: Case) -> dict[str, Timed]:
    return {t.name: t for t in case.timed}


def test_products_are_those_of_every_peer_and_right(bench: Bench) -> None:
    cases = products_of(bench, [(96, 256)], [1, 5])
    assert [case.parameters for case in cases] == [{"rows": 96, "columns": 256, "count": count} for count in (1, 5)]
    for case in cases:
        families = {t.family for t in case.timed}
        assert families >= {"ours, ternary", "ours, int8", "onnxruntime MatMulInteger", "onnxruntime MatMul, float32"}
        assert families >= {"torch linear, float32"}
        assert ("LiteRT fully connected, int8" in families) is ("LiteRT" in bench.installed)
        assert {t.check for t in case.timed if "MatMulInteger" in t.name or "ours" in t.name} == {"exact"}
        assert all(t.microseconds.fastest > 0 for t in case.timed)
        assert ("llama.cpp TQ2_0, ternary" in families) is ("llama.cpp" in bench.installed)
    assert {t.name for t in empty_calls(bench).timed} == {"ours", *bench.installed} - {"llama.cpp"}


def test_our_side_is_right_with_every_set_of_kernels(library: BenchLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these calls compares its results with the reference before it times them."""
    monkeypatch.setattr(bench_peers, "is_installed", only(set()))
    shape = cifar_shape(5, side=12, layers=1, d_model=40, d_ff=72)
    for kernels in library.kernels():
        bench = Bench(library, kernels, 3, clock_for(1))
        assert {t.check for c in products_of(bench, [(33, 17), (64, 256)], [1, 7, 37]) for t in c.timed} == {"exact"}
        (case,) = layers_of(bench, [shape])
        assert [t.check for t in case.timed] == ["exact"] * 5
        assert case.timed[0].name == "ours, butterfly experts"


def test_layers_beside_the_peers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_peers, "is_installed", only({"onnxruntime"}))
    (case,) = layers_of(bench, [cifar_shape(6, side=16, layers=1, d_model=64, d_ff=128)])
    assert timed(case)["onnxruntime, our exported layer"].check == "exact"
    assert case.parameters["experts_used"] <= 6
    assert "our dense layer, ternary, 34 columns" in timed(case)


def test_the_model_beside_onnxruntime(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_peers, "is_installed", only({"onnxruntime"}))
    shape = cifar_shape(4, side=16, layers=2, d_model=64, d_ff=128)
    (case,) = bench_model.bench_model(bench, 1, [shape])
    found = timed(case)
    assert found["ours, 1 thread"].check == found["onnxruntime, our exported ONNX"].check == "exact"
    assert "onnxruntime, dense ViT, dynamic int8" in found
    assert sum(t.family == "onnxruntime, dense ViT, float32" for t in case.timed) == 2
    assert {"TFLite export", "torch", "LiteRT"} <= bench.absent.keys()
    threads = bench_model.bench_threads(bench, shape)
    assert [t.check for t in threads.timed][:2] == ["exact", "exact"]
    assert threads.timed[1].name == "ours, 2 threads"


def test_curves(bench: Bench) -> None:
    def shape(experts: int, side: int = 16) -> Any:
        return cifar_shape(experts, side=side, layers=2, d_model=32, d_ff=48)

    stage, model = time_by_experts(bench, [shape(4), shape(9)])
    assert stage.parameters["experts"] == model.parameters["experts"] == [4, 9]
    assert stage.timed[0].microseconds.median < model.timed[0].microseconds.median
    for point in memory_by_experts(bench, [shape(4), shape(9)]):
        assert point["experts_bytes"] == point["formula_bytes"] < point["file_bytes"]
    few, many = time_by_tokens(bench, [shape(4, side=8), shape(4, side=32)])
    assert (few["tokens"], many["tokens"]) == (5, 65)
    assert few["other_microseconds"].median < many["other_microseconds"].median
    assert few["attention_microseconds"].median < many["attention_microseconds"].median


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile gives advice
def test_torch_takes_part_in_layers_and_models(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_peers, "is_installed", only({"torch"}))
    with whole.torch_ready(bench, 1):
        (layer,) = layers_of(bench, [cifar_shape(6, side=16, layers=1, d_model=48, d_ff=80)])
        (model,) = bench_model.bench_model(bench, 1, [cifar_shape(4, side=16, layers=1, d_model=48, d_ff=80)])
    assert {"torch eager, float32", "torch compiled, float32"} <= timed(layer).keys()
    for name in ("torch eager, our model", "torch compiled, our model", "torch eager, dense ViT"):
        assert f"{name}, float32" in timed(model)
    assert timed(model)["torch eager, our model, exact"].check == "exact"


# What users see


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`bfedge bench ARGUMENTS` in this process: status, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        return (main.run(["bench", *map(str, arguments)]), *capfd.readouterr())

    return call


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_products, "SHAPES", ((64, 256),))
    monkeypatch.setattr(bench_products, "COUNTS", (1, 3))


Run = Callable[..., tuple[int, str, str]]


def test_json_table_file_and_chart(run: Run, small: None, tmp_path: Path) -> None:
    recorded, picture = tmp_path / "new" / "run.json", tmp_path / "chart.svg"
    status, shown, _ = run("--only", "products", "--rounds", 3, "--json", "--out", recorded, "--chart", picture)
    assert status == 0
    found = json.loads(shown)
    assert found == json.loads(recorded.read_text())
    assert (found["schema"], found["verb"]) == (1, "bench")
    assert found["command"] == "bfedge bench --rounds 3 --threads 1 --only products"
    assert found["settings"]["parts"] == ["products"]
    assert found["settings"]["kernels"] == found["settings"]["kernels_of_this_processor"][0]
    assert found["machine"]["architecture"]
    assert {"bfedge", "onnxruntime", "torch", "compiler"} <= found["versions"].keys()
    assert [case["parameters"]["count"] for case in found["products"]] == [1, 3]
    assert {"median", "first_quartile", "third_quartile"} <= found["products"][0]["timed"][0]["microseconds"].keys()
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")

    status, shown, _ = run("--only", "products", "--rounds", 3, "--chart", tmp_path / "chart.png")
    assert status == 0
    assert "64x256, microseconds" in shown
    assert "onnxruntime MatMulInteger" in shown
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_peers_that_are_not_installed_are_named(run: Run, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_peers, "is_installed", only(set()))
    status, shown, _ = run("--only", "products", "--rounds", 3)
    assert status == 0
    for peer in ("onnxruntime", "torch", "LiteRT"):
        assert f'not measured: {peer}: not installed; `pip install "bfedge[bench]"`' in shown
    absent = json.loads(run("--only", "products", "--rounds", 3, "--json")[1])["absent"]
    assert [a["peer"] for a in absent] == list(bench_peers.PEERS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "2"], "'--rounds'"),
        (["--only", "everything"], "'everything' is not one of"),
        (["--kernels", "none"], "no kernels `none`"),
        (["--threads", "64"], "64 threads are more than"),
        (["--chart", "chart.pdf"], "a chart ends in .svg or .png"),
        (["--chart", "."], "a chart ends in .svg or .png"),
        (["--out", "."], "cannot write `.`"),
        (["--cc", "no-such-compiler"], "no C compiler `no-such-compiler`"),
        (["--emulate"], "--emulate is for a board"),
        (["--target", "pi"], "--target is for a board"),
        (["model.bfe", "--rounds", "5"], "--rounds is for this machine"),
        (["model.bfe", "--out", "x.json"], "--out is for this machine"),
    ],
)
def test_bad_input_is_one_line(
    run: Run, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    status, shown, words = run(*arguments)
    assert (status, shown) == (1, "")
    assert message in words.splitlines()[0]
    assert words.startswith("error: ")
    assert len(words.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


def test_a_chart_without_matplotlib_is_refused_before_measuring(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    status, shown, words = run("--chart", "x.svg")
    assert (status, shown) == (1, "")
    assert words.splitlines()[0] == "error: a chart needs matplotlib"


def test_ctrl_c_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(whole, "bench_products", interrupted)
    status, shown, words = run("--only", "products", "--out", tmp_path / "run.json")
    assert (status, shown, words.strip()) == (1, "", "error: interrupted")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile gives advice
def test_all_parts_in_one_run(run: Run, small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_layers, "EXPERTS", (8,))
    monkeypatch.setattr(bench_model, "EXPERTS", (8,))
    monkeypatch.setattr(bench_model, "cifar_shape", partial(cifar_shape, layers=2))  # each is compiled by torch
    status, shown, words = run("--rounds", 3, "--out", tmp_path / "run.json", "--chart", tmp_path / "chart.svg")
    assert status == 0, words
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["command"] == "bfedge bench --rounds 3 --threads 1"
    assert {"products", "layers", "whole_model", "threads", "curves"} <= found.keys()
    for text in ("one layer, microseconds", "whole model, milliseconds", "threads, milliseconds", "257 tokens"):
        assert text in shown
    svg = (tmp_path / "chart.svg").read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_recorded_runs_are_of_this_schema() -> None:
    for path in RECORDED.glob("*.json"):
        found = json.loads(path.read_text())
        assert (found["schema"], found["verb"]) == (1, "bench"), path
        assert found["command"].startswith("bfedge bench"), path


CPUINFO_ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
CPUINFO_X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model\t\t: 207
model name\t: Some Processor @ 2.30GHz
flags\t\t: fpu avx2 avx512_vnni hypervisor
"""


def test_what_cpuinfo_says() -> None:
    assert processor_name(CPUINFO_X86) == "Some Processor @ 2.30GHz"
    assert features(CPUINFO_X86) == ["avx2", "avx512_vnni"]
    assert processor_name(CPUINFO_ARM) == "Raspberry Pi 5 Model B Rev 1.0"
    assert features(CPUINFO_ARM) == ["asimd", "asimddp", "crc32"]
    assert processor_name(CPUINFO_ARM.replace("Model\t\t:", "Other:")) == "implementer 0x41, part 0xd0b"
    assert features("") is None

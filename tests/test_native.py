"""The native passes of training against the torch operations that they stand for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext

import msgspec
import pytest
import torch
from torch import Tensor, nn

from bfedge.config import ViTConfig, config_from_dict
from bfedge.model import native
from bfedge.model.experts import ButterflyExperts, StandardExperts
from bfedge.model.layers import fake_quantise, float_arithmetic
from bfedge.model.rotation import Rotation
from bfedge.model.vit import ViT

SHAPES = [  # d_model, d_ff, experts, top_k, rotation_layers
    (2, 2, 1, 1, 1),
    (16, 64, 8, 2, 2),
    (12, 20, 3, 3, 3),
    (33, 7, 4, 2, "full"),
    (96, 160, 16, 16, 5),
    (64, 256, 5, 1, "full"),
]


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def in_torch(monkeypatch: pytest.MonkeyPatch):
    """Calls a function with torch's operations in place of the native passes."""

    def call(function):
        with monkeypatch.context() as context:
            context.setattr(native, "is_native", lambda _: False)
            return function()

    return call


def experts_config(shape: tuple) -> ViTConfig:
    d_model, d_ff, experts, top_k, rotation_layers = shape
    return config_from_dict(
        dict(
            image_height=4, image_width=4, channels=1, patch_size=2, classes=2, layers=1, heads=1,
            d_model=d_model, d_ff=d_ff, experts=experts, top_k=top_k, rotation_layers=rotation_layers,
        )
    )  # fmt: skip


def results(layer: ButterflyExperts, h: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    """The output and every gradient of a layer."""
    h = h.clone().requires_grad_()
    layer.zero_grad()
    out, _ = layer(h)
    (out * upstream).sum().backward()
    gradients = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
    assert h.grad is not None
    return {"out": out.detach(), "h": h.grad, **gradients}


@pytest.mark.parametrize("shape", SHAPES)
def test_experts_and_their_gradients_are_torchs(shape: tuple, threads: int, in_torch) -> None:
    torch.manual_seed(shape[0])
    layer = ButterflyExperts(experts_config(shape)).train()
    nn.init.normal_(layer.theta.angles, 0, 1.5)
    nn.init.normal_(layer.phi.angles, 0, 1.5)
    h, upstream = torch.randn(40, 5, shape[0]), torch.randn(40, 5, shape[0])
    with float_arithmetic(layer):
        got, expected = results(layer, h, upstream), in_torch(lambda: results(layer, h, upstream))
    assert got.keys() == expected.keys()
    assert {"theta.angles", "phi.angles", "substrate.weight", "down.weight"} <= got.keys()
    for name, value in expected.items():
        largest = float(value.abs().max())
        assert torch.allclose(got[name], value, rtol=1e-4, atol=1e-5 * max(largest, 1e-3)), name


def test_the_quantised_layer_rounds_as_torch_does(in_torch) -> None:
    """GELU differs by 1e-7, so that a few values in a million round to the next step."""
    torch.manual_seed(0)
    layer = ButterflyExperts(experts_config((32, 128, 4, 2, 2))).train()
    h, upstream = torch.randn(50, 8, 32), torch.randn(50, 8, 32)
    got, expected = results(layer, h, upstream), in_torch(lambda: results(layer, h, upstream))
    for name, value in expected.items():
        step = float(value.abs().max()) / 127
        difference = (got[name] - value).abs()
        assert float((difference > step / 100).float().mean()) < 0.01, name
        assert float(difference.max()) < step, name


@pytest.mark.parametrize("columns", [1, 2, 17, 64, 100])
def test_rounding_has_torchs_bits(columns: int, threads: int, in_torch) -> None:
    torch.manual_seed(columns)
    x = torch.randn(300, columns) * torch.logspace(-20, 20, 300)[:, None]
    x[7] = 0
    x[8] = x[8, 0]
    got, expected = fake_quantise(x), in_torch(lambda: fake_quantise(x))
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_does_not_disappear(bad: float) -> None:
    x = torch.randn(3, 40)
    x[1, 3] = bad
    rounded, _ = fake_quantise(x)
    assert not torch.isfinite(rounded[1]).all()
    assert torch.isfinite(rounded[[0, 2]]).all()


def test_rows_that_do_not_lie_side_by_side() -> None:
    x = torch.randn(6, 5).T
    assert torch.equal(fake_quantise(x)[0], fake_quantise(x.contiguous())[0])


@pytest.mark.parametrize("x", [-100.0, -38.0, -6.0, -1.5, -1e-3, 0.0, 1e-3, 0.7, 3.0, 12.0, 100.0])
def test_gelu_and_its_slope(x: float) -> None:
    """Through a rotation by nothing of one expert with weight 1."""
    y = torch.full((1, 2), x, requires_grad=True)
    rotation = Rotation(2, 1, 1)
    nn.init.zeros_(rotation.angles)
    with float_arithmetic(rotation):
        tables = rotation.tables()
    out = native.MixOutputs.apply(y, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1), *tables, False)
    out.sum().backward()
    exact = torch.full((1, 2), x, dtype=torch.float64, requires_grad=True)
    expected = nn.functional.gelu(exact)
    expected.sum().backward()
    assert y.grad is not None
    assert exact.grad is not None
    assert torch.allclose(out.double(), expected, rtol=1e-6, atol=3e-7 * max(abs(x), 1))
    assert torch.allclose(y.grad.double(), exact.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("quantised", [True, False])
def test_evaluation_needs_no_gradient(quantised: bool) -> None:
    layer = ButterflyExperts(experts_config((16, 64, 8, 2, 2))).eval()
    with torch.no_grad(), nullcontext() if quantised else float_arithmetic(layer):
        assert not layer(torch.randn(2, 4, 16))[0].requires_grad


@pytest.mark.slow
@pytest.mark.parametrize(("experts", "most"), [(8, 1.0), (64, 0.5)])
def test_a_training_step_is_no_slower_than_standard_experts(experts: int, most: float) -> None:
    """Of the paper's layer, in turn, by the processor time of one thread; 0.65 and 0.2 were measured."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    config = experts_config((256, 1024, experts, 2, 2))
    layers = [ButterflyExperts(config).train(), StandardExperts(config).train()]
    h = torch.randn(16, 65, 256)

    def step(layer: nn.Module) -> float:
        started = time.process_time()
        (layer(h)[0] ** 2).mean().backward()
        layer.zero_grad()
        return time.process_time() - started

    rounds = [[step(layer) for layer in layers] for _ in range(6)][1:]
    torch.set_num_threads(before)
    assert statistics.median(butterfly / standard for butterfly, standard in rounds) < most


@pytest.mark.slow
@pytest.mark.parametrize("feed_forward", ["butterfly", "dense"])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch of itself
def test_a_training_step_compiles_as_one_graph(feed_forward: str) -> None:
    """As on a GPU: without the native passes, with the same result and gradients."""
    torch.manual_seed(0)
    model = ViT(msgspec.structs.replace(experts_config((16, 64, 4, 2, 2)), feed_forward=feed_forward)).train()
    images = torch.randint(0, 256, (3, 4, 4, 1))

    def gradients(forward) -> list[Tensor]:
        model.zero_grad()
        forward(images)[0].square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    compiled = gradients(torch.compile(model.forward_with_routing, backend="eager", fullgraph=True))
    for got, expected in zip(compiled, gradients(model.forward_with_routing), strict=True):
        assert torch.allclose(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))

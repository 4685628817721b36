"""Lowering: folded rotations against Algorithm 1 with its shuffles, determinism, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bfedge.config import config_from_dict, config_to_dict, padded_width
from bfedge.errors import BfedgeError
from bfedge.lowered import arithmetic
from bfedge.lowered.lower import lower, lower_rotation
from bfedge.lowered.model import Int8Matrix, Rotation, TernaryMatrix, same
from bfedge.lowered.rotation import angle_order, original_index, output_order, pair_distance
from bfedge.model import rotation as torch_rotation
from bfedge.model.vit import ViT
from tests.random_models import random_config, random_vit

F32 = np.float32


def algorithm_1(angles: NDArray[np.float16], x: NDArray) -> NDArray:
    """Algorithm 1 with every shuffle carried out, one binary32 operation at a time. angles [layers, d' / 2]."""
    width, half = x.shape[1], angles.shape[1]
    padded = np.zeros((len(x), 2 * half), F32)
    padded[:, :width] = x
    for row in angles:
        s, c = arithmetic.sine_cosine(row)
        a, b = padded[:, 0::2].copy(), padded[:, 1::2].copy()
        padded[:, 0::2] = c * a - s * b
        padded[:, 1::2] = s * a + c * b
        shuffled = np.empty_like(padded)
        shuffled[:, 0::2] = padded[:, :half]
        shuffled[:, 1::2] = padded[:, half:]
        padded = shuffled
    return padded[:, :width]


@given(st.integers(2, 80), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_a_folded_rotation_is_algorithm_1(width: int, depth: int, seed: int) -> None:
    """Any depth up to the full one, log2 of the padded width."""
    r = np.random.default_rng(seed)
    padded = padded_width(width)
    depth = min(depth, padded.bit_length() - 1)
    angles = r.uniform(-3.14, 3.14, (2, depth, padded // 2)).astype(np.float16)
    x = r.standard_normal((4, width)).astype(F32)
    expert = np.array([0, 1, 1, 0])
    folded = Rotation(width, np.take_along_axis(angles, angle_order(depth, padded)[None], axis=2))
    literal = np.concatenate([algorithm_1(angles[e], x[i : i + 1]) for i, e in enumerate(expert)])
    got = arithmetic.rotate(folded, expert, x)
    assert got.dtype == F32
    assert got.tobytes() == literal[:, output_order(width, depth)].tobytes()


@given(st.integers(2, 80), st.integers(1, 7))
def test_the_orders_are_permutations(width: int, depth: int) -> None:
    padded = padded_width(width)
    depth = min(depth, padded.bit_length() - 1)
    assert sorted(output_order(width, depth)) == list(range(width))
    assert sorted(original_index(depth, padded)) == list(range(padded))
    for row in angle_order(depth, padded):
        assert sorted(row) == list(range(padded // 2))
    distances = [pair_distance(layer, padded) for layer in range(depth)]
    assert distances == [1] + [padded >> layer for layer in range(1, depth)]
    assert len(set(distances)) == depth


@pytest.mark.parametrize(("width", "depth"), [(2, 1), (12, 2), (16, 4), (33, 6)])
def test_a_lowered_rotation_is_torchs(width: int, depth: int) -> None:
    torch.manual_seed(width)
    layer = torch_rotation.Rotation(width, 3, depth).eval()
    with torch.no_grad():
        layer.angles.normal_(0, 2)
        x, expert = torch.randn(6, width), torch.tensor([0, 1, 2, 2, 1, 0])
        expected = layer(x, expert).numpy()
        got = arithmetic.rotate(lower_rotation(layer), expert.numpy(), x.numpy())
    assert got.tobytes() == expected[:, output_order(width, depth)].tobytes()


def test_angles_of_8_bits_are_wrapped_to_one_turn() -> None:
    layer = torch_rotation.Rotation(4, 1, 1, "int8").eval()
    with torch.no_grad():
        for angle in (3.141, -3.1415927, 3.1415927, 100.0, -9.42477, 6.2831855, 0.0123, -0.0122):
            layer.angles.fill_(angle)
            lowered = lower_rotation(layer)
            assert lowered.stored.dtype == np.int8
            assert (lowered.angles == layer.deployed_angles().numpy()).all()
            assert np.abs(np.exp(1j * lowered.angles.astype(float)) - np.exp(1j * angle)).max() < np.pi / 256 + 1e-3


def test_angles_are_wrapped_to_one_turn() -> None:
    layer = torch_rotation.Rotation(4, 1, 1).eval()
    with torch.no_grad():
        for angle in (3.141, -3.1415927, 3.1415927, 100.0, -9.42477, 6.2831855):
            layer.angles.fill_(angle)
            lowered = lower_rotation(layer).angles
            assert lowered.dtype == np.float16
            assert np.abs(lowered.astype(F32)).max() <= 3.140625
            assert np.abs(np.exp(1j * lowered.astype(float)) - np.exp(1j * angle)).max() < 2e-3


@pytest.mark.parametrize("number", range(10))
def test_lowering_twice_gives_the_same_bits(number: int) -> None:
    model = random_vit(number)
    first = lower(model, ("x",) * model.config.classes)
    assert same(first, lower(model, ("x",) * model.config.classes))
    assert not same(first, lower(model))
    with torch.no_grad():
        model.blocks[-1].experts.phi.angles[-1, 0, 0] += 1
    assert not same(first, lower(model, ("x",) * model.config.classes))


def test_lowering_leaves_the_model_as_it_was() -> None:
    model = random_vit(3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lowered = lower(model)
    for array in (lowered.position, lowered.norm.gain, lowered.head.bias, lowered.patch.values):
        array += array.dtype.type(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("number", range(20))
def test_what_lowering_promises(number: int) -> None:
    config = random_config(number)
    lowered = lower(random_vit(number), ternary="trits3")
    assert len(lowered.blocks) == config.layers
    assert lowered.position.shape == (config.tokens, config.d_model)
    for block in lowered.blocks:
        experts = block.experts
        assert isinstance(experts.substrate, TernaryMatrix)
        assert experts.substrate.trits.shape == (config.d_ff, config.d_model)
        assert experts.substrate.encoding == "trits3"
        assert set(np.unique(experts.substrate.trits)) <= {-1, 0, 1}
        assert experts.theta.angles.shape == (config.experts, config.theta_layers, padded_width(config.d_model) // 2)
        assert experts.phi.angles.shape == (config.experts, config.phi_layers, padded_width(config.d_ff) // 2)
        assert isinstance(experts.router, Int8Matrix)
        assert isinstance(experts.down, TernaryMatrix if config.projection_weights == "ternary" else Int8Matrix)
    for matrix in (lowered.patch, *(b.experts.router for b in lowered.blocks)):
        assert np.abs(matrix.values.astype(int)).max() <= 127
        assert (matrix.scales > 0).all()


def test_columns_of_the_next_matrix_take_the_rotations_order() -> None:
    model = random_vit(5)
    config = model.config
    lowered = lower(model)
    for torch_block, block in zip(model.blocks, lowered.blocks, strict=True):
        trits, _ = torch_block.experts.substrate.integers()
        order = output_order(config.d_model, config.theta_layers)
        assert np.array_equal(block.experts.substrate.trits, trits.detach().numpy()[:, order])
        down, _ = torch_block.experts.down.integers()
        order = output_order(config.d_ff, config.phi_layers)
        assert np.array_equal(block.experts.down.integers, down.detach().numpy()[:, order])


@pytest.mark.parametrize("feed_forward", ["standard", "dense"])
def test_baselines_are_refused(feed_forward: str) -> None:
    config = config_from_dict(config_to_dict(random_config(0)) | {"feed_forward": feed_forward})
    with pytest.raises(BfedgeError, match=f"{feed_forward} feed-forward layers cannot be exported") as caught:
        lower(ViT(config))
    assert caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "embedding.position",
        "blocks.0.experts.theta.angles",
        "blocks.0.experts.substrate.weight",
        "norm.bias",
        "head.bias",
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(name: str, value: float) -> None:
    model = random_vit(1)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[-1] = value
    with pytest.raises(BfedgeError, match=f"`{name}` has 1 values that are not finite"):
        lower(model)


@pytest.mark.parametrize("width", range(2, 81))
def test_the_full_depth_of_every_width(width: int) -> None:
    r = np.random.default_rng(width)
    padded = padded_width(width)
    depth = padded.bit_length() - 1
    angles = r.uniform(-3.14, 3.14, (1, depth, padded // 2)).astype(np.float16)
    x = r.standard_normal((2, width)).astype(F32)
    folded = Rotation(width, np.take_along_axis(angles, angle_order(depth, padded)[None], axis=2))
    got = arithmetic.rotate(folded, np.zeros(2, np.int64), x)
    assert got.tobytes() == algorithm_1(angles[0], x)[:, output_order(width, depth)].tobytes()


def test_the_expert_order_of_angles_is_kept() -> None:
    """Swapping two experts' angles and router rows gives the same function with the experts renamed."""
    model = random_vit(7, experts=3, top_k=1)
    before = lower(model)
    swap = torch.tensor([1, 0, 2])
    with torch.no_grad():
        for block in model.blocks:
            for parameter in (block.experts.theta.angles, block.experts.phi.angles, block.experts.router.gate.weight):
                parameter.copy_(parameter[swap].clone())
    after = lower(model)
    for a, b in zip(before.blocks, after.blocks, strict=True):
        assert np.array_equal(a.experts.theta.angles, b.experts.theta.angles[swap])
        assert np.array_equal(a.experts.router.values, b.experts.router.values[swap])

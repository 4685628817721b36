"""The error bounds that NUMERICS.md states, and torch `eval()` against the reference, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bfedge.lowered import arithmetic, reference
from bfedge.lowered.angles import angles_of, codes_of
from bfedge.lowered.lower import lower
from bfedge.lowered.model import LayerNorm
from bfedge.model import exact
from tests.random_models import random_images, random_vit

F32 = np.float32
TINY = 2.0**-100


def bits(x: NDArray) -> bytes:
    return np.ascontiguousarray(x).tobytes()


# ---------------------------------------------------------------- section 2


def test_quantise_ties_go_to_even() -> None:
    q, s = arithmetic.quantise(np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5], F32))
    assert q.tolist() == [127, 0, 2, 2, 0, -2, -2, 126]
    assert s == 1
    assert q.dtype == np.int8
    assert s.dtype == F32


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-38, 2.0**-101])
def test_quantise_below_the_floor(value: float) -> None:
    q, s = arithmetic.quantise(np.full((2, 5), value, F32))
    assert q.tolist() == [[math.copysign(64, value) if abs(value) == 2.0**-101 else 0] * 5] * 2
    assert bits(s) == bits(np.full(2, F32(TINY) / F32(127)))


@given(
    hnp.arrays(F32, st.integers(1, 40), elements=st.floats(-(2.0**80), 2.0**80, width=32)),
    st.sampled_from([1.0, 1e-25, 1e-38]),
)
def test_quantise_stays_in_range_and_within_half_a_step(x: NDArray, factor: float) -> None:
    x = x * F32(factor)
    q, s = arithmetic.quantise(x)
    assert np.abs(q.astype(int)).max() <= 127
    if np.abs(x).max() >= TINY:
        assert np.abs(q.astype(int)).max() == 127
    assert (np.abs(q.astype(np.float64) * np.float64(s) - x) <= np.float64(s) * 0.50002).all()
    got, scale = exact.quantise(torch.from_numpy(x))
    assert bits(got.numpy().astype(np.int8)) == bits(q)
    assert bits(scale.numpy()) == bits(s)


# ---------------------------------------------------------------- section 3


@pytest.mark.parametrize("n", [1, 1031, 1032, 1033, 2063, 16384])
@pytest.mark.parametrize("other", [127, -128])
def test_integer_product_at_its_worst(n: int, other: int) -> None:
    """127 * 128 * 16384 needs 28 bits; one more or less must still be told apart before the one rounding."""
    a = np.full((2, n), 127, np.int8)
    b = np.full((n, 2), other, np.int8)
    a[1, 0] = 126
    b[-1, 1] = -1
    exactly = a.astype(np.int64) @ b.astype(np.int64)
    assert bits(arithmetic.integer_product(a, b)) == bits(exactly.astype(F32))
    got = exact.integer_product(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    assert bits(got.numpy()) == bits(exactly.astype(F32))
    assert np.abs(exactly).max() < 2**28


def test_integer_product_of_random_values_of_any_length() -> None:
    r = np.random.default_rng(0)
    for n in (3, 64, 1000, 1100, 2000, 5000, 16384):
        a, b = r.integers(100, 128, (5, n)).astype(np.int8), r.integers(100, 128, (n, 7)).astype(np.int8)
        a[3:] *= r.choice(np.array([-1, 1], np.int8), (2, n))
        expected = (a.astype(np.int64) @ b.astype(np.int64)).astype(F32)
        assert bits(arithmetic.integer_product(a, b)) == bits(expected)
        assert bits(exact.integer_product(torch.from_numpy(a).float(), torch.from_numpy(b).float()).numpy()) == bits(
            expected
        )


# ---------------------------------------------------------------- section 5


def norm_of(x: NDArray) -> NDArray:
    n = x.shape[-1]
    return arithmetic.layer_norm(x, LayerNorm(np.ones(n, F32), np.zeros(n, F32)))


def float64_norm(x: NDArray) -> NDArray:
    x = x.astype(np.float64)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def outliers(n: int, factor: float) -> NDArray:
    r = np.random.default_rng(n)
    x = r.standard_normal((500, n))
    x[:, r.integers(n)] *= factor
    x[::2] += r.standard_normal((250, 1))
    return x.astype(F32)


@pytest.mark.parametrize("n", [2, 3, 64, 256, 1000, 16384])
@pytest.mark.parametrize("factor", [1, 10, 1000, 1e6])
def test_layer_norm_within_what_rounding_to_twelve_bits_can_do(n: int, factor: float) -> None:
    """Rounding moves every integer by at most a half, so mean and deviation by at most h = m / 4094 each: the output y
    by at most (1 + |y|) * h / sigma to first order.
    """
    x = outliers(n, factor)[:50] if n > 1000 else outliers(n, factor)
    adversary = np.full((1, n), 0.49 / 2047, F32)
    adversary[0, 0] = 1
    for rows in (x, adversary, x * F32(1e6)):
        y = float64_norm(rows)
        wide = rows.astype(np.float64)
        h = np.abs(wide).max(-1, keepdims=True) / 4094 / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
        usable = h[:, 0] < 0.1  # below that the first order says it all; n = 2 has nearly equal pairs
        bound = (1 + np.abs(y)) * h / (1 - h) * 1.01 + 1e-5 * (1 + np.abs(y))
        assert usable.mean() > 0.5
        assert (np.abs(norm_of(rows) - y) <= bound)[usable].all()


def test_layer_norm_of_special_vectors() -> None:
    assert not norm_of(np.zeros((1, 9), F32)).any()
    # equal values: mean and value differ by rounding only, the variance is 0 exactly
    constant = norm_of(np.full((1, 9), 3.7, F32))
    assert np.abs(constant).max() < 1e-3
    assert np.array_equal(norm_of(np.array([[-1, 1]], F32)), -norm_of(np.array([[1, -1]], F32)))
    huge = norm_of(np.array([[2.0**79, -(2.0**79), 0, 1]], F32))  # variance overflows: section 13
    assert np.isfinite(huge).all()
    assert not huge.any()


def test_layer_norm_gain_and_bias() -> None:
    x = outliers(12, 3)
    r = np.random.default_rng(1)
    gain, bias = r.standard_normal(12).astype(F32), r.standard_normal(12).astype(F32)
    assert bits(arithmetic.layer_norm(x, LayerNorm(gain, bias))) == bits(norm_of(x) * gain + bias)
    got = exact.layer_norm(torch.from_numpy(x), torch.from_numpy(gain), torch.from_numpy(bias))
    assert bits(got.numpy()) == bits(norm_of(x) * gain + bias)


# ---------------------------------------------------------------- section 6


def test_exp2fix_error_and_order() -> None:
    t = np.unique(np.concatenate([-np.linspace(0, 18, 400_001), -(2.0 ** np.arange(-40, 7)), -np.arange(20)]))
    t = np.append(t.astype(F32), F32(0))
    e = arithmetic.exp2fix(t)
    clamped = np.maximum(t.astype(np.float64), -17)
    assert np.abs(e - 32768 * 2.0**clamped).max() <= 0.7
    assert (np.diff(e) >= 0).all()
    assert e[-1] == 32768
    assert e.min() == 0
    assert bits(exact.exp2fix(torch.from_numpy(t)).numpy().astype(np.int32)) == bits(e)


def test_exp2fix_around_every_integer() -> None:
    """Every binary32 within 200 steps of an integer: no jump where the power changes."""
    for n in range(18):
        steps = [F32(-n)]
        for _ in range(200):
            steps.append(np.nextafter(steps[-1], F32(-99)))
        t = np.array(steps[::-1], F32)
        if n:
            up = F32(-n)
            for _ in range(200):
                up = np.nextafter(up, F32(0))
                t = np.append(t, up)
        assert (np.diff(arithmetic.exp2fix(t)) >= 0).all()
        assert np.abs(arithmetic.exp2fix(t) - 32768 * 2.0 ** np.maximum(t.astype(np.float64), -17)).max() <= 0.7


def test_exp2fix_of_exact_powers_and_far_below() -> None:
    assert arithmetic.exp2fix(-np.arange(16, dtype=F32)).tolist() == [32768 >> n for n in range(16)]
    assert arithmetic.exp2fix(np.array([-17, -100, -3e38, -0.0, -1e-45], F32)).tolist() == [0, 0, 0, 32768, 32768]


# ---------------------------------------------------------------- section 9


def valid_angles() -> NDArray[np.float16]:
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    return every[np.isfinite(every) & (np.abs(every.astype(F32)) <= 3.140625)]


def test_sine_and_cosine_of_every_angle() -> None:
    angles = valid_angles()
    assert len(angles) == 33938
    sine, cosine = arithmetic.sine_cosine(angles)
    exactly = angles.astype(np.float64)
    assert np.abs(sine - np.sin(exactly)).max() <= 1e-7
    assert np.abs(cosine - np.cos(exactly)).max() <= 1e-7
    assert np.abs(sine).max() <= 1
    assert np.abs(cosine).max() <= 1
    got = exact.sine_cosine(torch.from_numpy(angles.astype(F32)))
    assert [bits(g.numpy()) for g in got] == [bits(sine), bits(cosine)]


def test_an_angle_of_8_bits_is_the_binary16_nearest_to_its_256th_of_a_turn() -> None:
    pi = Fraction("3.14159265358979323846264338327950288419716939937510")
    halves = [Fraction(float(half)) for half in valid_angles()]
    codes = np.arange(-128, 128).astype(np.int8)
    angles = angles_of(codes)
    for code, angle in zip(codes.tolist(), angles.tolist(), strict=True):
        assert Fraction(angle) == min(halves, key=lambda half, code=code: abs(half - code * pi / 128)), code
    assert not np.signbit(angles[128])
    assert (codes_of(angles) == codes).all()
    assert (codes_of(angles.astype(np.float64) + 4 * math.pi) == codes).all()


def test_sine_and_cosine_of_no_angle() -> None:
    sine, cosine = arithmetic.sine_cosine(np.array([0.0, -0.0], np.float16))
    assert not sine.any()
    assert cosine.tolist() == [1, 1]


# ---------------------------------------------------------------- section 10


def erf_gelu(x: NDArray) -> NDArray:
    return torch.nn.functional.gelu(torch.from_numpy(x.astype(np.float64))).numpy()


def test_gelu_error() -> None:
    x = np.concatenate(
        [
            np.linspace(-8, 8, 640_001),  # 312 points between two table entries
            np.arange(-700, 701) / 128,
            np.nextafter(np.arange(-700, 701) / 128, 9, dtype=F32),
            [1e-45, -1e-45, 1e-38, -1e-38, 5.0, -5.0, 5.0078125],
        ]
    ).astype(F32)
    assert np.abs(arithmetic.gelu(x) - erf_gelu(x)).max() <= 1e-5
    assert bits(exact.gelu(torch.from_numpy(x)).numpy()) == bits(arithmetic.gelu(x))


def test_gelu_of_huge_values_and_zeros() -> None:
    huge = np.array([5.1, 1e3, 1e10, 2.0**71, 1e36], F32)  # section 13 allows up to 2^71
    assert np.array_equal(arithmetic.gelu(huge), huge)
    assert not arithmetic.gelu(-huge).any()
    zeros = arithmetic.gelu(np.array([0.0, -0.0], F32))
    assert bits(zeros) == bits(np.zeros(2, F32))  # +0 - 0 = +0 for both
    extremes = np.array([0.0, -0.0, *huge, *-huge], F32)
    assert bits(exact.gelu(torch.from_numpy(extremes)).numpy()) == bits(arithmetic.gelu(extremes))


def test_the_gelu_table_is_the_formula() -> None:
    assert len(arithmetic.GELU_TABLE) == 642
    assert arithmetic.GELU_TABLE.dtype == np.uint16
    assert arithmetic.GELU_TABLE[[0, 640, 641]].tolist() == [0, 0, 0]
    for i in range(640):
        delta = (i / 128) * 0.5 * math.erfc(i / 128 / math.sqrt(2))
        assert abs(int(arithmetic.GELU_TABLE[i]) - 2**18 * delta) <= 0.5 + 1e-6


# ---------------------------------------------------------------- rule 2


def test_torch_divides_and_takes_roots_with_one_rounding() -> None:
    r = np.random.default_rng(2)
    a, b = (np.exp(r.uniform(-40, 40, 20_000)).astype(F32) for _ in range(2))
    assert bits(exact.divide(torch.from_numpy(a), torch.from_numpy(b)).numpy()) == bits(a / b)
    assert bits(exact.divide(127, torch.from_numpy(b)).numpy()) == bits(F32(127) / b)
    assert bits(exact.square_root(torch.from_numpy(a)).numpy()) == bits(np.sqrt(a))
    for x in a[:200]:  # NumPy's root is the nearest binary32: no neighbour's square is closer
        root = np.sqrt(x)
        low = (Fraction(float(root)) + Fraction(float(np.nextafter(root, F32(0))))) / 2
        high = (Fraction(float(root)) + Fraction(float(np.nextafter(root, F32(np.inf))))) / 2
        assert low**2 <= Fraction(float(x)) <= high**2


# ---------------------------------------------------------------- the whole model


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("number", "threads"), [(n, 1) for n in range(60)] + [(n, 2) for n in range(20)], indirect=["threads"]
)
def test_torch_in_eval_has_the_references_bits(number: int, threads: int) -> None:
    model = random_vit(number)
    lowered = lower(model)
    images = random_images(lowered, 5, number)
    with torch.no_grad():
        got = model(torch.from_numpy(images)).numpy()
    expected = reference.run(lowered, images)
    assert got.dtype == expected.dtype == F32
    assert np.isfinite(expected).all()
    assert bits(got) == bits(expected)


def test_torch_and_reference_agree_at_the_width_where_float32_sums_stop_being_exact(threads: int) -> None:
    fixed = dict(image_height=4, image_width=4, channels=1, patch_size=2, classes=3, layers=1, heads=2, experts=3)
    for number, (d_model, d_ff) in enumerate([(64, 1040), (1100, 24)]):
        model = random_vit(number, **fixed, d_model=d_model, d_ff=d_ff, top_k=2, rotation_layers=2)
        lowered = lower(model)
        images = random_images(lowered, 3, number)
        with torch.no_grad():
            assert bits(model(torch.from_numpy(images)).numpy()) == bits(reference.run(lowered, images))


def test_one_image_has_the_bits_it_has_in_a_batch() -> None:
    for number in range(8):
        model = random_vit(number)
        lowered = lower(model)
        images = random_images(lowered, 4, number)
        together = reference.run(lowered, images)
        alone = np.concatenate([reference.run(lowered, images[i : i + 1]) for i in range(4)])
        assert bits(together) == bits(alone)
        with torch.no_grad():
            alone = torch.cat([model(torch.from_numpy(images[i : i + 1])) for i in range(4)]).numpy()
        assert bits(together) == bits(alone)


def test_the_reference_refuses_images_of_another_shape_or_type() -> None:
    lowered = lower(random_vit(0))
    images = random_images(lowered, 2, 0)
    with pytest.raises(ValueError, match="images are"):
        reference.run(lowered, images[:, :, :, :0])
    with pytest.raises(ValueError, match="images are"):
        reference.run(lowered, images.astype(np.int64))  # type: ignore[arg-type]

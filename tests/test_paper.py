"""`bfedge paper`: the papers' figures from packed files, and what is said about the experts of a model."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from bfedge.cli import main
from bfedge.lowered.lower import lower
from bfedge.lowered.model import Shape, shape_of
from bfedge.measure import expert_memory, paper, paper_memory
from bfedge.measure.claims import VIT, Claim
from bfedge.measure.experts import MOST_TOKENS, analyse, route_image
from bfedge.measure.paper import Recomputed
from bfedge.measure.torch_experts import analyse_standard, latent_substrates
from bfedge.model.checkpoint import Checkpoint, save_checkpoint
from bfedge.model.experts import ButterflyExperts, Routing, StandardExperts
from bfedge.model.layers import ternary
from bfedge.model.rotation import Rotation
from bfedge.model.vit import Block, ViT
from bfedge.packed.outline import outline_of
from bfedge.packed.writer import pack
from tests.random_models import random_config, random_images, random_lowered, random_vit

TABLE_2 = """
2   29.36  0.434 68
4   58.72  0.505 116
8   117.44 0.649 181
16  234.88 0.935 251
32  469.76 1.509 311
64  939.52 2.656 354
"""


class Result(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        capfd.readouterr()
        status = main.run([str(a) for a in arguments])
        return Result(status, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def recomputed() -> Recomputed:
    return paper.recompute()


# ---------------------------------------------------------------- claims


def test_every_figure_of_table_2_matches_to_the_printed_digits(recomputed: Recomputed) -> None:
    claims = recomputed.groups["ButterflyViT, Table 2"]
    assert [claim.figure for claim in claims] == [
        cell for row in TABLE_2.strip().splitlines() for cell in row.split()[1:]
    ]
    assert all(claim.must_match and claim.matches for claim in claims)


def test_what_should_match_does_and_what_contradicts_is_named(recomputed: Recomputed) -> None:
    assert recomputed.passed
    assert recomputed.should_match == 46
    others = [claim for claim in recomputed.claims() if not claim.must_match]
    assert [claim.what for claim in others if claim.matches] == ["DRAM access"]  # our profile has it from the paper
    assert all(claim.why for claim in others)
    assert recomputed.contradictions == 18


@pytest.mark.parametrize(
    ("where", "what", "low", "high"),
    [
        ("summary", "64 experts", 1.94, 1.95),
        ("summary", "64 standard experts", 256, 256),
        ("summary", "compression at 256 experts", 150.0, 150.2),
        ("section 3.8", "compression at 64 with FP16 angles", 622, 623),
        ("equation 12", "262,144 / 2,560", 102.4, 102.4),
        ("equation 12", "limit as Table 2 counts", 409.6, 409.6),
        ("section 1", "one layer of ButterflyViT, 64 experts", 0.379, 0.380),
        ("section 3.2", "StandardMoE, 64 experts", 48.1, 48.2),
    ],
)
def test_recomputed_figures(recomputed: Recomputed, where: str, what: str, low: float, high: float) -> None:
    (claim,) = (c for c in recomputed.claims() if (c.where, c.what) == (where, what))
    assert claim.recomputed is not None
    assert low - 1e-9 <= claim.recomputed <= high + 1e-9


@given(st.integers(0, 10**9), st.integers(0, 3))
def test_a_figure_matches_if_it_is_rounded_or_cut_off_and_not_otherwise(ten_thousandths: int, decimals: int) -> None:
    value, unit = (ten_thousandths + 0.3) / 10_000, 10 ** (4 - decimals)
    cut_off = ten_thousandths // unit

    def matches(steps: int) -> bool:
        return Claim(VIT, "", "", f"{Decimal(steps).scaleb(-decimals)} MB", value).matches

    assert matches(cut_off)
    assert matches(cut_off + 1) == (ten_thousandths % unit + 0.3 > unit / 2)
    assert not matches(cut_off + 2)
    assert cut_off == 0 or not matches(cut_off - 1)


def test_bounds_ranges_and_words() -> None:
    assert Claim(VIT, "", "", "more than 98%", 99.4, relation="above").matches
    assert not Claim(VIT, "", "", "below 0.2 mJ", 0.3, relation="below").matches
    assert Claim(VIT, "", "", "none", 0).matches
    assert not Claim(VIT, "", "", "none", 1).matches
    few = Claim(VIT, "", "", "3-6 experts", 9, between=(3, 6))
    assert (few.matches, few.difference) == (False, 3)
    unknown = Claim(VIT, "", "", "5.66 M", None, must_match=False)
    assert (unknown.recomputed_text, unknown.difference_text, unknown.contradiction) == ("n/a", "n/a", False)


@pytest.mark.parametrize("seed", range(6))
def test_expert_memory_is_that_of_the_torch_modules(seed: int) -> None:
    """Any widths and depths: trits, angles and standard experts as torch counts them."""
    config = random_config(seed)
    with torch.device("meta"):
        butterfly, standard = ButterflyExperts(config), StandardExperts(config)
    memory = expert_memory.expert_memory(outline_of(pack(random_lowered(seed))))
    assert memory.trits == config.layers * butterfly.substrate.weight.numel()
    assert memory.angles == config.layers * (butterfly.theta.angles.numel() + butterfly.phi.angles.numel())
    assert memory.angle_bytes == {"float16": 2, "int8": 1}[config.angles] * memory.angles
    assert memory.standard_bytes == config.layers * 4 * (standard.up.numel() + standard.down.numel())


def test_without_torch_parameters_are_not_known_and_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    claims = paper_memory.parameters()
    assert [(claim.recomputed, claim.must_match, claim.contradiction) for claim in claims] == [(None, False, False)] * 3
    assert all("torch is not installed" in claim.note for claim in claims)


@pytest.fixture
def deeper_rotations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Packed files with one Givens layer more than the paper has."""
    real = expert_memory.random_model

    def deeper(shape: Shape) -> object:
        return real(dataclasses.replace(shape, theta_layers=shape.theta_layers + 1) if shape.layers > 1 else shape)

    monkeypatch.setattr(expert_memory, "random_model", deeper)
    paper_memory.packed.cache_clear()
    yield
    paper_memory.packed.cache_clear()


@pytest.mark.usefixtures("deeper_rotations")
def test_a_file_with_other_experts_does_not_match(run: Callable[..., Result]) -> None:
    result = run("paper")
    assert result.status == 1
    assert "DOES NOT MATCH" in result.out
    assert "of 46 rows that should match do" in result.out.splitlines()[-1]


# ---------------------------------------------------------------- experts of a model


def algorithm_1(layer: Rotation, expert: int) -> NDArray[np.float64]:
    """[width, width], written out from the paper's text with the deployed angles."""
    angles = layer.deployed_angles().double().numpy()[expert]
    x = np.eye(layer.padded)[: layer.width]
    for layer_angles in angles:
        even, odd = x[:, 0::2], x[:, 1::2]
        turned = np.empty_like(x)
        turned[:, 0::2] = np.cos(layer_angles) * even - np.sin(layer_angles) * odd
        turned[:, 1::2] = np.sin(layer_angles) * even + np.cos(layer_angles) * odd
        x = np.empty_like(turned)
        x[:, 0::2], x[:, 1::2] = turned[:, : layer.padded // 2], turned[:, layer.padded // 2 :]
    return x[:, : layer.width].T


def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * stats.norm.cdf(x)


def mean_cosines(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """[experts, experts] from [experts, tokens, d_model]."""
    unit = outputs / np.linalg.norm(outputs, axis=-1, keepdims=True)
    return np.einsum("etd,ftd->ef", unit, unit) / outputs.shape[1]


def inputs_of(model: ViT, images: NDArray[np.uint8]) -> tuple[list[NDArray[np.float64]], list[Routing]]:
    """What the experts of each layer get [tokens, d_model], and where it goes, from the torch model."""
    found: list[NDArray[np.float64]] = []
    hooks = [
        block.experts.register_forward_pre_hook(lambda _, a: found.append(a[0].flatten(0, 1).double().numpy()))
        for block in model.blocks
        if isinstance(block, Block)
    ]
    with torch.no_grad():
        _, routings = model.forward_with_routing(torch.from_numpy(images))
    for hook in hooks:
        hook.remove()
    return found, routings


def matrix(quantised: object) -> NDArray[np.float64]:
    values, scales = quantised.integers()  # type: ignore[attr-defined]
    return (values * scales.reshape(-1, 1)).detach().double().numpy()


@pytest.mark.parametrize("seed", [1, 5, 9])
def test_analysis_against_experts_written_out(seed: int) -> None:
    """Similarities, outliers and errors against W_base B(theta_i) as a matrix and the naive forward in binary64."""
    shape = dict(image_height=6, image_width=6, patch_size=2, heads=2, experts=5, top_k=2, rotation_layers=1 + seed % 5)
    model = random_vit(seed, d_model=24, d_ff=40, **shape)
    images = random_images(lower(model), 7, seed)[2:]
    found = analyse(lower(model), images, latent_substrates(model))
    assert found.tokens == 5 * model.config.tokens
    inputs, routings = inputs_of(model, images)
    for block, layer, h, routing in zip(model.blocks, found.layers, inputs, routings, strict=True):
        experts = block.experts
        assert isinstance(experts, ButterflyExperts)
        rotations = [algorithm_1(experts.theta, e) for e in range(5)]
        up = [matrix(experts.substrate) @ rotation for rotation in rotations]
        down = [matrix(experts.down) @ algorithm_1(experts.phi, e) for e in range(5)]
        outputs = np.stack([gelu(h @ up[e].T) @ down[e].T for e in range(5)])
        np.testing.assert_allclose(layer.similarity, mean_cosines(outputs), atol=0.02)  # int8 on the way
        np.testing.assert_allclose(layer.matrix_similarity, mean_cosines(np.stack(up).reshape(5, 1, -1)), atol=1e-5)
        selected = routing.selected.flatten(0, 1).numpy()
        np.testing.assert_allclose(layer.shares, np.bincount(selected.ravel(), minlength=5) / selected.size)
        assert layer.load_balance == pytest.approx(5 * (layer.shares**2).sum())
        assert layer.entropy == pytest.approx(stats.entropy(layer.shares, base=2))
        check_outliers_and_errors(layer, experts, h, selected, rotations)


def check_outliers_and_errors(layer, experts, h, selected, rotations) -> None:  # type: ignore[no-untyped-def]
    pairs = [(token, e) for token in range(len(h)) for e in selected[token]]
    rotated = np.stack([rotations[e] @ h[token] for token, e in pairs])
    assert layer.before.kurtosis == pytest.approx(stats.kurtosis(h, axis=1).mean(), rel=1e-4)
    assert layer.after.kurtosis == pytest.approx(stats.kurtosis(rotated, axis=1).mean(), rel=1e-4)
    magnitude = np.abs(rotated)
    assert layer.after.peak == pytest.approx((magnitude.max(1) / np.median(magnitude, 1)).mean(), rel=1e-4)
    assert layer.after.peak_of_all == pytest.approx(magnitude.max() / np.median(magnitude), rel=1e-4)

    weight = experts.substrate.weight.detach().double().numpy()
    rotated_error = static_error = length = 0.0
    for token, e in pairs:
        written_out = weight @ rotations[e]
        exact = written_out @ h[token]
        length += exact @ exact
        rotated_error += ((absmean(weight) @ rotations[e] @ h[token] - exact) ** 2).sum()
        static_error += ((absmean(written_out) @ h[token] - exact) ** 2).sum()
    assert layer.ternary_error.rotated == pytest.approx(rotated_error / length, rel=1e-4)
    assert layer.ternary_error.static == pytest.approx(static_error / length, rel=1e-2)  # a weight may fall otherwise


def absmean(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    trits, gamma = ternary(torch.from_numpy(weight).float())
    return (trits * gamma).double().numpy()


def test_standard_experts_against_their_matrices() -> None:
    model = random_vit(3, feed_forward="standard", d_model=16, d_ff=24, heads=2, experts=4, top_k=2)
    images = np.random.default_rng(3).integers(0, 256, (6, *shape_of(model.config).image_shape), np.uint8)
    found = analyse_standard(model, images)
    inputs, routings = inputs_of(model, images)
    for block, layer, h, routing in zip(model.blocks, found.layers, inputs, routings, strict=True):
        up, down = block.experts.up.detach().double().numpy(), block.experts.down.detach().double().numpy()
        outputs = np.stack([gelu(h @ up[e].T) @ down[e].T for e in range(4)])
        np.testing.assert_allclose(layer.similarity, mean_cosines(outputs), atol=0.02)
        np.testing.assert_allclose(layer.matrix_similarity, mean_cosines(up.reshape(4, 1, -1)), atol=1e-5)
        counts = np.bincount(routing.selected.numpy().ravel(), minlength=4)
        np.testing.assert_allclose(layer.shares, counts / counts.sum())
        assert (layer.after, layer.ternary_error) == (None, None)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_the_routing_of_an_image_is_the_models(pooling: str) -> None:
    model = random_vit(4, pooling=pooling, image_height=6, image_width=4, patch_size=2, experts=6, top_k=3)
    image = np.random.default_rng(4).integers(0, 256, (6, 4, model.config.channels), np.uint8)
    found = route_image(lower(model), image)
    with torch.no_grad():
        _, routings = model.forward_with_routing(torch.from_numpy(image[None]))
    for layer, routing in enumerate(routings):
        np.testing.assert_array_equal(found.selected[layer], routing.selected[0].numpy())
        np.testing.assert_array_equal(found.weights[layer], routing.weights[0].numpy())
        last_patch = routing.selected[0, -1].tolist()
        assert found.of_patches(layer).shape == (3, 2, 3)
        assert found.of_patches(layer)[2, 1].tolist() == last_patch


def test_shares_are_of_all_tokens_and_the_rest_of_a_sample() -> None:
    shape = dict(image_height=8, image_width=8, patch_size=1, d_model=4, heads=1, layers=1, rotation_layers=1)
    model = random_lowered(2, experts=2, top_k=1, **shape)
    images = random_images(model, 40, 1)
    found = analyse(model, images)
    assert found.tokens == MOST_TOKENS < 40 * model.shape.tokens
    (layer,) = found.layers
    routes = np.concatenate([route_image(model, image).selected for image in images], axis=None)
    np.testing.assert_allclose(layer.shares, np.bincount(routes, minlength=2) / len(routes))
    again = analyse(model, images)
    np.testing.assert_array_equal(again.layers[0].similarity, layer.similarity)


# ---------------------------------------------------------------- command line


SMALL = dict(image_height=4, image_width=4, channels=1, patch_size=2, d_model=12, d_ff=20, heads=2, layers=2)
SMALL |= dict(classes=3, experts=4, top_k=2, rotation_layers=2, pooling="class", projection_weights="int8")


@pytest.fixture
def quick(recomputed: Recomputed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claims are computed once for all tests."""
    monkeypatch.setattr(paper, "recompute", lambda: recomputed)


def write_checkpoint(folder: Path, **fixed: object) -> Path:
    path = folder / "m.pt"
    save_checkpoint(path, Checkpoint(random_vit(3, **SMALL | fixed), ("a", "b", "c")))
    return path


@pytest.mark.usefixtures("quick")
def test_claims_on_the_command_line(run: Callable[..., Result], recomputed: Recomputed) -> None:
    result = run("paper")
    assert result.status == 0, result.err
    assert result.out.splitlines()[-1] == "46 of 46 rows that should match do; 18 contradictions in the papers"
    for text in ("2.656 MB", "353.7", "622.5", "contradiction: ", "esp32-s3"):
        assert text in result.out


@pytest.mark.usefixtures("quick")
def test_json_says_the_same_of_a_checkpoint_and_its_file(run: Callable[..., Result], tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path)
    file = tmp_path / "m.bfe"
    file.write_bytes(pack(lower(random_vit(3, **SMALL))))
    of_checkpoint, of_file = (json.loads(run("paper", p, "--images", 8, "--json").out)["model"] for p in (path, file))
    assert of_checkpoint["images"] == of_file["images"] == 8
    for one, other in zip(of_checkpoint["layers"], of_file["layers"], strict=True):
        assert one.pop("ternary_error")["static"] > 0
        assert other.pop("ternary_error") is None
        assert one == other
    claims = json.loads(run("paper", "--json").out)
    assert claims["model"] is None
    assert sum(claim["must_match"] for claim in claims["claims"]) == claims["should_match"] == 46


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("fixed", "expected"), [({"experts": 1, "top_k": 1}, "n/a"), ({"feed_forward": "standard"}, "0.10")]
)
def test_models_without_a_rotated_pair_of_experts(
    run: Callable[..., Result], tmp_path: Path, fixed: dict, expected: str
) -> None:
    result = run("paper", write_checkpoint(tmp_path, **fixed), "--images", 4)
    assert result.status == 0, result.err
    assert expected in next(line for line in result.out.splitlines() if "similarity of experts" in line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pt"], "no checkpoint"),
        (["missing.bfe"], "missing.bfe"),
        (["broken.bfe"], "broken.bfe|magic|not a"),
        (["dense.pt"], "dense feed-forward"),
        (["m.pt", "--data", "digits"], "digits"),
        (["m.pt", "--data", "nowhere"], "nowhere"),
        (["--images", "4"], "MODEL"),
        (["--data", "digits"], "MODEL"),
        (["m.pt", "--images", "0"], "--images"),
    ],
)
def test_mistakes_are_one_line(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path, feed_forward="dense").rename("dense.pt")
    write_checkpoint(tmp_path)
    Path("broken.bfe").write_bytes(pack(random_lowered(1))[:300])
    result = run("paper", *arguments)
    assert result.status == 1
    assert result.out == ""
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert any(part in errors[0] for part in message.split("|")), result.err

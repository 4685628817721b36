"""The C runtime against the NumPy reference: the same bits, whatever the compiler, the optimisation and the tile."""

from __future__ import annotations

import ctypes
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfedge.config import padded_width
from bfedge.device.host import HostModel, Model, aligned_buffer, load_library
from bfedge.lowered import reference
from bfedge.lowered.model import Int8Matrix, LoweredViT, Shape
from bfedge.measure.verify import first_differing_stage
from bfedge.packed.golden import golden_vectors
from bfedge.packed.writer import pack
from tests.random_models import random_config, random_images, random_lowered

RANDOM_MODELS = 200


def bits(values: np.ndarray) -> bytes:
    return values.astype(np.float32).tobytes()


def test_the_random_models_cover_what_they_should() -> None:
    configs = [random_config(seed) for seed in range(RANDOM_MODELS)]
    assert {c.top_k for c in configs} == {1, 2, 3, 4}
    assert {c.experts for c in configs} == set(range(1, 17))
    assert {c.pooling for c in configs} == {"mean", "class"}
    assert {c.projection_weights for c in configs} == {"int8", "ternary"}
    assert {c.angles for c in configs} == {"float16", "int8"}
    for name in ("d_model", "d_ff"):
        powers = {getattr(c, name) == padded_width(getattr(c, name)) for c in configs}
        assert powers == {True, False}
    assert any(c.rotation_layers == 1 for c in configs)
    full = [c for c in configs if c.theta_layers == padded_width(c.d_model).bit_length() - 1]
    assert len(full) > 20
    grids = [(c.image_height // c.patch_size, c.image_width // c.patch_size) for c in configs]
    assert sum(rows % 2 == 1 and columns % 2 == 1 and rows != columns for rows, columns in grids) > 5
    assert (1, 1) in grids


@pytest.mark.parametrize("seed", range(30))
def test_installed_runtime_gives_the_reference_bits(seed: int) -> None:
    model = random_lowered(seed)
    images = random_images(model, 3, seed)
    runtime = HostModel(pack(model))
    expected = reference.run(model, images)
    for image, logits in zip(images, expected, strict=True):
        for tile in (0, 1, 2, 1000):
            assert bits(runtime.run(image, tile)) == bits(logits)


@pytest.mark.slow
def test_every_build_gives_the_reference_bits_on_200_random_models(runtime_builds: dict[str, Path]) -> None:
    """gcc and clang (or zig), -O0 and -O3."""
    assert len(runtime_builds) == 4
    different = []
    for seed in range(RANDOM_MODELS):
        model = random_lowered(seed)
        images = random_images(model, 3, seed)
        expected = reference.run(model, images)
        data = pack(model)
        for name, library in runtime_builds.items():
            runtime = HostModel(data, library)
            tile = seed % (model.shape.tokens + 1)
            different += [
                (seed, name)
                for image, logits in zip(images, expected, strict=True)
                if bits(runtime.run(image, tile)) != bits(logits)
            ]
    assert different == []


@pytest.mark.slow
def test_a_wide_model_gives_the_reference_bits(runtime_builds: dict[str, Path]) -> None:
    """Wider than binary32 can sum int8 products exactly, full rotation depth."""
    model = random_lowered(
        11, d_model=192, d_ff=1500, heads=3, layers=1, experts=5, top_k=2, rotation_layers=8, classes=3
    )
    images = random_images(model, 2, 11)
    expected = reference.run(model, images)
    for library in runtime_builds.values():
        runtime = HostModel(pack(model), library)
        assert [bits(runtime.run(image)) for image in images] == [bits(logits) for logits in expected]


@pytest.mark.parametrize("seed", range(12))
def test_the_workspace_is_exact(seed: int) -> None:
    """Refused one byte below the stated size; at the stated size nothing beyond it is touched."""
    model = random_lowered(seed)
    runtime = HostModel(pack(model))
    library = load_library()
    image = random_images(model, 1, seed)[0]
    logits = np.zeros(model.shape.classes, np.float32)
    for tile in (0, 1):
        need = runtime.workspace_bytes(tile)
        workspace = aligned_buffer(need + 64)
        workspace[:] = 0xA5

        def run(size: int, workspace: np.ndarray = workspace) -> int:
            status: int = library.bfe_run(
                ctypes.byref(runtime.model), None, workspace.ctypes.data, size, image.ctypes.data, logits.ctypes.data
            )
            return status

        if tile == 0:
            assert runtime.status_text(run(need - 1)) == "workspace too small"
            assert (workspace == 0xA5).all()
            assert run(need) == 0
            assert (workspace[need:] == 0xA5).all()
            assert bits(logits) == bits(reference.run(model, image[None])[0])
    assert runtime.workspace_bytes(1) <= runtime.workspace_bytes(0)


def test_golden_vectors_and_labels_are_found_in_place() -> None:
    model = random_lowered(4)
    golden = golden_vectors(model, random_images(model, 3, 4))
    runtime = HostModel(pack(model, golden))
    assert runtime.model.golden_count == 3
    library = load_library()
    pixels, expected = ctypes.c_void_p(), ctypes.POINTER(ctypes.c_float)()
    for case in range(3):
        assert library.bfe_golden(ctypes.byref(runtime.model), case, ctypes.byref(pixels), ctypes.byref(expected)) == 0
        assert bits(np.ctypeslib.as_array(expected, (model.shape.classes,))) == bits(golden.outputs[case])
    status = library.bfe_golden(ctypes.byref(runtime.model), 3, ctypes.byref(pixels), ctypes.byref(expected))
    assert runtime.status_text(status) == "bad argument"


def test_calls_with_wrong_arguments_are_refused() -> None:
    model = random_lowered(1)
    runtime = HostModel(pack(model))
    library = load_library()
    data = aligned_buffer(64)
    assert runtime.status_text(library.bfe_open(None, data.ctypes.data, 64, None)) == "bad argument"
    assert runtime.status_text(library.bfe_open(ctypes.byref(Model()), None, 64, None)) == "bad argument"
    status = library.bfe_open(ctypes.byref(Model()), data.ctypes.data + 1, 32, None)
    assert runtime.status_text(status) == "misaligned"
    with pytest.raises(ValueError, match="image is"):
        runtime.run(np.zeros((1, 1, 1), np.uint8))


def test_the_first_differing_stage_is_named() -> None:
    """A runtime that is given another model's weights leaves the reference where the weights differ."""
    model = random_lowered(9, layers=3)
    other = random_lowered(9, layers=3)
    block = other.blocks[1]
    changed = block.experts.router.values.copy()
    changed[:] = np.roll(changed, 1)
    bias = block.proj.bias + np.float32(0.5)
    blocks = list(other.blocks)
    blocks[1] = type(block)(**{**vars(block), "proj": type(block.proj)(block.proj.weight, bias)})
    altered = type(other)(**{**vars(other), "blocks": tuple(blocks)})
    image = random_images(model, 3, 9)[2]
    assert first_differing_stage(model, HostModel(pack(altered)), image) == "block 1 attention"
    assert first_differing_stage(model, HostModel(pack(model)), image) == "no traced stage"


def absurd(model: LoweredViT, bound: float) -> LoweredViT:
    """Every float parameter at the largest magnitude that the format allows, in columns that hardly differ."""

    def stretch(part: Any) -> Any:
        if isinstance(part, np.ndarray) and part.dtype == np.float32:
            return np.copysign(np.float32(bound), part)
        if isinstance(part, np.float32):
            return np.float32(bound)
        if isinstance(part, Int8Matrix):
            rows = np.where(part.values[:1] >= 0, 127, -127).astype(np.int8)
            values = np.repeat(rows, len(part.values), axis=0)
            scales = np.where(np.arange(len(values)) % 2, np.float32(bound), np.float32(bound * (1 - 1 / 5000)))
            return Int8Matrix(values, scales.astype(np.float32))
        if isinstance(part, tuple):
            return tuple(map(stretch, part))
        if dataclasses.is_dataclass(part) and not isinstance(part, Shape):
            fields = dataclasses.fields(part)
            return type(part)(**{f.name: stretch(getattr(part, f.name)) for f in fields})
        return part

    stretched: LoweredViT = stretch(model)
    return stretched


@pytest.mark.parametrize("seed", range(12))
def test_the_largest_weights_that_the_format_allows_stay_finite(seed: int) -> None:
    """NUMERICS.md, section 13. LayerNorm once amplified columns that differ by less than its integers can see."""
    model = absurd(random_lowered(seed, layers=3), 1024.0)
    images = random_images(model, 3, seed)
    stages: list[bool] = []
    with np.errstate(over="ignore"):
        expected = reference.run(model, images, lambda *stage: stages.append(bool(np.isfinite(stage[2]).all())))
    assert all(stages)
    runtime = HostModel(pack(model))
    assert [bits(runtime.run(image)) for image in images] == [bits(logits) for logits in expected]

"""The reference's bits from every set of kernels that this machine has, for every tile, and any number of threads."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bfedge.device.compiler import compile_program, find_target_compiler, runtime_sources
from bfedge.device.host import IN_PLACE, REARRANGED, HostModel, aligned_buffer, usable_kernels
from bfedge.device.profile import load_profile
from bfedge.errors import BfedgeError
from bfedge.packed.golden import Golden, golden_vectors
from bfedge.packed.writer import pack
from tests.random_models import random_images, random_lowered

RANDOM_MODELS = 40


@cache
def packed_with_golden(seed: int) -> tuple[bytes, Golden]:
    model = random_lowered(seed)
    return pack(model), golden_vectors(model, random_images(model, 3, seed))


def check_bits(seed: int, kernels: str, tile: int, threads: int) -> None:
    packed, golden = packed_with_golden(seed)
    runtime = HostModel(packed, kernels=kernels, threads=threads)
    for image, expected in zip(golden.inputs, golden.outputs, strict=True):
        assert runtime.run(image, tile).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kernels", usable_kernels())
def test_random_models_give_the_reference_bits_with_every_set_of_kernels(kernels: str) -> None:
    for seed in range(RANDOM_MODELS):
        check_bits(seed, kernels, tile=seed % 4, threads=1)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("kernels", [IN_PLACE, REARRANGED])
def test_random_models_give_the_reference_bits_with_any_number_of_threads(kernels: str, threads: int) -> None:
    for seed in range(RANDOM_MODELS):
        check_bits(seed, kernels, tile=seed % 3, threads=threads)


@pytest.mark.parametrize("kernels", usable_kernels())
def test_wider_models_too(kernels: str) -> None:
    """Batches of columns that are full, and rows enough for every block of them."""
    shape = dict(image_height=12, image_width=12, patch_size=2, channels=3, d_model=96, d_ff=160, heads=3, experts=12)
    model = random_lowered(7, **shape, top_k=3, layers=1, classes=37)
    golden = golden_vectors(model, random_images(model, 2, 7))
    for threads in (1, 2):
        runtime = HostModel(pack(model), kernels=kernels, threads=threads)
        assert runtime.run(golden.inputs[1]).tobytes() == golden.outputs[1].tobytes()


@pytest.mark.parametrize("kernels", usable_kernels())
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_workspace_is_what_is_used_and_not_a_byte_more(kernels: str, threads: int) -> None:
    """As the device program measures it: what a run has changed of two colours."""
    for seed in range(12):
        packed, golden = packed_with_golden(seed)
        image = golden.inputs[2]
        runtime = HostModel(packed, kernels=kernels, threads=threads)
        for tile in (0, 1, 3):
            stated = runtime.workspace_bytes(tile)
            used = 0
            for colour in (0xA5, 0x5A):
                workspace = aligned_buffer(stated + 64)
                workspace[:] = colour
                runtime.run_in(workspace[:stated], image, tile)
                assert (workspace[stated:] == colour).all()
                used = max(used, int(np.flatnonzero(workspace != colour)[-1]) + 1)
            assert -(-used // 16) * 16 == stated


def test_kernels_that_are_not_there_are_refused() -> None:
    with pytest.raises(BfedgeError, match="this machine has no kernels `avx9`") as refused:
        HostModel(pack(random_lowered(0)), kernels="avx9")
    assert "tables" in str(refused.value.hint)


def test_the_fastest_kernels_of_this_processor_are_the_default() -> None:
    runtime = HostModel(pack(random_lowered(0)))
    assert runtime.kernels == usable_kernels()[0]
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if " avx2" in flags:
        assert runtime.kernels in ("avx2", "avx512vnni")
        assert runtime.prepared_bytes > 0
    if " avx512_vnni" in flags:
        assert runtime.kernels == "avx512vnni"
    assert HostModel(pack(random_lowered(0)), kernels=IN_PLACE).prepared_bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("board", "kernels"),
    [
        ("jetson-nano", ["neon", "tables", "tiles", "c"]),
        ("raspberry-pi-5", ["dotprod", "neon", "tables", "tiles", "c"]),
        ("raspberry-pi-zero", ["dsp", "tables", "tiles", "c"]),
    ],
)
def test_every_set_of_kernels_of_an_emulated_board(board: str, kernels: list[str], tmp_path: Path) -> None:
    profile = load_profile(board)
    assert profile.emulate is not None
    emulator = shutil.which(profile.emulate.program)
    if emulator is None:
        pytest.skip(f"`{profile.emulate.program}` is not installed (apt: {profile.emulate.package})")
    program = tmp_path / "bfedge-device"
    compile_program(find_target_compiler(profile), runtime_sources(), program, board)
    for seed in range(8):
        model = random_lowered(seed)
        (tmp_path / "model.bfe").write_bytes(pack(model, golden_vectors(model, random_images(model, 3, seed))))
        for name in kernels:
            for threads in ("1", "2"):
                options = ["--kernels", name, "--threads", threads]
                words = [*options, "model.bfe", "1 hello", "2 golden 2 0", "3 golden 1 1"]
                command = [emulator, *profile.emulate.arguments, str(program), *words]
                result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
                assert result.returncode == 0, (seed, name, threads, result.stdout, result.stderr)
                assert f'"kernels":"{name}"' in result.stdout
                assert f'"workers":{threads}' in result.stdout
                assert result.stdout.count('"differing":0') == 2

"""Every board under emulation gives the reference's bits, on random models: sources, program and protocol are those of
the real board.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as replace_struct

from bfedge.cli.bench import count_instructions
from bfedge.device.board import Line, open_board
from bfedge.device.exported import Exported, read_exported, sha256
from bfedge.device.fit import fit, needs_of
from bfedge.device.host import IN_PLACE, HostModel, kernels_on
from bfedge.device.profile import Quantity, known_profiles, load_profile
from bfedge.errors import BfedgeError
from bfedge.export.folder import Source, export_folder
from bfedge.measure.board import check_board, check_images
from bfedge.measure.board_profile import profile_board
from bfedge.packed.golden import golden_vectors
from bfedge.packed.outline import outline_of
from bfedge.packed.writer import pack
from tests.random_models import random_images, random_lowered

pytestmark = pytest.mark.slow

RANDOM_MODELS = 20
EMULATED = [profile.name for profile in known_profiles() if profile.emulate is not None]
NEEDS = {"esp32-s3": ("xtensa-lx106-elf-gcc", "gcc-xtensa-lx106")}
"""Programs besides the emulator, and Debian's packages of them"""


def test_every_board_of_the_papers_has_an_emulator() -> None:
    assert set(EMULATED) == {
        *("jetson-nano", "raspberry-pi-zero", "raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5"),
        *("esp32-s3", "nano33-ble"),
    }


@pytest.fixture(scope="module", params=["host", *EMULATED])
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An export for the board; its model is replaced by each of the random ones."""
    profile = load_profile(request.param)
    needed = [(profile.emulate.program, profile.emulate.package)] if profile.emulate else []
    for program, package in [*needed, NEEDS.get(profile.name, ("cc", "gcc"))]:
        if shutil.which(program) is None:
            pytest.skip(f"`{program}` is not installed (apt: {package})")
    folder = tmp_path_factory.mktemp(profile.name) / "export"
    source = tmp_path_factory.mktemp("source") / "random.bfe"
    model = random_lowered(0)
    source.write_bytes(pack(model))
    export_folder(model, random_images(model, 3, 0), Source(source, "noise"), folder, profile)
    return read_exported(folder)


def with_model(board: Exported, seed: int, folder: Path) -> tuple[Exported, bytes, HostModel]:
    """The same export with another model; Linux boards read it from a file, firmware is linked with it."""
    model = random_lowered(seed)
    packed = pack(model, golden_vectors(model, random_images(model, 3, seed)))
    runtime = HostModel(packed, kernels=kernels_on(board.profile))
    tile = fit(board.profile, needs_of(outline_of(packed)), seed % 4 or None).tile
    copy = folder / f"{seed}"
    copy.mkdir()
    for name in ("runtime", "bfedge-device"):
        if (board.folder / name).exists():
            (copy / name).symlink_to(board.folder / name)
    (copy / "model.bfe").write_bytes(packed)
    files = board.files | {"model.bfe": sha256(copy / "model.bfe")}
    changed = replace(board, folder=copy, tile=tile, arena_bytes=runtime.arena_bytes(tile), files=files)
    return changed, packed, runtime


@pytest.fixture
def line(board: Exported) -> Line:
    return Line(emulate=board.profile.name != "host")


def test_twenty_random_models_give_the_reference_bits(board: Exported, line: Line, tmp_path: Path) -> None:
    """Golden vectors on the board, and images that are sent to it; workspace as planned, stack within its bound."""
    wrong: list[tuple[int, str, str]] = []
    for seed in range(RANDOM_MODELS):
        exported, packed, runtime = with_model(board, seed, tmp_path)
        model = random_lowered(seed)
        golden = golden_vectors(model, random_images(model, 3, seed))
        images = golden_vectors(model, random_images(model, 2, seed + 100))
        with open_board(exported, line) as opened:
            checks = list(check_board(opened, exported, packed, golden, runtime, lambda items, _: items))
            checks.append(
                check_images(opened.session, images.inputs, images.outputs, exported.tile, lambda items, _: items)
            )
        assert len(checks) == 6
        wrong += [(seed, check.name, check.detail) for check in checks if not check.passed]
    assert wrong == []


def test_executed_instructions_are_counted_by_stage_and_repeatable(board: Exported, line: Line, tmp_path: Path) -> None:
    exported, _, _ = with_model(board, 3, tmp_path)
    layers = random_lowered(3).shape.layers
    found = []
    for _ in range(2):
        with open_board(exported, line, counting=True) as opened:
            found.append(profile_board(opened, exported.tile))
    first, second = found
    assert len(first.stages) == 2 + 2 * layers
    assert first.emulated == line.emulate
    if line.emulate:
        assert first.ticks is None
        assert all(stage.instructions > 100 for stage in first.stages)  # type: ignore[operator]
        assert [s.instructions for s in first.stages] == [s.instructions for s in second.stages]
        assert first.instructions == sum(s.instructions or 0 for s in first.stages)
    else:
        assert first.instructions is None
        assert first.ticks is not None
        assert first.ticks > 0
    assert first.model_bytes > len(exported.model.read_bytes()) / 4


def test_a_changed_weight_is_found(board: Exported, line: Line, tmp_path: Path) -> None:
    """The board's golden vectors are another model's: its bits differ, and the check says so."""
    exported, _, _ = with_model(board, 5, tmp_path)
    model, other = random_lowered(5), random_lowered(6)
    golden = golden_vectors(model, random_images(model, 3, 5))
    different = np.roll(golden.outputs, 1, axis=0)
    lying = pack(model, replace(golden, outputs=different))
    assert len(lying) == len(exported.model.read_bytes())
    exported.model.write_bytes(lying)
    with pytest.raises(BfedgeError, match="has not the manifest's SHA-256"), open_board(exported, line):
        pass
    exported = replace(exported, files=exported.files | {"model.bfe": sha256(exported.model)})
    runtime = HostModel(lying, kernels=kernels_on(board.profile))
    with open_board(exported, line) as opened:
        checks = list(check_board(opened, exported, lying, golden, runtime, lambda items, _: items))
        refused = list(check_board(opened, exported, pack(other), golden, runtime, lambda items, _: items))
    assert [check.passed for check in checks] == [True, False, False, True, True]
    assert "3 of 3 cases differ" in checks[1].detail
    assert [check.passed for check in refused] == [False]
    assert "it has another one" in refused[0].detail


@pytest.fixture
def a76_program(tmp_path: Path) -> Exported:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("`qemu-aarch64` is not installed (apt: qemu-user)")
    source = tmp_path / "random.bfe"
    model = random_lowered(0)
    source.write_bytes(pack(model))
    export_folder(
        model, random_images(model, 1, 0), Source(source, "noise"), tmp_path / "export", load_profile("raspberry-pi-5")
    )
    return read_exported(tmp_path / "export")


@pytest.mark.parametrize("older", ["jetson-nano", "raspberry-pi-3", "raspberry-pi-4"])
def test_a_program_for_a_newer_cpu_is_named_as_that(a76_program: Exported, older: str) -> None:
    on_older = replace(a76_program, profile=load_profile(older))
    with pytest.raises(BfedgeError, match="built for a newer CPU"), open_board(on_older, Line(emulate=True)):
        pass


def test_an_emulator_without_plugins_runs_all_the_same(
    a76_program: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of distributions that link it statically: there is no count, and the answer says why."""
    real = shutil.which("qemu-aarch64")
    wrapper = tmp_path / "bin" / "qemu-aarch64"
    wrapper.parent.mkdir()
    complaint = "qemu: unknown option 'plugin'"
    wrapper.write_text(
        f"""#!/bin/sh
case " $* " in *" -plugin "*) echo "{complaint}" >&2; exit 1;; esac
exec {real} "$@"
"""
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    with open_board(a76_program, Line(emulate=True), counting=True) as opened:
        found = profile_board(opened, a76_program.tile)
        with pytest.raises(BfedgeError, match="nothing to measure"):
            count_instructions(opened, a76_program.tile, 1, 1)
    assert found.instructions is None
    assert "can't count instructions" in found.where


def test_a_board_of_ones_own_has_its_own_memories(tmp_path: Path) -> None:
    """On the nRF52840's port, with less RAM: what does not fit is refused by the plan, and by the link."""
    profile = load_profile("nano33-ble")
    flash, sram = profile.memories
    source = tmp_path / "random.bfe"
    model = random_lowered(3)
    source.write_bytes(pack(model))
    needed = HostModel(pack(model), kernels=IN_PLACE).arena_bytes(1)
    size = needed + 1024  # which is less than the stack takes
    small = replace_struct(sram, bytes=Quantity(size, "this test"), usable=Quantity(1.0, "this test"))
    own = replace_struct(profile, name="own", aliases=(), memories=(flash, small))
    with pytest.raises(BfedgeError, match=r"the firmware does not fit on own: it needs [\d,]+ bytes of RAM more"):
        export_folder(model, random_images(model, 1, 0), Source(source, "noise"), tmp_path / "export", own, 1)
    assert not (tmp_path / "export").exists()
    smaller = replace_struct(
        own, memories=(flash, replace_struct(small, usable=Quantity((needed - 1) / size, "this test")))
    )
    with pytest.raises(BfedgeError, match="of RAM with one token at a time; own has 5 KiB of RAM for a model"):
        export_folder(model, random_images(model, 1, 0), Source(source, "noise"), tmp_path / "export", smaller)

"""What the plan says is what the packer writes and the runtime takes, to the byte, on any model and board."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bfedge.bench.random_models import cifar_shape, random_image, random_model
from bfedge.cli import main
from bfedge.config import config_from_dict
from bfedge.device.board import Line, open_board
from bfedge.device.exported import read_exported
from bfedge.device.firmware import XTENSA_GCC
from bfedge.device.fit import fit, needs_of
from bfedge.device.host import IN_PLACE, REARRANGED, HostModel, PlannedModel, aligned_buffer, kernels_on
from bfedge.device.profile import Profile, Quantity, known_profiles, load_profile
from bfedge.errors import BfedgeError
from bfedge.export.folder import Source, export_folder
from bfedge.lowered.model import Shape, shape_of
from bfedge.measure.against_plan import compare
from bfedge.measure.board_profile import profile_board
from bfedge.measure.most_experts import FORMAT_LIMIT, most_experts
from bfedge.measure.plan import plan
from bfedge.measure.target_plan import TargetPlan, plan_target
from bfedge.packed.golden import golden_vectors
from bfedge.packed.outline import Outline, outline, outline_of, with_experts
from bfedge.packed.writer import pack
from tests.random_models import random_config, random_images, random_lowered

BOARDS = [profile.name for profile in known_profiles() if profile.memories]
CIFAR = cifar_shape(64)
"""ButterflyViT's model for CIFAR-100"""


def planned(seed: int) -> Outline:
    """From the configuration alone."""
    config = random_config(seed)
    return outline(
        shape_of(config), "trits3" if seed % 2 else "trits2", config.projection_weights, angles=config.angles
    )


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 300, 50))
def test_the_plan_of_a_configuration_is_what_packer_and_runtime_really_take(first: int) -> None:
    for seed in range(first, first + 50):
        plan_of, packed = planned(seed), pack(random_lowered(seed))
        assert plan_of.file_bytes == len(packed), seed
        assert plan_of.sections == outline_of(packed).sections, seed
        assert sum(plan(plan_of).parts.values()) == len(packed)
        image = np.zeros(plan_of.shape.image_shape, np.uint8)
        for kernels in (IN_PLACE, REARRANGED):
            runtime, model = HostModel(packed, kernels=kernels), PlannedModel(plan_of, kernels)
            assert model.prepared_bytes == runtime.prepared_bytes
            assert model.around_workspace_bytes == runtime.around_workspace_bytes
            tile = int(np.random.default_rng(seed).integers(0, plan_of.shape.tokens + 1))
            stated = model.workspace_bytes(tile)
            assert smallest_workspace(runtime, image, tile, stated) == stated, (seed, kernels, tile)


def smallest_workspace(runtime: HostModel, image: np.ndarray, tile: int, most: int) -> int:
    """Bytes of the smallest workspace that bfe_run does not refuse, grown word by word from 0."""
    options, logits = runtime.options(tile), np.empty(runtime.model.config.classes, np.float32)
    memory = aligned_buffer(most)
    for size in range(0, most + 1, 4):
        status = runtime.library.bfe_run(
            runtime.reference, options, memory.ctypes.data, size, image.ctypes.data, logits.ctypes.data
        )
        if runtime.status_text(status) == "ok":
            return size
        assert runtime.status_text(status) == "workspace too small"
    raise AssertionError(f"refused with {most} bytes")


@pytest.mark.parametrize("seed", range(4))
def test_a_plan_counts_labels_and_golden_vectors(seed: int) -> None:
    model = random_lowered(seed)
    labels = tuple(f"class {i}" for i in range(model.shape.classes))
    model = dataclasses.replace(model, labels=labels)
    packed = pack(model, golden_vectors(model, random_images(model, 3, seed)))
    config = random_config(seed)
    of_file = outline_of(packed)
    of_config = outline(
        shape_of(config),
        "trits3" if seed % 2 else "trits2",
        config.projection_weights,
        labels_bytes=len("\n".join(labels)),
        golden_cases=3,
        angles=config.angles,
    )
    assert of_config == dataclasses.replace(of_file, head=of_config.head)
    assert of_config.file_bytes == len(packed)
    checksum = slice(20, 24)
    assert of_config.head[: checksum.start] == packed[: checksum.start]
    assert of_config.head[checksum.stop :] == packed[checksum.stop : len(of_config.head)]


@pytest.mark.parametrize("seed", range(6))
def test_more_experts_are_planned_as_they_would_be_packed(seed: int) -> None:
    config = random_config(seed, experts=23)
    other = outline_of(pack(random_lowered(seed, experts=7)))
    ternary = "trits3" if seed % 2 else "trits2"
    assert with_experts(other, 23) == outline(
        shape_of(config), ternary, config.projection_weights, angles=config.angles
    )


def test_a_file_of_4_gib_is_refused_in_the_plan() -> None:
    shape = shape_of(config_from_dict({**CIFAR_CONFIG, "d_model": 16384, "d_ff": 16384, "layers": 256}))
    with pytest.raises(BfedgeError, match="less than 4 GiB"):
        outline(shape)


CIFAR_CONFIG: dict[str, Any] = {
    name: getattr(CIFAR, name)
    for name in (
        "image_height",
        "image_width",
        "channels",
        "patch_size",
        "classes",
        "d_model",
        "d_ff",
        "layers",
        "heads",
    )
}


# The whole CIFAR-100 model on an ESP32-S3.


def test_the_cifar_model_fits_an_esp32_s3() -> None:
    board = plan_of(CIFAR, "esp32-s3", tile=1)
    assert board.fits
    flash, sram, psram = board.memories
    assert (flash.size, flash.needed) == (8 * 2**20, outline(CIFAR).file_bytes)
    assert flash.needed <= 5_600_000
    assert sram.contents["workspace"] == board.workspace_bytes <= 320 * 1024
    assert psram.contents == {}
    assert outline(CIFAR, projections="ternary").file_bytes <= 3_000_000


@pytest.mark.slow
def test_the_cifar_model_runs_in_its_planned_workspace() -> None:
    board = plan_of(CIFAR, "esp32-s3", tile=1)
    packed = pack(random_model(CIFAR))
    runtime = HostModel(packed, kernels=IN_PLACE)
    image = random_image(CIFAR)
    guarded = aligned_buffer(board.workspace_bytes + 64)
    guarded[:] = 0xA5
    logits = runtime.run_in(guarded[: board.workspace_bytes], image, tile_tokens=1)
    assert logits.tobytes() == runtime.run(image).tobytes()
    assert (guarded[board.workspace_bytes :] == 0xA5).all()
    with pytest.raises(BfedgeError, match="workspace too small"):
        runtime.run_in(guarded[: board.workspace_bytes - 4], image, tile_tokens=1)


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("qemu-system-xtensa") and shutil.which(XTENSA_GCC)),
    reason="needs QEMU and a compiler for Xtensa (apt: qemu-system-misc, gcc-xtensa-lx106, picolibc-xtensa-lx106-elf)",
)
def test_a_smaller_sibling_runs_in_its_planned_workspace_in_an_emulator(tmp_path: Path) -> None:
    shape = cifar_shape(8, layers=1, d_model=64, d_ff=128)
    planned = plan_of(shape, "esp32-s3", tile=1)
    source = tmp_path / "source"
    source.touch()
    image = random_image(shape)[None]
    export_folder(random_model(shape), image, Source(source, "noise"), tmp_path / "out", load_profile("esp32-s3"), 1)
    exported = read_exported(tmp_path / "out")
    with open_board(exported, Line(emulate=True)) as board:
        found = profile_board(board, exported.tile)
    assert found.tile == 1
    assert found.workspace_used == found.workspace_stated == planned.workspace_bytes
    assert all(compared.agrees for compared in compare(found, exported, exported.model.read_bytes(), Line()))


# Boards.


def plan_of(shape: Shape, target: str, tile: int | None = None) -> TargetPlan:
    model = outline(shape)
    return plan_target(load_profile(target), model, plan(model), "m.bfe", tile)


@pytest.mark.parametrize("target", BOARDS)
def test_a_board_that_fits_has_every_byte_in_a_memory_with_room(target: str) -> None:
    board = plan_of(cifar_shape(8, layers=1, d_model=64, d_ff=128), target)
    assert board.fits
    assert board.problem is None
    held = {what: size for memory in board.memories for what, size in memory.contents.items()}
    assert held["model"] == outline(cifar_shape(8, layers=1, d_model=64, d_ff=128)).file_bytes
    assert held["workspace"] == board.workspace_bytes
    assert ("rearranged weights" in held) == (board.kernels == REARRANGED)
    for memory in board.memories:
        assert memory.needed == sum(memory.contents.values()) <= memory.room <= memory.size
    assert [t.fits for t in board.tiles] == [fits(target, t.tile) for t in board.tiles]


def fits(target: str, tile: int) -> bool:
    try:
        fit(load_profile(target), needs_of(outline(cifar_shape(8, layers=1, d_model=64, d_ff=128))), tile)
    except BfedgeError:
        return False
    return True


def test_a_board_that_does_not_fit_says_by_how_much_and_what_would() -> None:
    board = plan_of(cifar_shape(4000, layers=2, d_model=64, d_ff=128), "nano33")
    assert not board.fits
    assert "nano33-ble has 912 KiB of flash" in str(board.problem)
    assert board.most_experts is not None
    assert f"with {board.most_experts.on_board} experts it would fit" in str(board.hint)
    flash, _ = board.memories
    assert flash.needed > flash.room


@pytest.mark.parametrize("target", BOARDS)
@pytest.mark.parametrize("seed", range(5))
def test_one_expert_more_than_the_most_does_not_fit(target: str, seed: int) -> None:
    profile, model = smaller(load_profile(target), seed), planned(seed)
    most = most_experts(profile, model)
    assert most is not None

    def fits(experts: int) -> bool:
        try:
            fit(profile, needs_of(with_experts(model, experts)), None)
        except BfedgeError:
            return False
        return True

    if most.on_board == 0:
        assert not fits(model.shape.top_k)
    else:
        assert fits(most.on_board)
        assert most.on_board == FORMAT_LIMIT or not fits(most.on_board + 1)
    assert (most.in_sram is None) == (kernels_on(profile) == REARRANGED or profile.name == "raspberry-pi-zero")
    if most.in_sram:
        sram = sum(m.room for m in profile.memories if m.kind == "sram")
        one_more = with_experts(model, most.in_sram + 1)
        need = needs_of(one_more)(profile)
        assert need.model + need.working(1) > sram


def smaller(profile: Profile, seed: int) -> Profile:
    """The same board with so little memory that tiny models fill it."""
    share = Quantity(float(np.random.default_rng(seed).uniform(0.00001, 0.05)), "test")
    memories = tuple(
        msgspec.structs.replace(m, usable=Quantity(min(1, share.value * 2**18 / m.bytes.value), "test"))
        for m in profile.memories
    )
    return msgspec.structs.replace(profile, memories=memories)


def test_time_is_estimated_only_where_a_rate_was_measured() -> None:
    assert plan_of(CIFAR, "esp32-s3").milliseconds is None
    profile = load_profile("jetson")
    rate = Quantity(2e9, "measured on the board on my desk")
    rated = msgspec.structs.replace(profile, cpu=msgspec.structs.replace(profile.cpu, instructions_per_s=rate))
    model = outline(CIFAR)
    board = plan_target(rated, model, plan(model), "m.bfe")
    assert board.estimate is not None
    assert board.milliseconds == board.estimate.instructions / 2e6
    assert board.rate_source == rate.source


@pytest.mark.parametrize("tile", [1, 8, 30, 31, 32, 64, 0])
def test_the_table_of_tiles_says_what_asking_for_one_says(tile: int) -> None:
    """On an ESP32-S3, where some fit the SRAM and all the PSRAM."""
    board = plan_of(CIFAR, "esp32-s3", tile=tile)
    assert board.fits
    home = next(memory.name for memory in board.memories if "workspace" in memory.contents)
    assert home == ("SRAM" if 0 < tile <= 30 else "PSRAM")
    listed = {size.tile: (size.memory, size.workspace_bytes) for size in board.tiles}
    if tile in listed:
        assert listed[tile] == (home, board.workspace_bytes)


def random_board(seed: int) -> Profile:
    """Up to four memories of a few KiB, each for the model, the workspace or both."""
    r = np.random.default_rng(seed)
    holds = [["model"], ["workspace"], ["model", "workspace"]]
    chosen = [holds[2], *(holds[int(r.integers(3))] for _ in range(int(r.integers(1, 4))))]
    r.shuffle(chosen)
    memories = [
        {
            "name": f"memory {index}",
            "kind": str(r.choice(["sram", "flash", "psram", "dram"])),
            "holds": held,
            "bytes": {"value": int(r.integers(1000, 40_000)), "source": "test"},
            "usable": {"value": 1, "source": "test"},
        }
        for index, held in enumerate(chosen)
    ]
    cpu = {"name": "c", "machine": str(r.choice(["m", "x86_64"]))}
    return msgspec.convert({"name": "b", "title": "t", "port": "posix", "cpu": cpu, "memories": memories}, Profile)


def fits_somewhere(profile: Profile, outline: Outline, tile: int) -> bool:
    """By trying all pairs of homes."""
    need = needs_of(outline)(profile)
    sizes = {"model": need.model, "workspace": need.working(tile)}
    return any(
        sum(sizes.values()) <= a.room if a is b else sizes["model"] <= a.room and sizes["workspace"] <= b.room
        for a in profile.memories_that_hold("model")
        for b in profile.memories_that_hold("workspace")
    )


@pytest.mark.parametrize("seed", range(60))
def test_verdict_tiles_and_most_experts_on_boards_with_any_memories(seed: int) -> None:
    profile, model = random_board(seed), planned(seed)
    board = plan_target(profile, model, plan(model), "m.bfe")
    assert board.fits == fits_somewhere(profile, model, 1)
    assert all(size.fits == fits_somewhere(profile, model, size.tile) for size in board.tiles)
    assert board.most_experts is not None
    most = board.most_experts.on_board
    assert most == 0 or fits_somewhere(profile, with_experts(model, most), 1)
    assert not fits_somewhere(profile, with_experts(model, max(most + 1, model.shape.top_k)), 1)
    if board.hint and "experts it would fit" in board.hint:
        assert model.shape.top_k <= board.most_experts.on_board < model.shape.experts
    tile = int(np.random.default_rng(seed).integers(1, model.shape.tokens + 1))
    asked = plan_target(profile, model, plan(model), "m.bfe", tile)
    assert asked.fits == fits_somewhere(profile, model, tile)
    assert asked.most_experts is not None
    if asked.hint and "experts it would fit" in asked.hint:
        assert fits_somewhere(profile, with_experts(model, asked.most_experts.on_board), tile)


@pytest.mark.slow
def test_the_most_experts_of_a_nano_33_are_really_exported(tmp_path: Path) -> None:
    """They fill the flash behind Arduino's bootloader; behind a larger one there is no room, and no .uf2 is written."""
    most = plan_of(cifar_shape(8, layers=1), "nano33").most_experts
    assert most is not None
    shape = cifar_shape(most.on_board, layers=1)
    source = tmp_path / "source"
    source.touch()
    lowered, profile = random_model(shape), load_profile("nano33")
    packed = pack(lowered)
    assert needs_of(outline_of(packed))(profile).model <= profile.memories[0].room
    fewer = random_model(cifar_shape(most.on_board - 2, layers=1))  # room for a golden vector
    manifest = export_folder(fewer, random_image(shape)[None], Source(source, "noise"), tmp_path / "out", profile, 4)
    assert "firmware.hex" in manifest["files"]
    assert "firmware.uf2" not in manifest["files"]
    assert any("no firmware.uf2" in note for note in manifest["notes"])


# The command.


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main.run(["plan", *arguments, "--json"]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_a_description_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "--d-model", "256", "--experts", "64")
    assert found["file_bytes"] == outline(CIFAR).file_bytes
    assert [board["target"] for board in found["boards"]] == BOARDS
    found = as_json(
        capsys, "--experts", "64", "--projection-weights", "ternary", "--ternary", "base3", "--target", "esp32"
    )
    assert found["file_bytes"] == outline(CIFAR, "trits3", "ternary").file_bytes
    assert [board["target"] for board in found["boards"]] == ["esp32-s3"]
    found = as_json(capsys, "--experts", "64", "--angles", "int8", "--target", "esp32")
    assert found["file_bytes"] == outline(CIFAR, angles="int8").file_bytes
    assert outline(CIFAR).file_bytes - found["file_bytes"] == 7 * 64 * 2 * (128 + 512)  # a byte an angle


def test_golden_vectors_are_planned_as_they_are_exported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = random_model(cifar_shape(4, layers=1, d_model=64, d_ff=128))
    path = tmp_path / "m.bfe"
    path.write_bytes(pack(model))
    own = as_json(capsys, str(path))
    assert own["file_bytes"] == path.stat().st_size
    with_eight = as_json(capsys, str(path), "--golden", "8")
    images = np.random.default_rng(0).integers(0, 256, (8, *model.shape.image_shape), np.uint8)
    assert with_eight["file_bytes"] == len(pack(model, golden_vectors(model, images)))
    assert with_eight["parts"]["golden vectors"] == 8 * (32 * 32 * 3 + 4 * 100)
    assert main.run(["plan", str(path)]) == 0
    added = with_eight["file_bytes"] - own["file_bytes"]
    assert f"`bfedge export` adds 8, {added:,} bytes" in capsys.readouterr().out


def test_all_boards_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["plan", "--experts", "64"]) == 0
    shown = capsys.readouterr().out
    rows = {
        line.split()[0]: line.split()[1]
        for line in shown.splitlines()
        if line.split()[:1] and line.split()[0] in BOARDS
    }
    assert rows == {board: "no" if board == "nano33-ble" else "yes" for board in BOARDS}
    assert main.run(["plan", "--experts", "64", "--target", "all"]) == 0
    detailed = capsys.readouterr().out
    assert all(load_profile(board).title in detailed for board in BOARDS)


def test_a_model_that_does_not_fit_is_planned_and_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["plan", "--experts", "64", "--target", "nano33", "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["boards"][0]["fits"] is False
    assert "error: the model is 5,465 KiB; nano33-ble has 912 KiB of flash for a model" in shown.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "name a MODEL, or describe one"),
        (["m.bfe", "--experts", "4"], "a MODEL has its own widths"),
        (["m.bfe", "--ternary", "base3"], "--ternary base3 is for checkpoints"),
        (["--experts", "0"], "experts is 0; it must be 1 to 4096"),
        (["--experts", "1"], "top_k 2 is more than the 1 experts"),
        (["--d-model", "7"], "not a multiple of heads"),
        (["--image", "32"], "--image is height x width x channels"),
        (["--image", "33x32"], "33 is not a multiple of patch_size"),
        (["--rotation-layers", "some"], "must be a number, or `full`"),
        (["--rotation-layers", "9"], "allow 1 to 8"),
        (["--d-model", "16384", "--d-ff", "16384", "--layers", "256"], "less than 4 GiB"),
        (["--experts", "8", "--target", "toaster"], "no board `toaster`"),
    ],
)
def test_bad_descriptions_are_one_clear_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["plan", *arguments]) == 1
    err = capsys.readouterr().err
    assert complaint in err
    assert "Traceback" not in err
    assert err.count("error: ") == 1

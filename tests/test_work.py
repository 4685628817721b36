"""The plan's work - multiply-adds, bytes of weights, estimates - against what the runtime and the emulators count."""

from __future__ import annotations

import dataclasses
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bfedge.config import Angles
from bfedge.device.host import IN_PLACE, REARRANGED, HostModel, TraceCallback, aligned_buffer
from bfedge.device.profile import Profile, load_profile, profile_folder
from bfedge.errors import BfedgeError
from bfedge.lowered.model import Shape
from bfedge.measure import estimate as estimates
from bfedge.measure.estimate import estimate, recorded, recorded_program
from bfedge.measure.operations import operations
from bfedge.measure.work import (
    even_routing,
    experts_used,
    fewest_experts_used,
    model_bytes,
    most_experts_used,
    multiply_adds,
    stages,
)
from bfedge.packed.outline import outline, outline_of
from bfedge.packed.writer import pack
from tests.estimates import (
    UPDATE,
    compiler_of,
    count_board,
    exported_firmware,
    limits_of,
    sizes_of_all,
    subjects,
)
from tests.fixed_models import CIFAR_BLOCK, DIGITS
from tests.random_models import random_images, random_lowered
from tests.samples import held_out_samples, routing_of


def counted_bytes(runtime: HostModel, image: NDArray[np.uint8], tile: int) -> list[int]:
    """By stage, by the runtime's own counters."""
    found: list[int] = []
    trace = TraceCallback(lambda _, event: found.append(event.contents.model_bytes))
    runtime.run_in(aligned_buffer(runtime.workspace_bytes(tile)), image, tile, trace)
    return found


def test_bytes_of_weights_are_what_the_runtime_counts() -> None:
    """Stage by stage, for 150 random models, in both layouts, with random tiles."""
    for seed in range(150):
        model = random_lowered(seed)
        packed = pack(model)
        image = random_images(model, 3, seed)[2]
        routing = routing_of(model, image)
        for layout in (IN_PLACE, REARRANGED):
            tile = random.Random(f"{seed} {layout}").randint(0, model.shape.tokens + 1)
            used = [experts_used(selected, tile) for selected in routing]
            planned = model_bytes(outline_of(packed), layout == IN_PLACE, tile, used)
            counted = counted_bytes(HostModel(packed, kernels=layout), image, tile)
            assert [stage.model_bytes for stage in planned] == counted, (seed, layout, tile)
            assert all(
                fewest_experts_used(model.shape, tile) <= count <= most_experts_used(model.shape, tile)
                for count in used
            ), (seed, tile, used)


def test_multiply_adds_of_a_small_model_are_those_on_paper() -> None:
    """3 tokens of width 6, 5 hidden: rotations work on 8 channels, so 4 pairs a layer, 4 multiply-adds each."""
    shape = Shape(
        image_height=2, image_width=4, channels=3, patch_size=2, classes=7, d_model=6, d_ff=5, layers=2, heads=3,
        experts=4, top_k=2, theta_layers=2, phi_layers=3, pooling="class", attention_scale=1.0,
    )  # fmt: skip
    assert multiply_adds(shape) == {
        "patch embedding": 2 * 6 * 12,
        "queries, keys and values": 2 * 3 * 18 * 6,
        "attention scores": 2 * 3 * 3 * 6,
        "attention mixing": 2 * 3 * 3 * 6,
        "attention projection": 2 * 3 * 6 * 6,
        "router": 2 * 3 * 4 * 6,
        "rotations": 2 * (3 * 2) * (2 + 3) * 4 * 4,
        "substrate": 2 * (3 * 2) * 5 * 6,
        "weighted sum of experts": 2 * (3 * 2) * 5,
        "down projection": 2 * 3 * 6 * 5,
        "head": 7 * 6,
    }


def test_every_matrix_product_of_the_schedule_is_in_the_multiply_adds() -> None:
    """However the tokens are divided, and whatever the weights are stored as."""
    for seed in range(60):
        shape = random_lowered(seed).shape
        tile = random.Random(seed).randint(0, shape.tokens)
        for in_place in (True, False):
            done: Counter[str] = Counter()
            for stage in stages(outline(shape), in_place, tile):
                for product in stage.products:
                    done[product.part] += product.rows * product.columns * product.count * product.times
            elementwise = ("rotations", "weighted sum of experts")
            assert done == {part: n for part, n in multiply_adds(shape).items() if part not in elementwise}, seed


def test_more_experts_cost_multiply_adds_in_the_router_alone() -> None:
    few, many = (multiply_adds(dataclasses.replace(CIFAR_BLOCK, experts=experts)) for experts in (8, 256))
    assert {part for part in few if few[part] != many[part]} == {"router"}


@pytest.mark.parametrize("tile", [0, 1, 7, 64])
def test_even_routing_is_the_mean_of_random_choices(tile: int) -> None:
    shape, r = dataclasses.replace(CIFAR_BLOCK, experts=24, top_k=3), np.random.default_rng(tile)
    drawn = [
        experts_used(np.stack([r.choice(24, 3, replace=False) for _ in range(shape.tokens)]), tile) for _ in range(400)
    ]
    assert even_routing(shape, tile) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 20 + 1e-9)
    assert fewest_experts_used(shape, tile) <= even_routing(shape, tile) <= most_experts_used(shape, tile)


def test_estimates_are_recorded_for_every_emulated_board_and_no_other() -> None:
    assert sorted(recorded()) == sorted(subject.board for subject in subjects()), UPDATE
    assert estimate(outline(DIGITS), load_profile("host"), 0) is None
    assert recorded_program(load_profile("host")) is None
    assert recorded_program(load_profile("esp32-s3")) is None, "ESP-IDF builds that one"


@pytest.mark.parametrize("board", sorted(recorded()))
def test_recorded_errors_are_small(board: str) -> None:
    record = recorded()[board]
    assert max(record.instructions.error, record.bytes_loaded.error, record.bytes_stored.error) <= 0.05
    assert record.held_out >= 200


@pytest.mark.parametrize("board", sorted(recorded()))
def test_a_record_is_of_the_loops_and_models_there_are(board: str) -> None:
    record, limits = recorded()[board], limits_of(load_profile(board))
    held_out = held_out_samples(limits)
    assert record.sizes == sizes_of_all([sample.outline for sample in held_out]), UPDATE
    loops = {
        loop
        for sample in held_out
        for tile in sample.tiles
        for _, done in operations(sample.outline, record.kernels, tile, [1.0] * sample.shape.layers)
        for loop in done
    }
    for costs in (record.instructions, record.bytes_loaded, record.bytes_stored):
        assert costs.loops.keys() <= loops, UPDATE


def profile_with_record(board: str) -> Profile:
    """Skips where the record says nothing about a program that is built here."""
    subject, profile = next(subject for subject in subjects() if subject.board == board), load_profile(board)
    missing, compiler = subject.missing(), recorded()[board].compiler
    if missing is not None:
        pytest.skip(missing)
    if compiler_of(profile).version != compiler:
        pytest.skip(f"the record is {compiler}'s, and here is {compiler_of(profile).version}: {UPDATE}")
    return profile


@pytest.mark.slow
@pytest.mark.parametrize("board", ["nano33-ble", "raspberry-pi-5"])
def test_a_fresh_count_is_within_the_recorded_error(board: str) -> None:
    """Of models that were not fitted to; and the program takes the recorded memory."""
    profile = profile_with_record(board)
    counted, program = count_board(board, held_out_samples(limits_of(profile))[:4:3])
    for one in counted:
        found = estimate(one.outline, profile, one.tile, one.used)
        assert found is not None
        assert found.instructions == pytest.approx(sum(one.instructions()), rel=found.error), UPDATE
        moved = sum(one.bytes_loaded()) + sum(one.bytes_stored())
        assert found.activation_bytes == pytest.approx(moved, rel=found.bytes_error), UPDATE
    assert program == recorded_program(profile), UPDATE


@pytest.mark.slow
def test_firmware_takes_the_recorded_flash_besides_any_model(tmp_path: Path) -> None:
    profile = profile_with_record("nano33-ble")
    program = recorded_program(profile)
    assert program is not None
    assert program.flash_bytes is not None
    for size in (16, 4096, 300_001):
        built = exported_firmware(profile, bytes(size), tmp_path / "firmware.elf")
        assert built.flash_bytes == size + program.flash_bytes, UPDATE


def own_board(tmp_path: Path, board: str, changes: dict[str, str]) -> Profile:
    """A copy of a board's file under a name of the user's own."""
    text = (profile_folder() / f"{board}.toml").read_text()
    text = re.sub(r"^aliases = .*\n", "", text, flags=re.MULTILINE)
    for old, new in {f'name = "{board}"': 'name = "my-board"', **changes}.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "my-board.toml"
    path.write_text(text)
    return load_profile(str(path))


@pytest.mark.parametrize(
    ("board", "changes"),
    [("esp32-s3", {"8_388_608": "16_777_216"}), ("nano33-ble", {"262_144": "65_536"}), ("raspberry-pi-4", {})],
)
def test_a_copy_of_a_board_has_its_estimates(tmp_path: Path, board: str, changes: dict[str, str]) -> None:
    """With other memories, too."""
    own, known = own_board(tmp_path, board, changes), load_profile(board)
    found = estimate(outline(DIGITS), own, 4)
    assert found is not None
    assert found == estimate(outline(DIGITS), known, 4)
    assert recorded_program(own) == recorded_program(known)


def test_a_copy_that_is_built_in_another_way_has_none(tmp_path: Path) -> None:
    own = own_board(tmp_path, "raspberry-pi-4", {"-mcpu=cortex_a72": "-mcpu=cortex_a35"})
    assert estimate(outline(DIGITS), own, 4) is None
    assert recorded_program(own) is None


@pytest.mark.parametrize("board", sorted(recorded()))
def test_what_lies_outside_of_the_counted_models_is_named(board: str) -> None:
    def outside(shape: Shape, angles: Angles = "float16") -> tuple[str, ...]:
        found = estimate(outline(shape, angles=angles), load_profile(board), 4)
        assert found is not None
        return found.outside

    assert outside(DIGITS) == outside(CIFAR_BLOCK) == ()
    assert outside(dataclasses.replace(DIGITS, d_model=4, heads=2)) == ("d_model 4",)
    assert outside(dataclasses.replace(DIGITS, experts=1024, classes=5000)) == ("experts 1024", "classes 5000")
    assert outside(DIGITS, "int8") == ("8-bit angles",)


def test_an_estimate_has_the_stages_of_the_plan() -> None:
    planned = outline(dataclasses.replace(DIGITS, layers=3))
    found = estimate(planned, load_profile("nano33-ble"), 4)
    assert found is not None
    assert [stage.name for stage in found.stages] == [stage.name for stage in model_bytes(planned, True, 4, [8.0] * 3)]
    assert found.instructions == sum(stage.instructions for stage in found.stages)
    assert min(min(stage.instructions, stage.bytes_loaded, stage.bytes_stored) for stage in found.stages) > 0


def test_no_routing_is_outside_the_bounds() -> None:
    planned, board = outline(CIFAR_BLOCK), load_profile("nano33-ble")
    for tile in (0, 16):
        even, worst = (
            estimate(planned, board, tile),
            estimate(planned, board, tile, [most_experts_used(CIFAR_BLOCK, tile)]),
        )
        assert even is not None
        assert worst is not None
        assert even.fewest_instructions < even.instructions < even.most_instructions == worst.instructions


def test_smaller_tiles_are_estimated_to_cost_more_instructions() -> None:
    found = [estimate(outline(DIGITS), load_profile("nano33-ble"), tile) for tile in (16, 4, 2, 1)]
    counts = [one.instructions for one in found if one]
    assert len(counts) == 4
    assert counts == sorted(counts)


def test_a_damaged_record_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "measured.json").write_text('{"nano33-ble": {}}')
    monkeypatch.setattr(estimates, "profile_folder", lambda: tmp_path)
    recorded.cache_clear()
    try:
        with pytest.raises(BfedgeError, match=r"measured\.json"):
            recorded()
    finally:
        recorded.cache_clear()

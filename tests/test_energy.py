"""Energy of an inference: what is counted, where it is billed, and that nothing is made up."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bfedge.bench.random_models import cifar_shape
from bfedge.device.profile import Profile
from bfedge.measure.energy import Account, EnergyPart
from bfedge.measure.plan import plan
from bfedge.measure.target_plan import plan_target
from bfedge.measure.work import even_routing, rearranged_read
from bfedge.packed.outline import outline
from tests.test_plan import CIFAR, plan_of


def test_weights_are_billed_where_they_are_read() -> None:
    """Rearranged matrices in DRAM; angles, norms and scales in the flash that the file lies in."""
    model = outline(CIFAR)
    profile = msgspec.convert(TWO_MEMORIES, Profile)
    board = plan_target(profile, model, plan(model), "m.bfe")
    read = next(account for account in board.energy if account.name == "weights read")
    by_memory = {part.where: part.amount for part in read.parts}
    assert sum(amount or 0 for amount in by_memory.values()) == board.weights_read_bytes
    assert by_memory["DRAM"] == rearranged_read(model, board.tile) > 10_000_000
    angles = 2 * sum(even_routing(CIFAR, 0) for _ in range(CIFAR.layers)) * (256 + 1024)
    assert angles < (by_memory["flash"] or 0) < 5_000_000
    expected = 8e-9 * (100 * (by_memory["flash"] or 0) + 6 * (by_memory["DRAM"] or 0))
    assert read.millijoules == pytest.approx(expected)


def quantity(value: float) -> dict[str, Any]:
    return {"value": value, "source": "test"}


TWO_MEMORIES = {
    "name": "b",
    "title": "t",
    "port": "posix",
    "cpu": {"name": "c", "machine": "x86_64"},
    "memories": [
        {"name": "flash", "kind": "flash", "holds": ["model"], "bytes": quantity(2**24), "usable": quantity(1)}
        | {"energy_pj_per_bit": quantity(100)},
        {"name": "DRAM", "kind": "dram", "holds": ["workspace"], "bytes": quantity(2**26), "usable": quantity(1)}
        | {"energy_pj_per_bit": quantity(6)},
    ],
}


def test_what_another_processor_would_move_is_no_figure_of_the_board() -> None:
    """The emulated Xtensa has no floating point unit, the ESP32-S3 has one."""
    board = plan_of(CIFAR, "esp32-s3")
    assert board.estimate is not None
    assert board.estimate.note
    paper, read, whole = board.energy
    assert paper.millijoules is not None
    assert read.millijoules is not None
    assert whole.millijoules is None
    assert whole.missing == ("bytes of activations",)


def test_energy_of_the_papers_experts_on_a_jetson() -> None:
    """64 experts at 6.4 pJ/bit, read once."""
    paper, read, whole = plan_of(CIFAR, "jetson").energy
    experts = plan(outline(CIFAR)).paper.packed_experts
    assert paper.millijoules == pytest.approx(experts * 8 * 6.4e-9, rel=1e-12)
    assert read.millijoules is not None
    assert whole.millijoules is not None
    assert paper.millijoules < read.millijoules < whole.millijoules
    assert all(part.source for account in (paper, read, whole) for part in account.parts)


def test_a_constant_without_a_source_gives_no_number() -> None:
    part = EnergyPart("weights", 1000, "bytes", "counted", "flash", None, None)
    known = EnergyPart("activations", 1000, "bytes", "estimated", "SRAM", 2.5, "a data sheet")
    account = Account("read", "", (part, known))
    assert account.millijoules is None
    assert account.missing == ("flash: energy_pj_per_bit",)
    assert known.millijoules == pytest.approx(2.5e-6)
    board = plan_of(cifar_shape(8, layers=1, d_model=64, d_ff=128), "nano33")
    assert [account.millijoules for account in board.energy] == [None] * len(board.energy)

"""How many experts fit the boards that ButterflyViT names (section 4.4): as it counts, and of the whole model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bfedge.bench.random_models import cifar_shape
from bfedge.device.profile import Profile, load_profile
from bfedge.measure.claims import VIT, Claim
from bfedge.measure.expert_memory import FP16_ANGLE, FP32_ANGLE, ExpertMemory
from bfedge.measure.most_experts import MostExperts, most_experts
from bfedge.measure.paper_memory import packed
from bfedge.packed.outline import outline

BOARDS = ("jetson-nano", "raspberry-pi-4", "esp32-s3", "nano33-ble")
WHERE = "section 4.4"
GIB = 2**30


@dataclass(frozen=True)
class Capacity:
    """Experts of ButterflyViT's model for CIFAR-100 on one board."""

    board: str
    memory: str
    """What the paper's counting fills: all DRAM, or all SRAM of a microcontroller"""
    bytes: int
    butterfly: int
    """Expert memory as Table 2 counts it, in all of that memory and with nothing beside it"""
    butterfly_fp16: int
    """The same with FP16 angles"""
    standard: int
    """Independent float32 experts, counted alike"""
    whole_model: MostExperts
    """The whole packed file, int8 outside the substrate, and a workspace, in the room that the board has for them"""


def capacities() -> list[Capacity]:
    return [capacity(load_profile(name)) for name in BOARDS]


def capacity(profile: Profile) -> Capacity:
    memory = packed(8)
    kind = "dram" if profile.bytes_of("dram") else "sram"
    size = profile.bytes_of(kind)
    whole_model = most_experts(profile, outline(cifar_shape(8)))
    assert whole_model is not None
    return Capacity(
        board=profile.name,
        memory=kind.upper(),
        bytes=size,
        butterfly=as_counted(memory, size, FP32_ANGLE),
        butterfly_fp16=as_counted(memory, size, FP16_ANGLE),
        standard=standard_experts(memory, size),
        whole_model=whole_model,
    )


def as_counted(memory: ExpertMemory, size: int, bytes_an_angle: int) -> int:
    """Experts whose memory, as the papers count it, is at most `size`; 0 if the substrate alone is more."""
    an_expert = bytes_an_angle * memory.angles / memory.experts
    return max(0, math.floor((size - memory.counted(0)) / an_expert))


def standard_experts(memory: ExpertMemory, size: int) -> int:
    return math.floor(size * memory.experts / memory.standard_bytes)


def devices(found: list[Capacity]) -> list[Claim]:
    jetson, raspberry, esp32, nano33 = found
    memory = packed(8)
    substrate = memory.counted(0)
    search = (substrate + 9999 * FP32_ANGLE * memory.angles / memory.experts) / 1e9
    one = f"one takes {memory.standard_bytes / memory.experts / 1e6:.1f} MB"
    smallest = f"{all_of(raspberry)}, the smallest Pi 4; {standard_experts(memory, 4 * GIB)} in 4 GiB"
    esp32_why = f"{all_of(esp32)}, experts alone; {esp32.butterfly_fp16} with FP16 angles"
    nano33_why = f"{all_of(nano33)}; the ternary substrate alone takes {substrate / 1024:.0f} KiB"

    def ran_out(board: Capacity) -> str:
        return f"{all_of(board)}; 9,999 experts would take {search:.2f} GB of it"

    def claim(what: str, paper_says: str, recomputed: int, why: str, **kind: Any) -> Claim:
        return Claim(VIT, WHERE, what, paper_says, recomputed, why, **kind)

    few, some = {"between": (3, 6)}, {"between": (200, 999)}
    contradiction: dict[str, Any] = {"must_match": False}
    return [
        claim("ButterflyViT, Jetson Nano", "9999 experts", jetson.butterfly, ran_out(jetson), **contradiction),
        claim("StandardMoE, Jetson Nano", "a few hundred experts", jetson.standard, all_of(jetson), **some),
        claim("ButterflyViT, Raspberry Pi 4", "9999 experts", raspberry.butterfly, ran_out(raspberry), **contradiction),
        claim("StandardMoE, Raspberry Pi 4", "a few hundred experts", raspberry.standard, smallest, **some,
              must_match=False, ours=True),
        claim("ButterflyViT, ESP32-S3", "3-6 experts", esp32.butterfly, esp32_why, **few),
        claim("StandardMoE, ESP32-S3", "none", esp32.standard, one),
        claim("ButterflyViT, Arduino Nano 33", "3-6 experts", nano33.butterfly, nano33_why, **few, **contradiction),
        claim("StandardMoE, Arduino Nano 33", "none", nano33.standard, one),
    ]  # fmt: skip


def all_of(board: Capacity) -> str:
    size = f"{board.bytes / GIB:g} GiB" if board.bytes >= GIB else f"{board.bytes / 1024:g} KiB"
    return f"in all {size} of {board.memory}"

"""Profiles of boards: what a board has, and how to build, emulate, flash and talk to it. One TOML file a board."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec


class Quantity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number and where it is from: data sheet and section, or "measured ...", or "our choice: ..."."""

    value: float | int
    source: str


class Cpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    machine: str
    """As `uname -m` says it on Linux (aarch64, armv6l, x86_64), else the instruction set (thumbv7em, xtensa)"""
    clock_hz: Quantity | None = None
    cores: int = 1


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    kind: Literal["flash", "sram", "psram", "dram"]
    holds: tuple[Literal["model", "workspace"], ...]
    """What of a model can lie here; the first memory of a profile that holds it and has room is taken"""
    bytes: Quantity
    usable: Quantity
    """Share of the bytes that a model (or workspace, image and logits) may take, 0 to 1"""
    energy_pj_per_bit: Quantity | None = None
    bandwidth_bytes_per_s: Quantity | None = None


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    zig: tuple[str, ...] = ()
    """Flags for `zig cc`: target and CPU. Empty: zig can't build for it"""
    gcc: str = ""
    """A cross compiler of the usual name, for `--cc`"""
    gcc_flags: tuple[str, ...] = ()


class Emulate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    program: str
    """qemu-aarch64, qemu-system-arm ..."""
    arguments: tuple[str, ...] = ()
    package: str = ""
    """Debian's package of the program"""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    title: str
    port: Literal["posix", "nrf52840", "esp_idf"]
    """The folder of runtime_c/ports that runs on it"""
    cpu: Cpu
    aliases: tuple[str, ...] = ()
    memories: tuple[Memory, ...] = ()
    build: Build = Build()
    emulate: Emulate | None = None


def load_profile(name: str) -> Profile:
    """A board by its name or alias, or the user's own file by its path. Raises BfedgeError for an unknown name and
    for a file that is not a profile.
    """
    raise NotImplementedError


def known_profiles() -> list[Profile]:
    """The profiles that come with bfedge, by name."""
    raise NotImplementedError


def profile_folder() -> Path:
    raise NotImplementedError

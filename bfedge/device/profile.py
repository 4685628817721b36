"""Profiles of boards: what a board has, and how to build, emulate, flash and talk to it. One TOML file a board, in the
folder devices/; a user's own file has the same form.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

import bfedge
from bfedge.errors import BfedgeError
from bfedge.files import is_file, is_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST_FILE = 65536
NAME = r"^[a-z0-9][a-z0-9-]{0,39}$"
"""Names become folders, program names and C strings"""

Name = Annotated[str, Meta(pattern=NAME)]


class Quantity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number and where it is from: data sheet and section, or "measured ...", or "our choice: ..."."""

    value: float | int
    source: str


class Cpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    machine: str
    """As `uname -m` says it on Linux (aarch64, armv6l, x86_64), else the instruction set (thumbv7em, xtensa); "any" for
    the machine that bfedge runs on"""
    clock_hz: Quantity | None = None
    cores: Annotated[int, Meta(ge=1, le=1024)] = 1
    instructions_per_s: Quantity | None = None
    """A rate that was measured on the board, on one thread; times are estimated from it"""
    energy_pj_per_multiply_add: Quantity | None = None
    active_power_w: Quantity | None = None
    """Of the board or chip while it computes"""


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    kind: Literal["flash", "sram", "psram", "dram"]
    holds: Annotated[tuple[Literal["model", "workspace"], ...], Meta(min_length=1)]
    """What of a model can lie here; the first memory of a profile that holds it and has room is taken"""
    bytes: Quantity
    usable: Quantity
    """Share of the bytes that a model (or workspace, image and logits) may take, 0 to 1"""
    energy_pj_per_bit: Quantity | None = None
    bandwidth_bytes_per_s: Quantity | None = None

    @property
    def room(self) -> int:
        """Bytes that a model (or workspace, image and logits) may take."""
        return math.floor(self.bytes.value * self.usable.value)


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    zig: tuple[str, ...] = ()
    """Flags for `zig cc` that name the target. Empty: zig can't build for it"""
    zig_cpu: tuple[str, ...] = ()
    """Flags that name the CPU, for bfedge's own code only: zig builds its C library once for all boards of a target"""
    gcc: str = ""
    """A cross compiler of the usual name, for `--cc`"""
    gcc_flags: tuple[str, ...] = ()


class Emulate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    program: str
    """qemu-aarch64, qemu-system-arm ..."""
    arguments: tuple[str, ...] = ()
    package: str = ""
    """Debian's package of the program"""
    note: str | None = None
    """How the emulated machine differs from the board, where that changes what is counted"""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    title: str
    port: Literal["posix", "nrf52840", "esp_idf"]
    """The folder of runtime_c/ports that runs on it"""
    cpu: Cpu
    aliases: tuple[Name, ...] = ()
    memories: tuple[Memory, ...] = ()
    """None: this machine, whose memory is not planned"""
    build: Build = Build()
    emulate: Emulate | None = None

    def bytes_of(self, kind: str) -> int:
        """Of all memories of this kind together."""
        return sum(int(memory.bytes.value) for memory in self.memories if memory.kind == kind)

    def memories_that_hold(self, what: Literal["model", "workspace"]) -> list[Memory]:
        return [memory for memory in self.memories if what in memory.holds]


def load_profile(name: str) -> Profile:
    """A board by its name or alias, or the user's own file by its path. Raises BfedgeError for an unknown name and
    for a file that is not a profile.
    """
    known = known_profiles()
    for profile in known:
        if name == profile.name or name in profile.aliases:
            return profile
    path = Path(name)
    if not (path.suffix.lower() == ".toml" or len(path.parts) > 1 or is_file(path)):
        names = [n for profile in known for n in (profile.name, *profile.aliases)]
        near = difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.6)
        question = f"; is it {' or '.join(f'`{n}`' for n in near)}?" if near else ""
        raise BfedgeError(
            f"there is no board `{name}`{question}",
            f"known: {', '.join(profile.name for profile in known)}; or give the path of a board's .toml file",
        )
    profile = read_profile(path)
    folder = profile_folder()
    for other in known:
        shared = {profile.name, *profile.aliases} & {other.name, *other.aliases}
        if shared and path.absolute().resolve() != (folder / f"{other.name}.toml").resolve():
            raise BfedgeError(
                f"`{name}`: `{min(shared)}` names the board {other.name} that comes with bfedge", "take another name"
            )
    return profile


def known_profiles() -> list[Profile]:
    """The profiles that come with bfedge, by name."""
    return sorted((read_profile(path) for path in profile_folder().glob("*.toml")), key=lambda profile: profile.name)


def profile_folder() -> Path:
    """The folder devices: beside the package in a source checkout, else inside the installed package."""
    packages = [Path(folder) for folder in bfedge.__path__]
    for candidate in [p.parent / "devices" for p in packages] + [p / "devices" for p in packages]:
        if (candidate / "host.toml").is_file():
            return candidate
    raise BfedgeError("the boards' profiles are missing from this installation of bfedge")


def read_profile(path: Path) -> Profile:
    """The profile in one file. Raises BfedgeError, which names file, field, value and what is allowed."""
    values = read_toml(path)
    try:
        profile = msgspec.convert(values, Profile)
    except msgspec.ValidationError as problem:
        raise BfedgeError(f"`{path}`: {in_own_words(str(problem), values)}") from None
    for wrong in violations(profile):
        raise BfedgeError(f"`{path}`: {wrong.field} is {shown(wrong.value)}; allowed is {wrong.allowed}")
    return profile


def read_toml(path: Path) -> dict[str, Any]:
    if is_folder(path):
        raise BfedgeError(f"`{path}` is a folder, not a board's .toml file")
    if not is_file(path):
        raise BfedgeError(f"there is no file `{path}`")
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise BfedgeError(f"`{path}` is larger than {LARGEST_FILE} bytes; a board's .toml file is not")
        return tomllib.loads(content.decode("utf-8-sig"))
    except OSError as problem:
        raise BfedgeError(f"cannot read `{path}`: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise BfedgeError(f"`{path}` is no text: byte {problem.start} is not UTF-8") from None
    except RecursionError:
        raise BfedgeError(f"`{path}` is nested too deeply") from None
    except tomllib.TOMLDecodeError as problem:
        raise BfedgeError(f"`{path}`: {problem}") from None
    except ValueError:  # Python's limit
        raise BfedgeError(f"`{path}`: there is a number of thousands of digits") from None


def in_own_words(problem: str, values: dict[str, Any]) -> str:
    """msgspec's message with the field first and the value that it found: "Expected `int`, got `str` - at
    `$.cpu.cores`" becomes "cpu.cores is 'two'; expected `int`, got `str`".
    """
    found = re.fullmatch(r"(.*) - at `\$\.?(.*)`", problem)
    message, field = found.groups() if found else (problem, "")
    if "field `" in message:  # a field that is missing or unknown: the message names it
        return f"{message}{f', in {field}' if field else ''}"
    value: Any = values
    try:
        for key, index in re.findall(r"(\w+)|\[(\d+)\]", field.replace("].", "]")):
            value = value[int(index)] if index else value[int(key) if isinstance(value, list) else key]
    except (KeyError, IndexError, TypeError, ValueError):
        return f"{field}: {message}"
    return f"{field} is {shown(value)}; {message[:1].lower()}{message[1:]}"


def shown(value: object) -> str:
    """At most 60 characters of a value."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write integers of thousands of digits
        return "a very large number"
    return text if len(text) <= 60 else f"{text[:57]}..."


class Violation(NamedTuple):
    field: str
    value: object
    allowed: str


LIMITS: dict[str, tuple[float, float]] = {
    "clock_hz": (1e3, 1e11),
    "instructions_per_s": (1e3, 1e12),
    "energy_pj_per_multiply_add": (0, 1e6),
    "active_power_w": (0, 1e4),
    "bytes": (1, 2**50),
    "usable": (0, 1),
    "energy_pj_per_bit": (0, 1e6),
    "bandwidth_bytes_per_s": (1, 1e15),
}


def violations(profile: Profile) -> Iterator[Violation]:
    """What the types alone do not say."""
    for field, text in texts(msgspec.to_builtins(profile)):
        if not text.strip() or not text.isprintable():
            yield Violation(field, text, "printable text, not empty")
    for kind in ("clock_hz", "instructions_per_s", "energy_pj_per_multiply_add", "active_power_w"):
        of_cpu: Quantity | None = getattr(profile.cpu, kind)
        if of_cpu:
            yield from out_of_limits(f"cpu.{kind}", kind, of_cpu)
    for index, memory in enumerate(profile.memories):
        for kind in ("bytes", "usable", "energy_pj_per_bit", "bandwidth_bytes_per_s"):
            quantity: Quantity | None = getattr(memory, kind)
            if quantity:
                yield from out_of_limits(f"memories[{index}].{kind}", kind, quantity)
        if not isinstance(memory.bytes.value, int):
            yield Violation(f"memories[{index}].bytes.value", memory.bytes.value, "a whole number")
        if memory.name in [other.name for other in profile.memories[:index]]:
            yield Violation(f"memories[{index}].name", memory.name, "a name that no other memory of the board has")
    if profile.memories:
        for what in ("model", "workspace"):
            if not any(what in memory.holds for memory in profile.memories):
                yield Violation("memories", [m.name for m in profile.memories], f"at least one that holds the {what}")
    elif profile.port != "posix":
        yield Violation("memories", [], f"flash and RAM, for the port {profile.port}")
    if profile.emulate and not re.fullmatch(r"qemu-[a-z0-9_-]+", profile.emulate.program):
        yield Violation("emulate.program", profile.emulate.program, "the name of a QEMU program, qemu-...")
    build = profile.build
    if profile.port == "nrf52840" and not (build.gcc or build.zig):
        yield Violation("build", msgspec.to_builtins(build), "a compiler for the port nrf52840, in gcc or zig")
    if profile.port == "esp_idf" and profile.emulate and not build.gcc:
        yield Violation("build.gcc", build.gcc, "a compiler for the emulator's program")
    if len({profile.name, *profile.aliases}) != 1 + len(profile.aliases):
        yield Violation("aliases", list(profile.aliases), "each once, and not the board's name")


def texts(value: object, field: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a profile and the field that it stands in, but for the optional ones that are left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            if item != "" or key not in ("gcc", "package"):
                yield from texts(item, f"{field}.{key}" if field else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from texts(item, f"{field}[{index}]")
    elif isinstance(value, str):
        yield field, value


def out_of_limits(field: str, kind: str, quantity: Quantity) -> Iterator[Violation]:
    low, high = LIMITS[kind]
    above_low = quantity.value > 0 if low == 0 else quantity.value >= low
    if not (above_low and quantity.value <= high):  # NaN compares false
        allowed = f"more than 0, at most {high:g}" if low == 0 else f"{low:g} to {high:g}"
        yield Violation(f"{field}.value", quantity.value, allowed)

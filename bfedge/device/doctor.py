"""What is installed for which board and step, what is missing, and the command that installs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata

from bfedge.device.profile import Profile

PACKAGES = {
    "torch": "train",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "ziglang": "devices",
    "pyserial": "devices",
    "esptool": "devices",
    "pyocd": "devices",
    "intelhex": "devices",
    "pyelftools": "devices",
}
"""Python packages that are optional, and bfedge's extra that has them"""

STEPS = ("build", "emulate", "flash", "talk")

COMPILERS = ("cc", "gcc", "clang")
PROGRAMS = {
    "cc": "sudo apt-get install gcc",
    "gcc": "sudo apt-get install gcc",
    "clang": "sudo apt-get install clang",
    "aarch64-linux-gnu-gcc": "sudo apt-get install gcc-aarch64-linux-gnu",
    "arm-none-eabi-gcc": "sudo apt-get install gcc-arm-none-eabi",
    "xtensa-lx106-elf-gcc": "sudo apt-get install gcc-xtensa-lx106",
    "qemu-aarch64": "sudo apt-get install qemu-user",
    "qemu-arm": "sudo apt-get install qemu-user",
    "qemu-system-arm": "sudo apt-get install qemu-system-arm",
    "qemu-system-xtensa": "sudo apt-get install qemu-system-misc",
    "ssh": "sudo apt-get install openssh-client",
    "idf.py": "install ESP-IDF 5.1 or later (Espressif's manual: Get Started), then `. $IDF_PATH/export.sh`",
    "arduino-cli": "install Arduino CLI (Arduino's manual: Installation)",
    "bossac": "arduino-cli core install arduino:mbed_nano",
}
"""Programs and what installs them, on Debian and its like"""

VERSION_ARGUMENTS = {"ssh": "-V", "arduino-cli": "version", "bossac": "--help"}
"""Where it is not --version"""
VERSION_SECONDS = 10


@dataclass(frozen=True)
class Tool:
    name: str
    present: bool
    version: str | None
    """None if it is missing, or doesn't say"""
    install: str
    """The command that installs it"""


@dataclass(frozen=True)
class Step:
    """One of build, emulate, flash and talk, for one board."""

    name: str
    uses: tuple[str, ...]
    """What it would be done with"""
    missing: tuple[tuple[Tool, ...], ...]
    """One of each of these is needed"""

    @property
    def ready(self) -> bool:
        return not self.missing

    @property
    def lacks(self) -> str:
        """The missing tools by name."""
        return " and ".join(" or ".join(tool.name for tool in group) for group in self.missing)


@dataclass(frozen=True)
class BoardReport:
    profile: Profile
    steps: tuple[Step, ...]
    """Steps that the board does not have are left out: this machine needs no flashing"""

    def step(self, name: str) -> Step | None:
        return next((step for step in self.steps if step.name == name), None)

    @property
    def buildable(self) -> bool:
        """For the board or for its emulator."""
        return any(step.ready for step in self.steps if step.name in ("build", "emulate"))


Inventory = dict[str, Tool]
Groups = tuple[tuple[str, ...], ...]


def take_inventory(profiles: Iterable[Profile], versions: bool = True) -> Inventory:
    """All tools that bfedge knows and those that the profiles name. Without versions no program is run."""
    programs = dict(PROGRAMS)
    if os.environ.get("IDF_PATH"):
        programs["idf.py"] = '. "$IDF_PATH/export.sh"'
    for profile in profiles:
        if profile.build.gcc:
            programs.setdefault(profile.build.gcc, f"install {profile.build.gcc}")
        if profile.emulate:
            package = profile.emulate.package or profile.emulate.program
            programs.setdefault(profile.emulate.program, f"sudo apt-get install {package}")
    found = {name: package_tool(name, extra) for name, extra in PACKAGES.items()}
    with ThreadPoolExecutor(8) as pool:
        tools = pool.map(lambda name: program_tool(name, programs[name], versions), programs)
    return found | {tool.name: tool for tool in tools}


def package_tool(name: str, extra: str) -> Tool:
    install = f'pip install "bfedge[{extra}]"'
    try:
        return Tool(name, True, metadata.version(name), install)
    except metadata.PackageNotFoundError:
        return Tool(name, False, None, install)


def program_tool(name: str, install: str, ask_version: bool) -> Tool:
    """A program that is there but cannot be started counts as missing."""
    path = locate(name)
    if path is None or not ask_version:
        return Tool(name, path is not None, None, install)
    try:
        result = subprocess.run(
            [path, VERSION_ARGUMENTS.get(name, "--version")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return Tool(name, False, None, install)
    return Tool(name, True, version_in(result.stdout + result.stderr), install)


def locate(name: str) -> str | None:
    if name == "bossac":  # Arduino installs it where only Arduino's own tools look
        from bfedge.device.nrf_flash import find_bossac

        return find_bossac()
    return shutil.which(name)


def version_in(text: str) -> str | None:
    """The first thing that looks like a version number: "qemu-arm version 7.2.22 (Debian ...)" gives 7.2.22. Package
    names in brackets, as gcc has them, come before it and are skipped.
    """
    found = re.search(r"\d+(\.\d+)+[\w.+-]*", re.sub(r"\([^()]*\)", "", text))
    return found.group().rstrip(".,") if found else None


def report(profile: Profile, inventory: Inventory) -> BoardReport:
    """What can be done with a board here."""
    steps = [make_step(name, groups, inventory) for name, groups in needs(profile).items()]
    return BoardReport(profile, tuple(steps))


def needs(profile: Profile) -> dict[str, Groups]:
    """For each step the groups of tools of which one is enough, the preferred one first."""
    zig = ("ziglang",) if profile.build.zig else ()
    gcc = (profile.build.gcc,) if profile.build.gcc else ()
    steps: dict[str, Groups]
    if profile.port == "posix":
        compiler: tuple[str, ...] = zig + gcc or (*COMPILERS, "ziglang")
        emulated: Groups = (compiler, ("onnx",), ("onnxruntime",))
        steps = {"build": emulated, "talk": (("ssh",),)} if zig or gcc else {"build": emulated}
    elif profile.port == "nrf52840":
        emulated = (zig + gcc, ("pyelftools",), ("intelhex",))
        steps = {"build": emulated, "flash": (("pyocd", "bossac"),), "talk": (("pyserial",),)}
    else:
        emulated = (gcc, ("pyelftools",))  # the board's own program is built by ESP-IDF
        steps = {"build": (("idf.py",),), "flash": (("esptool",),), "talk": (("pyserial",),)}
    if profile.emulate:
        steps["emulate"] = (*emulated, (profile.emulate.program,))
    return {name: steps[name] for name in STEPS if name in steps}


def make_step(name: str, groups: Groups, inventory: Inventory) -> Step:
    uses, missing = [], []
    for group in groups:
        present = [tool for tool in group if inventory[tool].present]
        if present:
            uses.append(present[0])
        else:
            missing.append(tuple(inventory[tool] for tool in group))
    return Step(name, tuple(uses), tuple(missing))

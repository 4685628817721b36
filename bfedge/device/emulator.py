"""QEMU: the command that runs a board's program, and what it means when that ends badly."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bfedge.device.profile import Emulate, Profile
from bfedge.device.transport import shown
from bfedge.errors import BfedgeError

VERSION_SECONDS = 30

# Firmware speaks by semihosting calls, which go to QEMU's own stdin and stdout: not through a character device, where
# reading does not wait.
WHOLE_MACHINE = (
    *("-display", "none", "-monitor", "none", "-serial", "none"),
    *("-semihosting-config", "enable=on,target=native"),
)

# e_machine of the ELF header, by the end of the emulator's name.
ELF_MACHINES = {"aarch64": 183, "arm": 40, "x86_64": 62, "xtensa": 94}


class CannotCountError(BfedgeError):
    """This build of QEMU takes no plugins."""


def emulator_command(
    profile: Profile,
    program: Path,
    model: Path | None = None,
    plugin: Sequence[str] = (),
    options: Sequence[str] = (),
) -> list[str]:
    """The command that runs `program` with the protocol on stdin and stdout.

    `model` is the packed file for a Linux program, and None for firmware, which carries its own. `plugin` is from
    `counts.count_arguments`, `options` are the program's own.

    Raises BfedgeError if QEMU is not installed or `program` can't run on it.
    """
    emulate = of(profile)
    path = find_emulator(profile)
    check_program(program, emulate)
    command = [str(path), *emulate.arguments, *plugin]
    if is_whole_machine(emulate):
        return [*command, *WHOLE_MACHINE, "-kernel", str(program.absolute())]
    return [*command, str(program.absolute()), *options, *([] if model is None else [str(model)])]


def find_emulator(profile: Profile) -> Path:
    """Raises BfedgeError, with the command that installs it, if the board's emulator is missing."""
    emulate = of(profile)
    found = shutil.which(emulate.program)
    if found is None:
        package = emulate.package
        hint = f"`sudo apt install {package}` installs it on Debian and Ubuntu" if package else None
        raise BfedgeError(f"`{emulate.program}` is not installed", hint)
    return Path(found)


def emulator_version(emulator: Path) -> str:
    """For example "7.2.22"."""
    try:
        result = subprocess.run([str(emulator), "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise BfedgeError(f"`{emulator} --version` fails: {problem}") from None
    words = result.stdout.partition("version ")[2].split()
    if result.returncode or not words:
        raise BfedgeError(f"`{emulator} --version` does not answer as QEMU does")
    return words[0]


def explain_exit(profile: Profile, returncode: int, stderr: str) -> BfedgeError:
    """Why an emulated program ended badly: `returncode` is as subprocess has it."""
    emulate = of(profile)
    name = emulate.program
    lines = [line for line in stderr.splitlines() if line.strip() and "warning:" not in line]
    own = [line for line in lines if line.startswith("qemu")]
    fatal = [line for line in own if "fatal:" in line]
    said = shown((*fatal, *own, *lines[-1:], "nothing")[0].encode())
    if ended_by(signal.SIGILL, returncode, stderr):
        return BfedgeError(
            f"the program was built for a newer CPU than {emulated_cpu(profile)}",
            f"build it for `{profile.name}`, and run it there",
        )
    if "unknown option 'plugin'" in stderr or ("-plugin" in stderr and "invalid option" in stderr):
        return CannotCountError(
            f"this `{name}` can't count instructions: it was built without plugins",
            "Debian 12's qemu-user has plugins; static ones (qemu-user-static, Debian 13's qemu-user) do not",
        )
    if "Could not load plugin" in stderr:
        return BfedgeError(f"`{name}` refuses the plugin that counts instructions: {said}")
    if "Invalid ELF image" in stderr or "Exec format error" in stderr:
        return BfedgeError(
            f"the program is not for the processor of `{name}`: {said}", f"build it for `{profile.name}`"
        )
    if "unable to find CPU model" in stderr or "unsupported machine type" in stderr:
        return BfedgeError(
            f"this version of `{name}` does not know the board's processor: {said}", "install a newer one"
        )
    if ended_by(signal.SIGSEGV, returncode, stderr):
        return BfedgeError(f"the program crashed in `{name}`: it reached for memory that is not its own")
    if ended_by(signal.SIGKILL, returncode, stderr):
        return BfedgeError(f"`{name}` was killed; perhaps this machine's memory was full")
    if "Lockup" in stderr:
        return BfedgeError(f"the firmware crashed in `{name}`: {said}")
    how = f"was ended by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with status {returncode}"
    return BfedgeError(f"`{name}` {how}; it said: {said}")


def ended_by(cause: signal.Signals, returncode: int, stderr: str) -> bool:
    """A program in qemu-user dies of its signal, and a shell or SSH between it and us makes that 128 more."""
    return returncode in (-cause, 128 + cause) or f"uncaught target signal {int(cause)} " in stderr


def of(profile: Profile) -> Emulate:
    if profile.emulate is None:
        raise BfedgeError(f"there is no emulator for `{profile.name}`")
    return profile.emulate


def is_whole_machine(emulate: Emulate) -> bool:
    """Rather than a Linux program alone."""
    return Path(emulate.program).name.startswith("qemu-system-")


def processor(emulate: Emulate) -> str:
    return Path(emulate.program).name.rpartition("-")[2]


def emulated_cpu(profile: Profile) -> str:
    arguments = of(profile).arguments
    return arguments[arguments.index("-cpu") + 1] if "-cpu" in arguments[:-1] else profile.cpu.name


def check_program(program: Path, emulate: Emulate) -> None:
    """QEMU itself says nothing at all of many of these, or runs what it takes for instructions."""
    try:
        with program.open("rb") as file:
            header = file.read(20)
    except OSError as problem:
        raise BfedgeError(f"cannot read the program `{program}`: {problem.strerror}") from None
    if len(header) < 20 or not header.startswith(b"\x7fELF"):
        raise BfedgeError(f"`{program}` is not a program in ELF format")
    expected, found = ELF_MACHINES.get(processor(emulate)), int.from_bytes(header[18:20], "little")
    if expected is not None and found != expected:
        built_for = next((name for name, number in ELF_MACHINES.items() if number == found), f"machine {found}")
        raise BfedgeError(f"`{program}` is built for {built_for}; `{emulate.program}` runs {processor(emulate)} only")
    if not is_whole_machine(emulate) and not os.access(program, os.X_OK):
        raise BfedgeError(f"`{program}` is not executable", f"`chmod +x {program}`")

"""Finds the board of an export, wherever it is - this machine, an emulator, behind SSH or a serial port - and opens a
session with it.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bfedge.device.emulator import CannotCountError
from bfedge.device.exported import Exported
from bfedge.device.profile import Profile
from bfedge.device.protocol import Hello
from bfedge.device.session import Session
from bfedge.device.transport import ProcessTransport, SerialTransport
from bfedge.errors import BfedgeError
from bfedge.files import cache_folder

if TYPE_CHECKING:
    from bfedge.device.counts import Region

PROGRAM = "bfedge-device"
EMULATOR_HELLO_SECONDS = 120.0
EMULATOR_SECONDS = 1800.0
"""To wait for an answer of an emulated board, which takes up to some hundred times as long as a real one"""


@dataclass(frozen=True)
class Line:
    """Where the board is; at most one of the first three."""

    emulate: bool = False
    host: str | None = None
    port: str | None = None
    baud: int = 115_200
    timeout: float | None = None
    """Seconds for an answer; None for the session's own"""
    threads: int = 1
    """That share the work"""
    kernels: str | None = None
    """The runtime's; None for the fastest of the board's processor"""

    def program_options(self, profile: Profile) -> list[str]:
        """Of the device program. Raises BfedgeError if something is asked for that the board does not have."""
        options = {"--threads": str(self.threads) if self.threads > 1 else None, "--kernels": self.kernels}
        given = {name: value for name, value in options.items() if value is not None}
        if given and (profile.port != "posix" or self.port):
            raise BfedgeError(f"{' and '.join(given)} cannot be chosen on {profile.name}", "only on Linux boards")
        return [word for option in given.items() for word in option]


@dataclass(frozen=True)
class Board:
    """A board that answers."""

    session: Session
    hello: Hello
    where: str
    """In words"""
    emulated: bool
    is_fast: bool
    """The line and the processor: whether hundreds of images are a matter of seconds"""
    counts_file: Path | None = None
    note: str | None = None
    """How the emulator differs from the board, where that changes what is counted"""

    def counts(self, stages: int) -> list[Region] | None:
        """What the last profiled run executed, by stage; None where nothing counts."""
        if self.counts_file is None:
            return None
        from bfedge.device.counts import read_regions

        regions = read_regions(self.counts_file)
        if len(regions) <= stages:  # behind the stages comes the way back from bfe_run
            raise BfedgeError(f"the emulator counted {len(regions) - 1} stages of {stages}", "please report this")
        return regions[-stages - 1 : -1]


@contextmanager
def open_board(exported: Exported, line: Line, counting: bool = False, count_bytes: bool = False) -> Iterator[Board]:
    """A session with the board; in an emulator, with instructions counted if asked for (it is slower then), and the
    bytes that they load and store (and slower again).

    Raises BfedgeError if the board cannot be reached, or does not say hello.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bfedge-")))
        counts_file = None
        if line.emulate:
            counts_file = folder / "counts" if counting else None
            session, where = emulator_session(exported, line, folder, counts_file, count_bytes)
        elif line.host:
            session, where = ssh_session(exported, line.host, line)
        elif line.port:
            line.program_options(exported.profile)
            session = Session(SerialTransport(line.port, line.baud), timeout=line.timeout)
            where = f"on {line.port}"
        elif exported.profile.name == "host":
            session, where = local_session(exported, line)
        else:
            raise BfedgeError(
                f"where is the {exported.profile.name}?",
                "--host user@board, --port /dev/tty..., or --emulate to run it in QEMU here",
            )
        stack.enter_context(session)
        try:
            hello = session.hello()
        except CannotCountError:
            session, where = emulator_session(exported, line, folder, None)
            counts_file, where = None, f"{where}, which can't count instructions: it was built without plugins"
            hello = stack.enter_context(session).hello()
        fast = exported.profile.port == "posix" and not line.emulate
        if line.emulate:
            session.timeout = line.timeout or EMULATOR_SECONDS
        note = exported.profile.emulate.note if line.emulate and exported.profile.emulate else None
        yield Board(session, hello, where, line.emulate, fast, counts_file, note)


def local_session(exported: Exported, line: Line) -> tuple[Session, str]:
    exported.check(PROGRAM, exported.model.name)
    program = exported.folder / PROGRAM
    options = line.program_options(exported.profile)
    command = [str(program.resolve()), *options, str(exported.model)]
    transport = ProcessTransport(command, what="the exported program")
    return Session(transport, timeout=line.timeout), f"this machine ({platform.system()} {platform.machine()})"


def ssh_session(exported: Exported, host: str, line: Line) -> tuple[Session, str]:
    from bfedge.device.ssh import open_deployed

    if exported.profile.port != "posix":
        raise BfedgeError(f"{exported.profile.name} has no SSH", "--port /dev/tty...")
    return open_deployed(host, exported, line.timeout, line.program_options(exported.profile)), f"{host} over SSH"


def emulator_session(
    exported: Exported, line: Line, folder: Path, counts: Path | None, count_bytes: bool = False
) -> tuple[Session, str]:
    """Runs the export's own sources and model; firmware is built with semihosting in place of the UART."""
    from bfedge.device.counts import count_arguments
    from bfedge.device.emulator import emulator_command, emulator_version, explain_exit, find_emulator

    profile = exported.profile
    emulator = find_emulator(profile)
    is_linux = profile.port == "posix"
    exported.check(exported.model.name, *([PROGRAM] if is_linux else []))
    program = exported.folder / PROGRAM if is_linux else emulated_firmware(exported, folder / "firmware.elf")
    model = exported.model if is_linux else None
    plugin = count_arguments(program, counts, count_bytes, model) if counts else []
    command = emulator_command(profile, program, model, plugin, line.program_options(profile))
    transport = ProcessTransport(
        command,
        what=f"the emulated {profile.name}",
        explain=lambda code, stderr: explain_exit(profile, code, stderr),
    )
    assert profile.emulate is not None
    where = " ".join((Path(emulator).name, *profile.emulate.arguments))
    timeout = line.timeout or EMULATOR_HELLO_SECONDS
    return Session(transport, timeout=timeout), f"emulated by QEMU {emulator_version(emulator)} ({where})"


def emulated_firmware(exported: Exported, output: Path) -> Path:
    from bfedge.device.compiler import find_target_compiler
    from bfedge.device.firmware import build_firmware, find_xtensa_compiler

    profile = exported.profile
    if profile.port == "nrf52840":
        target = find_target_compiler(profile)
        port, compiler, flags = "nrf52840", target.compiler, target.target
    else:
        port, (compiler, flags) = "xtensa_sim", find_xtensa_compiler()
    build_firmware(
        port,
        exported.runtime,
        exported.model.read_bytes(),
        exported.arena_bytes,
        output,
        console="semihosting",
        board=profile.name,
        compiler=compiler,
        target_flags=flags,
        flash_bytes=profile.bytes_of("flash"),
        ram_bytes=profile.bytes_of("sram"),
        objects=cache_folder() / "objects",
    )
    return output

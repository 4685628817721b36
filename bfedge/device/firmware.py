"""Builds firmware for boards without an operating system: the C sources, one packed model in flash and the memory that
it works in, linked into one ELF file.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bfedge.device.compiler import (
    Compiler,
    CompilerError,
    c_string,
    compile_objects,
    find_compiler,
    is_zig,
    run_compiler,
)
from bfedge.errors import BfedgeError
from bfedge.files import write_atomically

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

Console = Literal["uart", "semihosting"]

# Sizes count here, and speed hardly depends on it. The runtime's rule about contraction is in its sources, too.
FLAGS = ("-std=c99", "-Os", "-ffp-contract=off")
LAYOUT_FLAGS = ("-ffunction-sections", "-fdata-sections")
WARNINGS = ("-Wall", "-Wextra")

BARE_CLANG = ("-fhosted",)
"""zig takes "no system" for "no C library", and then calls memcpy even for the bits of a float"""

SCRIPTS = {"nrf52840": "memory.ld", "xtensa_sim": "sim.ld"}
"""The linker script of each port, in its folder"""

XTENSA_GCC = "xtensa-lx106-elf-gcc"
XTENSA_FLAGS = ("-mno-serialize-volatile",)
"""No waiting for each access to a register: there is nothing to wait for in an emulator"""

STACK_BYTES = 4096
PROGRAM_SECTIONS = (".vectors", ".reset", ".program")

OVERFLOW = re.compile(r"region\s+[`'](\w+)'\s*:?\s*overflowed by (\d+) bytes")
REGIONS = {"FLASH": "flash", "RAM": "RAM"}
MOST_BYTES = 1 << 30
"""Of model and arena: beyond it the linkers' 32-bit addresses wrap around"""


@dataclass(frozen=True)
class Firmware:
    """A linked program; sizes in bytes."""

    elf: Path
    runtime_bytes: int
    """Flash: code and constants of the library (runtime_c/src)"""
    program_bytes: int
    """Flash: the device program and the port"""
    helper_bytes: int
    """Flash: what the compiler calls by itself, such as division of 64-bit numbers and memcpy"""
    model_bytes: int
    flash_bytes: int
    """All of the flash, with initial values of variables and what is left free before the model for its alignment"""
    data_bytes: int
    """RAM: variables of the program and the port"""
    arena_bytes: int
    stack_bytes: int

    @property
    def ram_bytes(self) -> int:
        return self.data_bytes + self.arena_bytes + self.stack_bytes


def find_xtensa_compiler(wanted: str | None = None) -> tuple[Compiler, tuple[str, ...]]:
    """The compiler for the port `xtensa_sim` and its flags. Raises BfedgeError if it is missing."""
    if wanted is None and shutil.which(XTENSA_GCC) is None:
        raise BfedgeError(f"there is no `{XTENSA_GCC}`", "`apt-get install gcc-xtensa-lx106` installs it")
    return find_compiler(wanted or XTENSA_GCC), XTENSA_FLAGS


def build_firmware(
    port: str,
    runtime: Path,
    model: bytes,
    arena_bytes: int,
    output: Path,
    *,
    console: Console,
    board: str,
    compiler: Compiler,
    target_flags: Sequence[str],
    flash_bytes: int = 0x100000,
    ram_bytes: int = 0x40000,
    app_offset: int = 0,
    stack_bytes: int = STACK_BYTES,
    objects: Path | None = None,
) -> Firmware:
    """Compiles and links the device program with a model.

    Args:
        port: `nrf52840` or `xtensa_sim`, a folder of runtime_c/ports.
        runtime: the folder runtime_c, or its copy in an export.
        model: the packed file; lies in flash and is used in place.
        arena_bytes: memory for input image, logits, workspace and guard.
        output: the ELF file.
        console: what carries the protocol; `xtensa_sim` has only `semihosting`.
        board: the name that the program says on `hello`.
        target_flags: name the processor; with `compiler` from find_target_compiler or find_xtensa_compiler.
        flash_bytes, ram_bytes: what the board has, by default the nRF52840's; `xtensa_sim` has memories of its own.
        app_offset: bytes of flash that belong to a bootloader; the program starts behind them.
        objects: a folder that keeps compiled files, so that the next model is linked only.

    Raises BfedgeError if it does not fit, with the numbers, or the compiler fails.
    """
    if max(len(model), arena_bytes) > MOST_BYTES:
        raise BfedgeError(
            f"a model of {len(model):,} bytes with {arena_bytes:,} bytes of working memory is far too large for {board}"
        )
    with tempfile.TemporaryDirectory(prefix="bfedge-") as temporary:
        folder = Path(temporary)
        compiled = compile_firmware(
            port, runtime, console, board, compiler, target_flags, folder if objects is None else objects
        )
        (folder / "firmware.ld").write_text(
            f"FLASH_BYTES = {flash_bytes:#x};\nRAM_BYTES = {ram_bytes:#x};\n"
            f"APP_OFFSET = {app_offset:#x};\nSTACK_BYTES = {stack_bytes};\nINCLUDE {SCRIPTS[port]}\n"
        )
        shutil.copy(runtime / "ports" / port / SCRIPTS[port], folder)
        # The name changes with the contents: zig keeps what it has assembled, and does not look into this file.
        image = f"model-{hashlib.sha256(model).hexdigest()}"
        (folder / image).write_bytes(model)
        (folder / "model.s").write_text(assembly(image, arena_bytes))
        run_compiler(compiler, [*target_flags, "-c", "model.s", "-o", "model.image.o"], folder)
        command = [*target_flags, "-T", "firmware.ld", "-Wl,--gc-sections", "-Wl,-e,bfd_reset"]
        files = [*map(str, compiled), "model.image.o"]
        if not is_zig(compiler):
            command.append("-nostdlib")
            files.append("-lgcc")
        try:
            run_compiler(compiler, [*command, *files, "-o", "firmware.elf"], folder)
        except CompilerError as problem:
            raise overflow_error(problem, board, len(model), arena_bytes) or problem from None
        write_atomically(output, lambda file: shutil.copyfile(folder / "firmware.elf", file))
    return read_firmware(output)


def assembly(image: str, arena_bytes: int) -> str:
    """Places the model and reserves the arena, under the names that ports/common/bfd_firmware.h declares."""
    return f"""\
        .section .bfd_model, "a", %progbits
        .balign 16
        .global bfd_packed_model, bfd_packed_model_end
bfd_packed_model:
        .incbin "{image}"
bfd_packed_model_end:
        .section .bfd_arena, "aw", %nobits
        .balign 16
        .global bfd_arena, bfd_arena_end
bfd_arena:
        .space {arena_bytes}
bfd_arena_end:
"""


def compile_firmware(
    port: str,
    runtime: Path,
    console: Console,
    board: str,
    compiler: Compiler,
    target_flags: Sequence[str],
    keep: Path,
) -> list[Path]:
    """The object files of everything but the model, in a folder of `keep` whose name says all they depend on. The
    linker scripts tell them apart by the ends of their names.
    """
    is_other_console = re.compile(rf"console_(?!{console}\.)").match
    parts = {
        "runtime": sorted((runtime / "src").rglob("*.c")),
        "program": sorted(
            file
            for folder, pattern in (
                ("app", "bfedge_device.c"),
                ("app", "bfd_*.c"),
                ("ports/common", "*.c"),
                (f"ports/{port}", "*.[cS]"),
            )
            for file in (runtime / folder).glob(pattern)
            if not is_other_console(file.name)
        ),
        "helpers": sorted(
            file for name in ("common", port) for file in (runtime / "ports" / name / "helpers").glob("*.c")
        ),
    }
    flags = [*target_flags, *FLAGS]
    defines = [f"-DBFD_BOARD={c_string(board)}", f"-DBFD_FLAGS={c_string(' '.join(flags))}"]
    includes = [f"-I{f}" for f in ("include", "src", "app", "ports/common", f"ports/{port}", "ports/common/include")]
    command = [
        *flags,
        *(BARE_CLANG if is_zig(compiler) else ()),
        *LAYOUT_FLAGS,
        *WARNINGS,
        *defines,
        *includes,
    ]

    files = [
        (file.relative_to(runtime).as_posix(), f"{file.stem}.{part}.o")
        for part, files in parts.items()
        for file in files
    ]
    return compile_objects(compiler, command, runtime, files, keep)


def overflow_error(problem: CompilerError, board: str, model_bytes: int, arena_bytes: int) -> BfedgeError | None:
    """What the linker says about memory that is too small, if that is what it says."""
    missing: dict[str, int] = {}
    for region, number in OVERFLOW.findall(problem.output):
        missing[region] = max(int(number), missing.get(region, 0))
    if not missing:
        return None
    words = " and ".join(
        f"{number:,} bytes of {REGIONS.get(region, region)}" for region, number in sorted(missing.items())
    )
    return BfedgeError(
        f"the firmware does not fit on {board}: it needs {words} more than there are "
        f"(the model has {model_bytes:,} bytes, its working memory {arena_bytes:,})",
        "a smaller model; for less RAM also a smaller --tile",
    )


def read_firmware(elf: Path) -> Firmware:
    """What is in an ELF file that build_firmware wrote. Raises BfedgeError if it is something else."""
    with open_elf(elf) as file:
        sections = {section.name: section for section in file.iter_sections()}
    try:
        model, runtime = sections[".model"], sections[".runtime"]
        sizes = {name: int(section["sh_size"]) for name, section in sections.items()}
        in_front = sum(sizes[name] for name in PROGRAM_SECTIONS[:2] if name in sizes)
        return Firmware(
            elf=elf,
            runtime_bytes=sizes[".runtime"],
            program_bytes=sum(sizes[name] for name in PROGRAM_SECTIONS if name in sizes),
            helper_bytes=sizes.get(".helpers", 0),
            model_bytes=sizes[".model"],
            flash_bytes=in_front + model["sh_addr"] + sizes[".model"] - runtime["sh_addr"],
            data_bytes=sizes.get(".data", 0) + sizes[".bss"],
            arena_bytes=sizes[".arena"],
            stack_bytes=sizes[".stack"],
        )
    except KeyError as problem:
        raise BfedgeError(f"`{elf}` is not firmware of bfedge: there is no section {problem}") from None


@contextmanager
def open_elf(path: Path) -> Iterator[ELFFile]:
    """Raises BfedgeError if it can't be read, also while it is being read."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ImportError:
        raise BfedgeError("reading firmware needs pyelftools", "`pip install 'bfedge[devices]'` installs it") from None
    try:
        with path.open("rb") as stream:
            yield ELFFile(stream)
    except OSError as problem:
        raise BfedgeError(f"cannot read `{path}`: {problem.strerror}") from None
    except ELFError as problem:
        raise BfedgeError(f"`{path}` is no program in ELF format: {problem}") from None

"""Instructions that an emulated program executes: QEMU with the plugin runtime_c/emulator/bfe_count.c. Instructions,
not cycles: an emulator does not know how long one takes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bfedge.device.compiler import Compiler, find_compiler, runtime_sources
from bfedge.device.firmware import open_elf
from bfedge.errors import BfedgeError
from bfedge.files import cache_folder, write_atomically

COMPILE_SECONDS = 120
FLAGS = ("-std=c99", "-O2", "-shared", "-fPIC")

# Linux's number of mmap (mmap2 on 32-bit Arm), by the processor in an ELF header.
MMAP = {"EM_AARCH64": 222, "EM_ARM": 192, "EM_X86_64": 9}


@dataclass(frozen=True)
class Region:
    """What ran from the first instruction of `bfd_mark_begin` to the one before `bfd_mark_end`. Bytes are those of
    load and store instructions; None if they were not counted.
    """

    instructions: int
    model_bytes_loaded: int | None = None
    other_bytes_loaded: int | None = None
    bytes_stored: int | None = None


def count_arguments(program: Path, output: Path, count_bytes: bool = False, model: Path | None = None) -> list[str]:
    """QEMU's arguments that make it write counts of `program`'s regions to `output`, for read_regions.

    With `count_bytes` also what the regions load and store, which takes a third longer. The model's share is known for
    firmware that carries its model and for a Linux program that maps the packed file `model`, all of it, once.

    Raises BfedgeError if `program` has no marks, or the plugin can't be compiled.
    """
    options = [str(plugin_library()).replace(",", ",,"), f"out={str(output.absolute()).replace(',', ',,')}"]
    machine, addresses = read_symbols(program)
    begin, end = addresses.get("bfd_mark_begin"), addresses.get("bfd_mark_end")
    if begin is None or end is None or begin == end:
        raise BfedgeError(
            f"`{program}` has no two functions bfd_mark_begin and bfd_mark_end to count between",
            "it was stripped, or is not bfedge's device program",
        )
    options += [f"begin={begin:#x}", f"end={end:#x}"]
    if count_bytes:
        low, high = addresses.get("bfd_packed_model"), addresses.get("bfd_packed_model_end")
        if low is not None and high is not None:
            options.append(f"model={low:#x}:{high:#x}")
        elif model is not None and machine in MMAP:
            options.append(f"mapped={MMAP[machine]}:{model.stat().st_size}")
        else:
            raise BfedgeError(f"the bytes that `{program}` loads can't be counted: where it has its model is unknown")
    return ["-plugin", ",".join(options)]


def read_regions(output: Path) -> list[Region]:
    """The regions that have ended so far, in that order; the emulator may be running, or have been killed."""
    return [Region(**record) for record in read_records(output) if "total" not in record]


def read_total(output: Path) -> int | None:
    """Instructions of the whole run; None while it lasts, and if the emulator was killed."""
    return next((record["total"] for record in read_records(output) if "total" in record), None)


def read_records(output: Path) -> list[dict[str, int]]:
    try:
        lines = output.read_text().splitlines(keepends=True)
    except OSError as problem:
        raise BfedgeError(f"cannot read the emulator's counts in `{output}`: {problem.strerror}") from None
    return [json.loads(line) for line in lines if line.endswith("\n")]


def plugin_library() -> Path:
    """The compiled plugin, in the user's cache: one for each version of the source and of the compiler."""
    source = runtime_sources() / "emulator" / "bfe_count.c"
    compiler = host_compiler()
    recipe = "\0".join((*compiler.command, compiler.version, *FLAGS))
    key = hashlib.sha256(source.read_bytes() + recipe.encode()).hexdigest()[:16]
    library = cache_folder() / key / "bfe_count.so"
    if not library.is_file():
        write_atomically(library, lambda file: compile_plugin(compiler.command, source, file))
    return library


def host_compiler() -> Compiler:
    """Not $CC before all others: who builds for a board may have put the board's compiler there."""
    usual = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    return find_compiler(usual)


def compile_plugin(compiler: tuple[str, ...], source: Path, output: str) -> None:
    command = [*compiler, *FLAGS, str(source), "-o", output]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        raise BfedgeError(f"`{compiler[0]}` did not compile QEMU's plugin in {COMPILE_SECONDS} s") from None
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise BfedgeError(f"`{compiler[0]}` failed to compile QEMU's plugin: {lines[0] if lines else 'no message'}")


def read_symbols(program: Path) -> tuple[str, dict[str, int]]:
    """The processor in an ELF header, `EM_AARCH64` or the like, and the addresses of what is named bfd_*."""
    with open_elf(program) as elf:
        from elftools.elf.sections import SymbolTableSection

        if elf["e_type"] != "ET_EXEC":
            raise BfedgeError(
                f"`{program}` is loaded at an address that is not known before, so its marks can't be found",
                "link it with -static and -no-pie",
            )
        addresses = {}
        table = elf.get_section_by_name(".symtab")
        for symbol in table.iter_symbols() if isinstance(table, SymbolTableSection) else ():
            # In Thumb code bit 0 of a function's symbol says so, and is no part of its address.
            is_arm_function = elf["e_machine"] == "EM_ARM" and symbol["st_info"]["type"] == "STT_FUNC"
            if symbol.name.startswith("bfd_"):
                addresses[symbol.name] = symbol["st_value"] & ~1 if is_arm_function else symbol["st_value"]
        return elf["e_machine"], addresses

"""Finds a C compiler and builds the runtime with it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import bfedge
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    from bfedge.device.profile import Profile

COMPILE_SECONDS = 600
"""zig builds a C library at the first use of a target, which takes a minute"""

# Every operation is rounded by itself (NUMERICS.md, rule 2), so contraction is off whatever the compiler's default.
FLAGS = ("-std=c99", "-O3", "-ffp-contract=off", "-Wall", "-Wextra")


@dataclass(frozen=True)
class Compiler:
    command: tuple[str, ...]
    version: str
    """First line of `--version`"""


def find_compiler(wanted: str | None = None) -> Compiler:
    """The compiler that was asked for, $CC, cc, gcc, clang, or zig from the `ziglang` wheel. Raises BfedgeError
    if there is none.
    """
    if wanted or os.environ.get("CC"):
        try:
            command = tuple(shlex.split(wanted or os.environ["CC"]))
        except ValueError as problem:
            raise BfedgeError(f"the C compiler's command `{wanted or os.environ['CC']}`: {problem}") from None
        if not command or shutil.which(command[0]) is None:
            raise BfedgeError(f"there is no C compiler `{' '.join(command)}`")
        return Compiler(command, version(command))
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return Compiler((name,), version((name,)))
    if util.find_spec("ziglang"):
        command = (sys.executable, "-m", "ziglang", "cc")
        return Compiler(command, version(command))
    raise BfedgeError("there is no C compiler", "install gcc or clang, or `pip install ziglang`")


def version(command: tuple[str, ...]) -> str:
    result = subprocess.run([*command, "--version"], capture_output=True, text=True)
    lines = result.stdout.splitlines()
    if result.returncode or not lines:
        raise BfedgeError(f"`{' '.join(command)}` is no C compiler: `--version` fails")
    return lines[0]


def runtime_sources() -> Path:
    """The folder runtime_c: beside the package in a source checkout, else inside the installed package."""
    packages = [Path(folder) for folder in bfedge.__path__]
    for candidate in [p.parent / "runtime_c" for p in packages] + [p / "runtime_c" for p in packages]:
        if (candidate / "include" / "bfedge.h").is_file():
            return candidate
    raise BfedgeError("the sources of the C runtime are missing from this installation of bfedge")


def find_target_compiler(profile: Profile, wanted: str | None = None) -> tuple[Compiler, tuple[str, ...]]:
    """A compiler for Linux on a board, and the flags that name the board's CPU: what the user asked for, zig from the
    `ziglang` wheel, or the usual cross compiler. A profile without either is for this machine.

    Raises BfedgeError if there is none.
    """
    build = profile.build
    if not build.zig and not build.gcc:
        return find_compiler(wanted), ()
    if wanted or os.environ.get("CC"):
        compiler = find_compiler(wanted)
        is_zig = any("zig" in word for word in compiler.command)
        return compiler, build.zig if is_zig else build.gcc_flags
    if build.zig and util.find_spec("ziglang"):
        command = (sys.executable, "-m", "ziglang", "cc")
        return Compiler(command, "zig cc, " + version(command)), build.zig
    if build.gcc and shutil.which(build.gcc):
        return Compiler((build.gcc,), version((build.gcc,))), build.gcc_flags
    raise BfedgeError(
        f"there is no C compiler for {profile.name}",
        'install zig by `pip install "bfedge[devices]"`' + (f", or {build.gcc}" if build.gcc else ""),
    )


def compile_library(compiler: Compiler, folder: Path, output: Path, extra: tuple[str, ...] = ()) -> None:
    """The runtime of `folder` as a shared library for this machine. Raises BfedgeError with the compiler's words."""
    compile_c(compiler, folder, output, ["-Isrc", *extra, "-shared", "-fPIC"], runtime_files(folder))


def compile_program(
    compiler: Compiler, folder: Path, output: Path, board: str, extra: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The device program of `folder` for Linux and its like. Returns the flags that decide what is computed and where
    it runs. Raises BfedgeError with the compiler's own words.
    """
    flags = (*FLAGS, *extra)
    defines = [f'-DBFD_BOARD="{board}"', f'-DBFD_FLAGS="{" ".join(flags)}"']
    sources = [
        *runtime_files(folder),
        *sorted(
            str(f.relative_to(folder)) for f in [*(folder / "app").glob("*.c"), *(folder / "ports/posix").glob("*.c")]
        ),
    ]
    options = ["-Isrc", "-Iapp", "-Iports/posix", *extra, *defines, "-pthread"]
    if any("zig" in word for word in compiler.command):
        options.append("-Wl,--strip-debug")  # of zig's C library; symbols stay, for emulators to find
    compile_c(compiler, folder, output, options, sources)
    return flags


def runtime_files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in (folder / "src").rglob("*.c"))


def compile_c(compiler: Compiler, folder: Path, output: Path, options: list[str], sources: list[str]) -> None:
    command = [*compiler.command, *FLAGS, "-Iinclude", *options, *sources, "-o", str(output.resolve())]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise BfedgeError(f"`{compiler.command[0]}` failed to compile the runtime: {problem}") from None
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        errors = [line for line in lines if "error" in line] or lines or ["no message"]
        raise BfedgeError(
            f"`{compiler.command[0]}` failed to compile the runtime: {errors[0]}",
            "another compiler can be chosen with --cc",
        )

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

import bfedge
from bfedge.errors import BfedgeError

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


def compile_runtime(
    compiler: Compiler, folder: Path, output: Path, extra: tuple[str, ...] = (), app: str | None = "bfedge_host.c"
) -> list[str]:
    """Compiles the runtime in `folder` and the host program, or with `app=None` a shared library. Returns the command.

    Raises BfedgeError with the compiler's own words if it fails.
    """
    sources = sorted(str(f.relative_to(folder)) for f in (folder / "src").rglob("*.c"))
    includes = ["-Iinclude", "-Isrc"]
    target = ["-shared", "-fPIC"] if app is None else [f"app/{app}"]
    command = [*compiler.command, *FLAGS, *extra, *includes, *sources, *target, "-o", str(output.resolve())]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise BfedgeError(
            f"`{compiler.command[0]}` failed to compile the runtime: {lines[0] if lines else 'no message'}",
            "another compiler can be chosen with --cc",
        )
    return command

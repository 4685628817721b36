"""Finds a C compiler and builds the runtime with it."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import bfedge
from bfedge.errors import BfedgeError
from bfedge.files import cache_folder, is_writable, write_atomically

if TYPE_CHECKING:
    from bfedge.device.profile import Profile

VERSION_SECONDS = 60
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
        found = shutil.which(command[0]) if command else None
        if found is None:
            raise BfedgeError(f"there is no C compiler `{' '.join(command)}`")
        if os.sep in command[0]:
            command = (str(Path(found).absolute()), *command[1:])  # it is run in other folders
        return Compiler(command, version(command))
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return Compiler((name,), version((name,)))
    if util.find_spec("ziglang"):
        command = (sys.executable, "-m", "ziglang", "cc")
        return Compiler(command, version(command))
    raise BfedgeError("there is no C compiler", "install gcc or clang, or `pip install ziglang`")


def version(command: tuple[str, ...]) -> str:
    try:
        result = subprocess.run(
            [*command, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_SECONDS,
            env=environment(command),
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise BfedgeError(f"`{' '.join(command)}` is no C compiler: {problem}") from None
    lines = result.stdout.splitlines()
    if result.returncode or not lines:
        said = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise BfedgeError(f"`{' '.join(command)}` is no C compiler: `--version` fails: {said}")
    return lines[0]


def environment(command: Sequence[str]) -> dict[str, str]:
    """For a compiler: zig hangs if it cannot write where it keeps what it has built."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "zig")
    if "ziglang" not in command or "ZIG_GLOBAL_CACHE_DIR" in os.environ or is_writable(usual):
        return dict(os.environ)
    return {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(cache_folder() / "zig")}


def runtime_sources() -> Path:
    """The folder runtime_c: beside the package in a source checkout, else inside the installed package."""
    packages = [Path(folder) for folder in bfedge.__path__]
    for candidate in [p.parent / "runtime_c" for p in packages] + [p / "runtime_c" for p in packages]:
        if (candidate / "include" / "bfedge.h").is_file():
            return candidate
    raise BfedgeError("the sources of the C runtime are missing from this installation of bfedge")


@dataclass(frozen=True)
class TargetCompiler:
    """A compiler, and the flags that make it build for a board."""

    compiler: Compiler
    target: tuple[str, ...] = ()
    """For compiling and linking"""
    cpu: tuple[str, ...] = ()
    """For compiling alone"""


def find_target_compiler(profile: Profile, wanted: str | None = None) -> TargetCompiler:
    """A compiler for a board: what the user asked for, zig from the `ziglang` wheel, or the usual cross compiler. A
    profile without either is for this machine.

    Raises BfedgeError if there is none.
    """
    build = profile.build
    if not build.zig and not build.gcc:
        compiler = find_compiler(wanted)  # zig would build for all that this machine has, and not check at the start
        return TargetCompiler(compiler, ("-mcpu=baseline",) if is_zig(compiler) else ())
    if wanted or os.environ.get("CC"):
        compiler = find_compiler(wanted)
        if is_zig(compiler):
            return TargetCompiler(compiler, build.zig, build.zig_cpu)
        return TargetCompiler(compiler, build.gcc_flags)
    if build.zig and util.find_spec("ziglang"):
        command = (sys.executable, "-m", "ziglang", "cc")
        return TargetCompiler(Compiler(command, "zig cc, " + version(command)), build.zig, build.zig_cpu)
    if build.gcc and shutil.which(build.gcc):
        return TargetCompiler(Compiler((build.gcc,), version((build.gcc,))), build.gcc_flags)
    raise BfedgeError(
        f"there is no C compiler for {profile.name}",
        'install zig by `pip install "bfedge[devices]"`' + (f", or {build.gcc}" if build.gcc else ""),
    )


def is_zig(compiler: Compiler) -> bool:
    return any(word == "ziglang" or Path(word).stem == "zig" for word in compiler.command)


def compile_library(compiler: Compiler, folder: Path, output: Path, extra: tuple[str, ...] = ()) -> None:
    """The runtime of `folder` as a shared library for this machine. Raises BfedgeError with the compiler's words."""
    flags = [*FLAGS, "-Iinclude", "-Isrc", *extra, "-shared", "-fPIC"]
    run_compiler(compiler, [*flags, *sources(folder, "src"), "-o", str(output.resolve())], folder)


def compile_program(
    compiler: TargetCompiler, folder: Path, output: Path, board: str, extra: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The device program of `folder` for Linux and its like. Returns the flags that it was compiled with, paths and
    the board's name aside. Raises BfedgeError with the compiler's own words.
    """
    flags = (*FLAGS, *compiler.target, *compiler.cpu, *extra)
    includes = ["-Iinclude", "-Isrc", "-Iapp", "-Iports/posix"]
    defines = [f"-DBFD_BOARD={c_string(board)}", f"-DBFD_FLAGS={c_string(' '.join(flags))}"]
    linking = [*compiler.target, *extra, "-pthread"]
    if sys.platform == "linux":
        linking.append("-Wl,-z,now")  # a dynamic linker that looks up functions later would do so on the painted stack
    if is_zig(compiler.compiler):
        # Of its C library. Stripping them would take the symbols along, which emulators need.
        linking.append("-Wl,--compress-debug-sections=zlib")
    files = [(source, source.replace("/", "-") + ".o") for source in sources(folder, "src", "app", "ports/posix")]
    command = [*flags, *includes, *defines]
    objects = compile_objects(compiler.compiler, command, folder, files, cache_folder() / "objects")
    run_compiler(compiler.compiler, [*linking, *map(str, objects), "-o", str(output.resolve())], folder)
    return flags


def compile_objects(
    compiler: Compiler, flags: Sequence[str], folder: Path, files: Sequence[tuple[str, str]], keep: Path
) -> list[Path]:
    """Compiles sources of `folder`, named from there, each to an object file of the given name, in a folder of `keep`
    whose name says all that they depend on; what is there already is not compiled again. Raises CompilerError.
    """
    key = hashlib.sha256("\0".join((compiler.version, *compiler.command, *flags)).encode())
    # Exports have no tests/, and shall share objects with the sources that they are copies of.
    parts = {"tests"} - {source.split("/")[0] for source, _ in files}
    found = (header.relative_to(folder) for header in folder.rglob("*.h"))
    headers = [header.as_posix() for header in found if header.parts[0] not in parts]
    for name in (*sorted(headers), *(source for source, _ in files)):
        key.update(f"\0{name}\0".encode() + (folder / name).read_bytes())
    objects = (keep / key.hexdigest()[:16]).absolute()

    def compile_one(file: tuple[str, str]) -> Path:
        source, target = file[0], objects / file[1]
        if not target.is_file():
            write_atomically(target, lambda path: run_compiler(compiler, [*flags, "-c", source, "-o", path], folder))
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, files))


def c_string(text: str) -> str:
    """As a string literal of C, in ASCII."""
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in text.encode()) + '"'


def sources(folder: Path, *parts: str) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for part in parts for f in (folder / part).rglob("*.c"))


class CompilerError(BfedgeError):
    """The compiler or linker failed; `output` is all it said."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message, "another compiler can be chosen with --cc")
        self.output = output


def run_compiler(compiler: Compiler, arguments: Sequence[str], folder: Path) -> None:
    """Raises CompilerError."""
    name = Path(compiler.command[0]).name
    try:
        result = subprocess.run(
            [*compiler.command, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_SECONDS,
            env=environment(compiler.command),
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise CompilerError(f"`{name}` failed: {problem}", "") from None
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        first = next((line for line in lines if "error" in line or "undefined" in line), lines[0])
        raise CompilerError(f"`{name}` failed: {first}", result.stderr)

"""a * b + c stays two roundings whatever a build system's flags say: the sources see to it themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

from bfedge.device.compiler import Compiler, compile_library, find_compiler, runtime_sources
from bfedge.device.host import HostModel
from bfedge.lowered import reference
from bfedge.packed.writer import pack
from tests.random_models import random_images, random_lowered

# What a vendor's build system might pass. GNU mode and an architecture with fused operations are what makes GCC fuse.
FUSING = ("-std=gnu99", "-ffp-contract=fast")
CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")

# Compiler, its flags, and how its disassembler prints a fused instruction.
CROSS = {
    "arm-none-eabi-gcc": (CORTEX_M4, r"\bvfn?m[as]"),
    "aarch64-linux-gnu-gcc": (("-mcpu=cortex-a76",), r"\bfn?m(add|sub|la|ls)\b"),
    "gcc": (("-mfma", "-mavx2"), r"\bvfn?m(add|sub)"),
}
PACKAGES = {"arm-none-eabi-gcc": "gcc-arm-none-eabi", "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu", "gcc": "gcc"}


def fuses_by_default() -> bool:
    """Whether this machine's processor has fused operations for the tests to provoke."""
    cpu = Path("/proc/cpuinfo")
    return cpu.is_file() and bool(re.search(r"\b(fma|asimd|vfpv4)\b", cpu.read_text()))


def disassemble(gcc: str, flags: tuple[str, ...], sources: list[Path], folder: Path) -> dict[str, str]:
    """Compiles files against the runtime's headers in an empty folder; the instructions of each, by its name."""
    runtime = runtime_sources()
    includes = [f"-I{runtime / 'include'}", f"-I{runtime / 'src'}"]
    folder.mkdir()
    subprocess.run([gcc, *flags, *includes, "-c", *map(str, sources)], check=True, timeout=300, cwd=folder)
    objdump = [gcc.removesuffix("gcc") + "objdump", "-d", "--no-show-raw-insn"]
    result = subprocess.run(
        [*objdump, *(f"{source.stem}.o" for source in sources)],
        capture_output=True, text=True, check=True, timeout=60, cwd=folder,
    )  # fmt: skip
    _, *parts = re.split(r"^(\S+)\.o: +file format .*$", result.stdout, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("level", ["-Os", "-O3"])
@pytest.mark.parametrize("gcc", CROSS)
def test_no_object_holds_a_fused_instruction(gcc: str, level: str, tmp_path: Path) -> None:
    if shutil.which(gcc) is None:
        pytest.skip(f"needs {gcc} (package {PACKAGES[gcc]})")
    if gcc == "gcc" and "x86_64" not in subprocess.run([gcc, "-dumpmachine"], capture_output=True, text=True).stdout:
        pytest.skip("this machine's gcc is not one for x86-64")
    machine, fused = CROSS[gcc]
    flags = (*FUSING, *machine, level)
    unguarded = tmp_path / "unguarded.c"
    unguarded.write_text("float fuse(float a, float b, float c) { return a * b + c; }\n")
    assert re.search(fused, disassemble(gcc, flags, [unguarded], tmp_path / "unguarded")["unguarded"])

    files = sorted((runtime_sources() / "src").rglob("*.c"))
    instructions = disassemble(gcc, flags, files, tmp_path / "objects")
    assert sorted(instructions) == sorted(file.stem for file in files)
    assert [name for name, text in instructions.items() if re.search(fused, text)] == []


def builds() -> dict[str, tuple[Compiler, tuple[str, ...]]]:
    found = {}
    if shutil.which("gcc"):
        gcc = find_compiler("gcc")
        found["gcc"] = (gcc, FUSING)
        found["gcc, whole program"] = (gcc, (*FUSING, "-flto"))
    # Told "fast", clang disregards what a source file says; "on" is its default.
    if shutil.which("clang"):
        found["clang"] = (find_compiler("clang"), ("-std=gnu99", "-ffp-contract=on"))
    if util.find_spec("ziglang"):
        found["zig"] = (find_compiler(f"{sys.executable} -m ziglang cc"), ("-std=gnu99", "-ffp-contract=on"))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not fuses_by_default(), reason="needs a processor with fused multiply-add")
def test_builds_that_would_fuse_give_the_reference_bits(tmp_path: Path) -> None:
    libraries = {}
    for name, (compiler, flags) in builds().items():
        libraries[name] = tmp_path / f"libbfedge-{len(libraries)}.so"
        compile_library(compiler, runtime_sources(), libraries[name], ("-march=native", *flags))
    assert libraries
    different = []
    for seed in range(40):
        model = random_lowered(seed)
        images = random_images(model, 2, seed)
        expected = reference.run(model, images)
        for name, library in libraries.items():
            runtime = HostModel(pack(model), library)
            got = [runtime.run(image).tobytes() for image in images]
            different += [(seed, name)] if got != [logits.tobytes() for logits in expected] else []
    assert different == []


@pytest.mark.parametrize("flag", ["-Ofast", "-ffast-math", "-funsafe-math-optimizations", "-freciprocal-math"])
@pytest.mark.parametrize("gcc", ["gcc", "arm-none-eabi-gcc"])
def test_flags_that_reorder_float_operations_are_refused(gcc: str, flag: str) -> None:
    if shutil.which(gcc) is None:
        pytest.skip(f"needs {gcc} (package {PACKAGES[gcc]})")
    machine = CORTEX_M4 if gcc.startswith("arm") else ()
    header = runtime_sources() / "src" / "bfe_float.h"
    command = [gcc, *machine, "-fsyntax-only", "-x", "c", str(header)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    refused = subprocess.run([*command, flag], capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0
    assert "bfedge must not be compiled with" in refused.stderr

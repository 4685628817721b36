"""Counts executed instructions: of the kernels in a set, each by itself, and of a whole model.

Counts are the same on every machine: zig from the `ziglang` wheel, which is pinned, builds everything (but the
Xtensa's firmware), and data and models are drawn as integers.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tempfile
from pathlib import Path
from unittest.mock import patch

from bfedge.device import firmware
from bfedge.device.board import Board
from bfedge.device.compiler import (
    FLAGS,
    TargetCompiler,
    compile_objects,
    compile_program,
    find_target_compiler,
    run_compiler,
    runtime_sources,
    sources,
)
from bfedge.device.counts import count_arguments, read_regions
from bfedge.device.emulator import emulator_command, explain_exit
from bfedge.device.profile import Profile, load_profile
from bfedge.device.session import Session
from bfedge.device.transport import ProcessTransport
from bfedge.files import cache_folder
from bfedge.lowered.model import Shape
from bfedge.measure.board_profile import profile_board
from tests.fixed_models import fixed_model

X86_64 = "x86-64"
X86_64_FLAGS = ("-target", "x86_64-linux-musl", "-mcpu=baseline")
"""Those of the exported program for this machine, and a C library that is everywhere the same"""

PLAIN_C = ("-O2", "-fno-vectorize", "-fno-slp-vectorize")
"""How the kernels "c" are built that the others are compared with"""

ARENA_BYTES = 192 * 1024
"""Of firmware: more than the digits model takes, less than the boards have"""

SECONDS = 600.0

Counts = dict[str, int]
"""Instructions by what executes them"""


def target_of(profile: Profile | None) -> TargetCompiler:
    """zig, whatever compiler $CC names. None is for x86-64."""
    with patch.dict(os.environ):
        os.environ.pop("CC", None)
        compiler = find_target_compiler(profile or load_profile("raspberry-pi-5"))
    return compiler if profile else TargetCompiler(compiler.compiler, X86_64_FLAGS)


def count_kernels(kernels: str, board: str) -> Counts:
    """Of each kernel in a set, by itself."""
    profile = None if board == X86_64 else load_profile(board)
    with tempfile.TemporaryDirectory(prefix="bfedge-") as folder:
        program, output = Path(folder, "count_kernels"), Path(folder, "counts")
        build_kernel_program(target_of(profile), program)
        if profile is None:
            names, counts = run_callgrind("bfd_counted", [str(program), kernels], Path(folder))
        else:
            names = run([*emulator_command(profile, program, plugin=count_arguments(program, output)), kernels])
            counts = [region.instructions for region in read_regions(output)]
    return dict(zip(names, counts, strict=True))


def build_kernel_program(target: TargetCompiler, output: Path) -> None:
    runtime = runtime_sources()
    files = [(file, file.replace("/", "-") + ".o") for file in (*sources(runtime, "src"), "tests/count_kernels.c")]
    flags = (*FLAGS, *target.target, *target.cpu, "-Iinclude", "-Isrc")
    objects = compile_objects(target.compiler, flags, runtime, files, cache_folder() / "objects")
    run_compiler(target.compiler, [*target.target, *map(str, objects), "-o", str(output)], runtime)


def run(command: list[str]) -> list[str]:
    """What a program prints, line by line."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert result.returncode == 0, (command, result.stdout[-2000:], result.stderr[-2000:])
    return result.stdout.splitlines()


def run_callgrind(function: str, command: list[str], folder: Path) -> tuple[list[str], list[int]]:
    """What a program prints, and the instructions of each call of one of its functions, callees included."""
    output = folder / "callgrind"
    options = [f"--toggle-collect={function}", f"--dump-after={function}", f"--callgrind-out-file={output}"]
    lines = run(["valgrind", "--tool=callgrind", *options, *command])
    dumps = sorted(folder.glob("callgrind.*"), key=lambda file: int(file.suffix[1:]))
    return lines, [int(re.findall(r"^totals: (\d+)$", file.read_text(), re.MULTILINE)[0]) for file in dumps]


def count_model_on_x86_64(shape: Shape, kernels: str) -> Counts:
    with tempfile.TemporaryDirectory(prefix="bfedge-") as folder:
        program, model = Path(folder, "bfedge-device"), Path(folder, "model.bfe")
        compile_program(target_of(None), runtime_sources(), program, X86_64)
        model.write_bytes(fixed_model(shape))
        command = [str(program), "--kernels", kernels, str(model), "1 golden 0 0"]
        answers, counts = run_callgrind("bfe_run", command, Path(folder))
    assert '"differing":0' in answers[-1]
    assert len(counts) == 1
    return {f"kernels {kernels}": counts[0]}


@functools.cache
def count_model(shape: Shape, board: str, plain: bool = False) -> Counts:
    """Of one inference on an emulated board, by the kernels that it chooses, or by plain C."""
    profile = load_profile(board)
    with tempfile.TemporaryDirectory(prefix="bfedge-") as folder:
        program, model, output = Path(folder, "program"), Path(folder, "model.bfe"), Path(folder, "counts")
        model.write_bytes(fixed_model(shape))
        words: list[str] = []
        if profile.port == "posix":
            compile_program(target_of(profile), runtime_sources(), program, board, PLAIN_C if plain else ())
            words = [*(["--kernels", "c"] if plain else []), str(model)]
        elif plain:
            with patch.object(firmware, "FLAGS", (*firmware.FLAGS, *PLAIN_C)):
                build_firmware(profile, model, program, ("-DBFE_KERNELS_IN_PLACE=bfe_kernels_c",))
        else:
            build_firmware(profile, model, program)
        command = [*emulator_command(profile, program, plugin=count_arguments(program, output)), *words]
        transport = ProcessTransport(command, explain=functools.partial(explain_exit, profile))
        with Session(transport, timeout=SECONDS) as session:
            opened = Board(session, session.hello(), "QEMU", emulated=True, is_fast=False, counts_file=output)
            instructions = profile_board(opened, tile=0).instructions
            kernels = opened.hello.kernels
    assert instructions is not None
    assert kernels == "c" or not plain, f"plain C was asked for, and the program has kernels {kernels}"
    return {f"kernels c, {' '.join(PLAIN_C)}" if plain else f"kernels {kernels}": instructions}


def build_firmware(profile: Profile, model: Path, output: Path, extra: tuple[str, ...] = ()) -> None:
    if profile.build.zig:
        compiler, flags = target_of(profile).compiler, profile.build.zig
    else:
        compiler, flags = firmware.find_xtensa_compiler()
    firmware.build_firmware(
        profile.port if profile.build.zig else "xtensa_sim",
        runtime_sources(),
        model.read_bytes(),
        ARENA_BYTES,
        output,
        console="semihosting",
        board=profile.name,
        compiler=compiler,
        target_flags=(*flags, *extra),
        flash_bytes=profile.bytes_of("flash"),
        ram_bytes=profile.bytes_of("sram"),
        objects=cache_folder() / "objects",
    )

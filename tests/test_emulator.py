"""QEMU: instructions are counted exactly, and a program that ends badly is explained."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import msgspec
import pytest

from bfedge.device.compiler import (
    TargetCompiler,
    compile_program,
    find_compiler,
    find_target_compiler,
    runtime_sources,
)
from bfedge.device.counts import Region, count_arguments, plugin_library, read_regions, read_total
from bfedge.device.emulator import emulator_command, emulator_version, explain_exit, find_emulator
from bfedge.device.firmware import build_firmware
from bfedge.device.profile import Emulate, Profile, load_profile
from bfedge.errors import BfedgeError
from bfedge.files import cache_folder
from bfedge.packed.golden import golden_vectors
from bfedge.packed.writer import pack
from tests.plain_runtime import copy_without_x86_kernels
from tests.random_models import random_images, random_lowered

MARKS = """
.text
.globl _start, bfd_mark_begin, bfd_mark_end
.type bfd_mark_begin, %function
.type bfd_mark_end, %function
"""

# Each counts down from 1000 between the marks, twice, and exits with status 0. A region holds its mark's return, the
# loop and what is around it, and the call of the end mark. The total leaves out nothing.
AARCH64 = """
_start: bl work
 bl work
 mov x0, #0
 mov x8, #93
 svc #0
bfd_mark_begin: ret
bfd_mark_end: ret
work: mov x9, x30
 bl bfd_mark_begin
 mov w0, #1000
1: subs w0, w0, #1
 b.ne 1b
 bl bfd_mark_end
 mov x30, x9
 ret
"""
ARMV6 = """
.arm
_start: bl work
 bl work
 mov r0, #0
 mov r7, #1
 svc #0
bfd_mark_begin: bx lr
bfd_mark_end: bx lr
work: mov r12, lr
 bl bfd_mark_begin
 mov r0, #1000
1: subs r0, r0, #1
 addeq r1, r1, #1
 bne 1b
 bl bfd_mark_end
 bx r12
"""
CORTEX_M_EXIT = """
 movs r0, #0x18
 ldr r1, =0x20026
 bkpt 0xab
 b .
"""
CORTEX_M = f"""
.syntax unified
.thumb
.section .vectors, "a"
.word 0x20010000, _start
.globl bfd_packed_model, bfd_packed_model_end
bfd_packed_model: .word 1, 2
bfd_packed_model_end: .word 3, 4
.text
.thumb_func
_start: bl work
 bl work
 {CORTEX_M_EXIT}
.thumb_func
bfd_mark_begin: bx lr
.thumb_func
bfd_mark_end: bx lr
.thumb_func
work: mov r12, lr
 bl bfd_mark_begin
 mov r0, #1000
1: subs r0, r0, #1
 it eq
 addeq r1, r1, #1
 bne 1b
 adr r2, loaded
 ldr r2, [r2]
 ldr r3, [r2]
 ldrb r3, [r2, #5]
 ldrd r4, r5, [r2, #8]
 mov r4, #0x20000000
 strh r3, [r4]
 bl bfd_mark_end
 bx r12
.align 2
loaded: .word bfd_packed_model
"""
XTENSA = """
_start: j 1f
.align 4
1: call0 work
 call0 work
 movi a2, 1
 movi a3, 0
 simcall
.align 4
bfd_mark_begin: ret
.align 4
bfd_mark_end: ret
.align 4
work: mov a12, a0
 call0 bfd_mark_begin
 movi a2, 1000
1: addi a2, a2, -1
 bnez a2, 1b
 call0 bfd_mark_end
 mov a0, a12
 ret
"""


@dataclass(frozen=True)
class Counted:
    """A board and a program for it whose instructions are known."""

    board: str
    source: str
    region: int
    total: int

    @property
    def profile(self) -> Profile:
        """The board's; the program for Xtensa is laid out for one of QEMU's cores, which need not be the profile's."""
        profile = load_profile(self.board)
        if profile.port != "esp_idf":
            return profile
        return msgspec.structs.replace(profile, emulate=Emulate("qemu-system-xtensa", ("-M", "sim", "-cpu", "de212")))


COUNTED = (
    Counted("jetson", AARCH64, 1 + 2 * 1000 + 2, 2 * (1 + 2 + 2003 + 1 + 2) + 3),
    Counted("raspberry-pi-zero", ARMV6, 1 + 3 * 1000 + 2, 2 * (1 + 2 + 3003 + 1 + 1) + 3),
    Counted("nano33", CORTEX_M, 1 + 4 * 1000 + 9, 2 * (1 + 2 + 4010 + 1 + 1) + 3),
    Counted("esp32-s3", XTENSA, 1 + 2 * 1000 + 2, 1 + 2 * (1 + 2 + 2003 + 1 + 2) + 3),
)


def target_compiler(profile: Profile) -> TargetCompiler:
    try:
        return find_target_compiler(profile)
    except BfedgeError as missing:
        pytest.skip(f"{missing.message}: {missing.hint}")


def assemble(board: str, source: str, folder: Path, *extra: str) -> Path:
    """A program without a C library. Skips the test if the board's assembler or emulator is not installed."""
    profile = load_profile(board)
    assert profile.emulate is not None
    if shutil.which(profile.emulate.program) is None:
        pytest.skip(f"needs {profile.emulate.program} (apt install {profile.emulate.package})")
    linking = {
        "nano33-ble": ["-Wl,-Ttext=0x100,--section-start=.vectors=0"],
        "esp32-s3": ["-Wl,-Ttext=0x50000000"],  # where the core de212 starts
    }.get(profile.name, [])
    if linking:
        if shutil.which(profile.build.gcc) is None:
            pytest.skip(f"needs {profile.build.gcc} (apt install gcc-arm-none-eabi gcc-xtensa-lx106)")
        compiler = [profile.build.gcc, *profile.build.gcc_flags]
    else:
        found = target_compiler(profile)
        compiler = [*found.compiler.command, *found.target, *found.cpu]
    file, program = folder / "program.s", folder / "program.elf"
    file.write_text(MARKS + source)
    command = [*compiler, *linking, *extra, "-nostdlib", str(file), "-o", str(program)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return program


def run(
    profile: Profile, program: Path, output: Path, *extra: str, count_bytes: bool = False, model: Path | None = None
) -> list[Region]:
    """The regions that are counted when the program runs to its end."""
    plugin = count_arguments(program, output, count_bytes, model)
    command = emulator_command(profile, program, model, [*plugin, *extra])
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return read_regions(output)


@pytest.mark.parametrize("counted", COUNTED, ids=[c.board for c in COUNTED])
def test_instructions_are_counted_exactly(counted: Counted, tmp_path: Path) -> None:
    program = assemble(counted.board, counted.source, tmp_path)
    for attempt in ("first", "second"):
        regions = run(counted.profile, program, tmp_path / attempt)
        assert [region.instructions for region in regions] == [counted.region] * 2
        assert read_total(tmp_path / attempt) == counted.total


def test_counts_do_not_depend_on_how_qemu_joins_blocks(tmp_path: Path) -> None:
    counted = COUNTED[0]
    program = assemble(counted.board, counted.source, tmp_path)
    regions = run(counted.profile, program, tmp_path / "counts", "-d", "nochain")
    assert [region.instructions for region in regions] == [counted.region] * 2


def test_bytes_that_firmware_loads_are_split_into_the_model_and_the_rest(tmp_path: Path) -> None:
    counted = COUNTED[2]
    regions = run(
        counted.profile, assemble(counted.board, counted.source, tmp_path), tmp_path / "counts", count_bytes=True
    )
    assert regions == [Region(counted.region, model_bytes_loaded=5, other_bytes_loaded=12, bytes_stored=2)] * 2


def test_bytes_of_a_mapped_model_are_counted(tmp_path: Path) -> None:
    model = tmp_path / "model.bfe"
    model.write_bytes(bytes(4095))
    program = assemble(
        "jetson",
        """
_start: ldr x1, [sp, #16]
 mov x0, #-100
 mov x2, #0
 mov x8, #56
 svc #0
 mov x4, x0
 mov x0, #0
 mov x1, #4095
 mov x2, #1
 mov x3, #2
 mov x5, #0
 mov x8, #222
 svc #0
 mov x19, x0
 bl bfd_mark_begin
 ldr x0, [x19]
 ldr q0, [x19, #4064]
 ldrb w0, [x19, #4094]
 ldrb w0, [x19, #4095]
 ldr x1, [sp, #16]
 stp x1, x1, [sp, #-16]!
 bl bfd_mark_end
 mov x0, #0
 mov x8, #93
 svc #0
bfd_mark_begin: ret
bfd_mark_end: ret
""",
        tmp_path,
    )
    regions = run(load_profile("jetson"), program, tmp_path / "counts", count_bytes=True, model=model)
    assert regions == [Region(8, model_bytes_loaded=8 + 16 + 1, other_bytes_loaded=1 + 8, bytes_stored=16)]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ("", []),
        ("bl bfd_mark_end", []),
        ("bl bfd_mark_begin", []),
        ("bl bfd_mark_begin; nop; nop; bl bfd_mark_begin; nop; bl bfd_mark_end; nop; bl bfd_mark_end", [3]),
    ],
    ids=["no marks", "an end alone", "a beginning alone", "begun twice, ended twice"],
)
def test_marks_that_do_not_pair(calls: str, expected: list[int], tmp_path: Path) -> None:
    program = assemble(
        "jetson",
        f"_start: {calls}\nmov x0, #0\nmov x8, #93\nsvc #0\nbfd_mark_begin: ret\nbfd_mark_end: ret\n",
        tmp_path,
    )
    regions = run(load_profile("jetson"), program, tmp_path / "counts")
    assert [region.instructions for region in regions] == expected
    assert read_total(tmp_path / "counts") is not None


def test_a_killed_emulator_keeps_the_regions_that_ended(tmp_path: Path) -> None:
    counted = COUNTED[0]
    program = assemble(counted.board, counted.source.replace("mov x0, #0", "b ."), tmp_path)
    output = tmp_path / "counts"
    process = subprocess.Popen(emulator_command(counted.profile, program, None, count_arguments(program, output)))
    try:
        deadline = time.monotonic() + 30
        while (not output.exists() or len(read_regions(output)) < 2) and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert read_regions(output) == [Region(counted.region)] * 2
    assert read_total(output) is None


def test_a_program_for_a_newer_cpu_is_named_so(tmp_path: Path) -> None:
    source = "_start: sdot v0.4s, v1.16b, v2.16b\nmov x0, #0\nmov x8, #93\nsvc #0\nbfd_mark_begin:\nbfd_mark_end: ret\n"
    program = assemble("raspberry-pi-5", source, tmp_path)
    for board in ("raspberry-pi-5", "jetson"):
        profile = load_profile(board)
        result = subprocess.run(emulator_command(profile, program), capture_output=True, text=True, timeout=60)
        if board == "raspberry-pi-5":
            assert result.returncode == 0
            continue
        assert result.returncode != 0
        problem = explain_exit(profile, result.returncode, result.stderr)
        assert problem.message == "the program was built for a newer CPU than cortex-a57"
        assert problem.hint is not None
        assert "jetson-nano" in problem.hint
        # What the device program itself does when it meets the signal.
        assert explain_exit(profile, 132, "").message == problem.message


def test_a_crash_is_not_called_a_newer_cpu(tmp_path: Path) -> None:
    program = assemble("jetson", "_start: mov x0, #8\nldr x0, [x0]\nbfd_mark_begin:\nbfd_mark_end: ret\n", tmp_path)
    profile = load_profile("jetson")
    result = subprocess.run(emulator_command(profile, program), capture_output=True, text=True, timeout=60)
    assert "crashed in `qemu-aarch64`" in explain_exit(profile, result.returncode, result.stderr).message


def test_firmware_that_crashes_is_said_to(tmp_path: Path) -> None:
    source = CORTEX_M.replace("_start: bl work", "_start: udf #0")
    program = assemble("nano33", source, tmp_path)
    profile = load_profile("nano33")
    result = subprocess.run(emulator_command(profile, program), capture_output=True, text=True, timeout=60)
    message = explain_exit(profile, result.returncode, result.stderr).message
    assert message.startswith("the firmware crashed in `qemu-system-arm`: qemu: fatal: Lockup")


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("qemu-aarch64: a: Invalid ELF image for this architecture\n", "the program is not for the processor of"),
        ("qemu-aarch64: unable to find CPU model 'cortex-a57'\n", "does not know the board's processor"),
        ("qemu: unknown option 'plugin'\n", "was built without plugins"),
        (
            "qemu-aarch64: Could not load plugin x.so: plugin requires API version 2, but this QEMU supports only a "
            "minimum version of 3\n",
            "refuses the plugin that counts instructions",
        ),
        ("first\nlast\n", "`qemu-aarch64` ended with status 1; it said: last"),
    ],
)
def test_what_qemu_says_is_explained_in_one_line(stderr: str, expected: str) -> None:
    message = explain_exit(load_profile("jetson"), 1, stderr).message
    assert expected in message
    assert "\n" not in message


def test_a_missing_emulator_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for board, program, package in (
        ("jetson", "qemu-aarch64", "qemu-user"),
        ("nano33", "qemu-system-arm", "qemu-system-arm"),
        ("esp32", "qemu-system-xtensa", "qemu-system-misc"),
    ):
        with pytest.raises(BfedgeError) as missing:
            find_emulator(load_profile(board))
        assert missing.value.message == f"`{program}` is not installed"
        assert f"apt install {package}`" in str(missing.value.hint)


def test_a_board_without_an_emulator_is_refused() -> None:
    with pytest.raises(BfedgeError, match="there is no emulator for `host`"):
        find_emulator(load_profile("host"))


def test_the_version_of_qemu_is_read(tmp_path: Path) -> None:
    program = tmp_path / "qemu-aarch64"
    program.write_text("#!/bin/sh\necho 'qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7)'\necho Copyright\n")
    program.chmod(0o755)
    assert emulator_version(program) == "7.2.22"
    program.write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(BfedgeError, match="does not answer as QEMU does"):
        emulator_version(program)


def test_programs_that_the_emulator_cannot_run_are_refused_before(tmp_path: Path) -> None:
    program = assemble("jetson", AARCH64, tmp_path)
    jetson = load_profile("jetson")
    if shutil.which("qemu-arm"):
        with pytest.raises(BfedgeError, match="is built for aarch64; `qemu-arm` runs arm only"):
            emulator_command(load_profile("raspberry-pi-zero"), program)
    with pytest.raises(BfedgeError, match=r"cannot read the program .*: No such file"):
        emulator_command(jetson, tmp_path / "nothing")
    text = tmp_path / "text"
    text.write_text("words, and more of them than a header has\n")
    with pytest.raises(BfedgeError, match="not a program in ELF format"):
        emulator_command(jetson, text)
    program.chmod(0o644)
    with pytest.raises(BfedgeError, match="is not executable"):
        emulator_command(jetson, program)


def test_programs_whose_marks_cannot_be_found_are_refused(tmp_path: Path) -> None:
    stripped = assemble("jetson", AARCH64, tmp_path, "-s")
    with pytest.raises(BfedgeError, match="has no two functions bfd_mark_begin and bfd_mark_end"):
        count_arguments(stripped, tmp_path / "counts")
    merged = assemble("jetson", "_start: ret\nbfd_mark_begin:\nbfd_mark_end: ret\n", tmp_path)
    with pytest.raises(BfedgeError, match="has no two functions bfd_mark_begin and bfd_mark_end"):
        count_arguments(merged, tmp_path / "counts")
    movable = assemble("jetson", AARCH64, tmp_path, "-pie")
    with pytest.raises(BfedgeError, match="loaded at an address that is not known before"):
        count_arguments(movable, tmp_path / "counts")


def test_the_plugin_is_compiled_once_for_each_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "with, comma"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    program = assemble("jetson", AARCH64, tmp_path)
    regions = run(load_profile("jetson"), program, cache / "counts, too")
    assert len(regions) == 2
    library = plugin_library()
    assert library.is_relative_to(cache / "bfedge")
    written = library.stat().st_mtime_ns
    assert plugin_library() == library
    assert library.stat().st_mtime_ns == written
    assert [file.name for file in library.parent.iterdir()] == [library.name]


def test_a_compiler_that_fails_leaves_no_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        f"#!{shutil.which('sh')}\n[ $1 = --version ] && echo one 1.0 || {{ echo no disk >&2; exit 1; }}\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(BfedgeError, match="failed to compile QEMU's plugin: no disk"):
        plugin_library()
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []


def device_program(board: str, model: bytes, folder: Path) -> Path:
    """The device program for an emulator; firmware holds the model."""
    profile, program = load_profile(board), folder / "device.elf"
    assert profile.emulate is not None
    if shutil.which(profile.emulate.program) is None:
        pytest.skip(f"needs {profile.emulate.program} (apt install {profile.emulate.package})")
    found = target_compiler(profile)
    if profile.port == "posix":
        compile_program(found, runtime_sources(), program, profile.name)
        return program
    build_firmware(
        "nrf52840" if profile.port == "nrf52840" else "xtensa_sim",
        runtime_sources(),
        model,
        60_000,
        program,
        console="semihosting",
        board=profile.name,
        compiler=found.compiler,
        target_flags=(*found.target, *found.cpu),
        objects=cache_folder() / "objects",
    )
    return program


def run_device_program(emulator: str, cpu: str, program: Path, model: Path) -> subprocess.CompletedProcess[str]:
    command = [emulator, "-cpu", cpu, str(program), str(model), "1 hello"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-x86_64 (apt install qemu-user)")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs a PC: its compiler builds for it")
@pytest.mark.parametrize(
    ("compiler", "target", "cpu", "runs_on", "fails_on", "missing"),
    [
        ("gcc", (), ("-mavx512f",), None, "max", "AVX-512"),
        ("gcc", (), ("-mavx2", "-mfma"), "max", "Nehalem", "AVX2"),
        ("zig", ("-target", "x86_64-linux-musl"), ("-mcpu=x86_64_v3",), "max", "Nehalem", "AVX2"),
    ],
    ids=["AVX-512", "AVX2", "AVX2 by zig"],
)
def test_a_device_program_for_a_newer_pc_says_what_is_missing_and_no_other_does(
    compiler: str,
    target: tuple[str, ...],
    cpu: tuple[str, ...],
    runs_on: str | None,
    fails_on: str,
    missing: str,
    tmp_path: Path,
) -> None:
    if compiler == "zig" and util.find_spec("ziglang") is None:
        pytest.skip("needs zig (pip install ziglang)")
    if compiler == "gcc" and shutil.which("gcc") is None:
        pytest.skip("needs gcc (apt install gcc)")
    program, model = tmp_path / "program", tmp_path / "model.bfe"
    model.touch()
    command = f"{sys.executable} -m ziglang cc" if compiler == "zig" else "gcc"
    newer = TargetCompiler(find_compiler(command), target, cpu)
    compile_program(newer, copy_without_x86_kernels(tmp_path), program, "host")
    result = run_device_program("qemu-x86_64", fails_on, program, model)
    assert result.returncode == 132
    answer = json.loads(result.stdout)
    assert (answer["code"], answer["missing"]) == ("illegal-instruction", missing)
    assert answer["message"] == "built for a newer CPU than this one"
    if runs_on is not None:
        result = run_device_program("qemu-x86_64", runs_on, program, model)
        assert (result.returncode, '"type":"hello"' in result.stdout) == (0, True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-arm") is None, reason="needs qemu-arm (apt install qemu-user)")
def test_a_device_program_for_armv7_on_a_pi_zero_is_said_to_be_for_a_newer_cpu(tmp_path: Path) -> None:
    if util.find_spec("ziglang") is None:
        pytest.skip("needs zig (pip install ziglang)")
    profile = load_profile("raspberry-pi-zero")
    compiler = find_compiler(f"{sys.executable} -m ziglang cc")
    program, model = tmp_path / "program", tmp_path / "model.bfe"
    model.touch()
    newer = TargetCompiler(compiler, profile.build.zig, ("-mcpu=cortex_a7",))
    compile_program(newer, runtime_sources(), program, profile.name)
    assert run_device_program("qemu-arm", "cortex-a7", program, model).returncode == 0
    result = run_device_program("qemu-arm", "arm1176", program, model)
    assert "was built for a newer CPU than" in explain_exit(profile, result.returncode, result.stderr).message


@pytest.mark.slow
@pytest.mark.parametrize("board", ["jetson", "raspberry-pi-zero", "nano33", "esp32-s3"])
def test_every_stage_of_the_device_program_is_a_region(board: str, tmp_path: Path) -> None:
    """The counts are the same in every run, and where weights are used in place, the bytes of the model that are loaded
    are those that the runtime says it reads, up to its look-ups in the file's table of sections.
    """
    profile, lowered, file = load_profile(board), random_lowered(3), tmp_path / "model.bfe"
    file.write_bytes(pack(lowered, golden_vectors(lowered, random_images(lowered, 1, 3))))
    program = device_program(board, file.read_bytes(), tmp_path)
    mapped = file if profile.port == "posix" else None
    regions, answers = [], []
    for attempt in ("first", "second"):
        output = tmp_path / attempt
        command = emulator_command(profile, program, mapped, count_arguments(program, output, True, mapped))
        commands = "1 profile 0 0\n2 profile 0 1\n3 quit\n"
        result = subprocess.run(command, input=commands, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
        answers = [json.loads(line) for line in result.stdout.splitlines()]
        regions.append(read_regions(output))
    assert regions[0] == regions[1]
    stages = [answer for answer in answers if answer["type"] == "stage"]
    assert len(stages) == 2 * (2 + 2 * len(lowered.blocks))
    # One more region a profile: bfe_run's return after its last stage.
    assert len(regions[0]) == len(stages) + 2
    half = len(stages) // 2
    for stage, region in zip(stages, [*regions[0][:half], *regions[0][half + 1 : -1]], strict=True):
        assert region.model_bytes_loaded is not None
        if board == "jetson":  # which reads rearranged weights, that are not in the file
            assert region.model_bytes_loaded < stage["model_bytes"]
        else:
            assert 0 <= region.model_bytes_loaded - stage["model_bytes"] < 200
        assert region.instructions > regions[0][half].instructions

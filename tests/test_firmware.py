"""Firmware for boards without an operating system, on QEMU's Cortex-M4 and Xtensa."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfedge.device.compiler import Compiler, find_target_compiler, runtime_sources
from bfedge.device.firmware import Firmware, build_firmware, find_xtensa_compiler, read_firmware
from bfedge.device.flash_images import write_images
from bfedge.device.host import IN_PLACE, HostModel
from bfedge.device.profile import load_profile
from bfedge.errors import BfedgeError
from bfedge.packed.golden import golden_vectors
from bfedge.packed.writer import pack
from tests.random_models import random_images, random_lowered

FLASH, RAM = 1 << 20, 256 << 10
"""Of the nRF52840, bytes"""
DIGITS: dict[str, Any] = dict(
    image_height=8, image_width=8, channels=1, patch_size=2, classes=10, d_model=64, d_ff=256, layers=2, heads=4,
    experts=8, top_k=2, rotation_layers=2, pooling="mean",
)  # fmt: skip
"""The shape of bfedge/training/recipes/digits.toml"""

PROGRAMS = Path(__file__).parent / "firmware"
"""C programs of the tests"""

ARM = ("qemu-system-arm", "-M", "mps2-an386")
XTENSA = ("qemu-system-xtensa", "-M", "sim", "-cpu", "lx106")
QUIET = ("-display", "none", "-monitor", "none", "-serial", "none")
SEMIHOSTING = ("-semihosting-config", "enable=on,target=native")


@dataclass(frozen=True)
class Target:
    """A port and a compiler for it."""

    port: str
    compiler: str
    package: str
    emulator: tuple[str, ...]
    stack_bound: int
    """Bytes that bfe_run and bfe_open may take"""

    def find_compiler(self) -> tuple[Compiler, tuple[str, ...]]:
        if self.port == "xtensa_sim":
            return find_xtensa_compiler()
        found = find_target_compiler(load_profile("nano33-ble"), None if self.compiler == "zig" else self.compiler)
        return found.compiler, found.target

    def command(self, *arguments: str) -> list[str]:
        return [*self.emulator, *QUIET, *SEMIHOSTING, *arguments]


NANO_ZIG = Target("nrf52840", "zig", "gcc-arm-none-eabi", ARM, 1024)
NANO_GCC = Target("nrf52840", "arm-none-eabi-gcc", "gcc-arm-none-eabi", ARM, 1024)
ESP32 = Target("xtensa_sim", "xtensa-lx106-elf-gcc", "gcc-xtensa-lx106", XTENSA, 1280)
TARGETS = (NANO_ZIG, NANO_GCC, ESP32)


@pytest.fixture(params=TARGETS, ids=[t.compiler for t in TARGETS])
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    return available(found)


@pytest.fixture
def nano() -> Target:
    return available(NANO_ZIG if util.find_spec("ziglang") else NANO_GCC)


def available(target: Target) -> Target:
    if target.compiler == "zig":
        if util.find_spec("ziglang") is None:
            pytest.skip("needs zig (pip install ziglang)")
    elif shutil.which(target.compiler) is None:
        pytest.skip(f"needs {target.compiler} (apt install {target.package})")
    if shutil.which(target.emulator[0]) is None:
        pytest.skip(f"needs {target.emulator[0]} (apt install qemu-system-arm qemu-system-misc)")
    return target


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled files that the tests share."""
    return tmp_path_factory.mktemp("objects")


@pytest.fixture
def build(objects: Path, tmp_path: Path) -> Any:
    def build_it(target: Target, model: bytes, arena_bytes: int, **more: Any) -> Firmware:
        compiler, flags = target.find_compiler()
        options: dict[str, Any] = dict(
            runtime=runtime_sources(), output=tmp_path / f"{target.compiler}.elf", console="semihosting",
            board="a board", compiler=compiler, target_flags=flags, objects=objects,
        )  # fmt: skip
        return build_firmware(target.port, model=model, arena_bytes=arena_bytes, **options | more)

    return build_it


def talk(command: list[str], *lines: str) -> tuple[list[dict[str, Any]], int]:
    """What the program answers to lines on its stdin, checksums checked, and its exit status."""
    text = "".join(f"{line}\n" for line in lines)
    result = subprocess.run(command, input=text.encode(), capture_output=True, timeout=300)
    answers = []
    for line in result.stdout.splitlines():
        if line:
            body, _, check = line.rpartition(b',"check":"')
            assert check == b'%08x"}' % zlib.crc32(body), (line, result.stderr)
            answers.append(json.loads(line))
    return answers, result.returncode


@cache
def packed(seed: int, **fixed: Any) -> bytes:
    model = random_lowered(seed, **fixed)
    return pack(model, golden_vectors(model, random_images(model, 3, seed)))


def memory_of(model: HostModel, tile: int = 0) -> int:
    """Bytes for image, logits, workspace and the guard behind it."""
    return HostModel.arena_bytes(model, tile)


def copy_without_inference(folder: Path) -> Path:
    """The runtime's sources, less most of what computes models: that takes long to compile."""
    copy = Path(shutil.copytree(runtime_sources(), folder / "runtime"))
    for source in (copy / "src").rglob("*.c"):
        if source.name != "bfe_crc32.c":
            source.unlink()
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 6])
def test_firmware_computes_the_bits_of_the_reference_in_the_stated_memory(
    target: Target, seed: int, build: Any
) -> None:
    data = packed(seed)
    host = HostModel(data, kernels=IN_PLACE)
    firmware = build(target, data, memory_of(host))
    questions = ["1 hello", "2 golden 0 0", "3 golden 1 0", "4 golden 2 1", "5 profile 0 0", "6 profile 2 1", "7 quit"]
    answers, status = talk(target.command("-kernel", str(firmware.elf)), *questions)
    assert status == 0
    ready, hello, *rest = answers
    assert (ready["type"], hello["type"], rest[-1]["type"]) == ("ready", "hello", "bye")
    assert hello["model"]["bytes"] == len(data)
    assert hello["memory"]["available"] == memory_of(host)
    assert hello["stack"]["bytes"] == firmware.stack_bytes
    results = [answer for answer in rest if answer["type"] == "result"]
    assert [answer["differing"] for answer in results] == [0, 0, 0]
    for answer, tile in zip((a for a in rest if a["type"] == "profile"), (0, 1), strict=True):
        stated = host.workspace_bytes(tile)
        assert answer["differing"] == 0
        assert answer["workspace"] == {"stated": stated, "used": stated, "intact": True}
        assert max(answer["stack"]["run"], answer["stack"]["open"]) <= target.stack_bound
        assert answer["stack"]["total"] <= firmware.stack_bytes
    assert len([answer for answer in rest if answer["type"] == "stage"]) == 2 * (2 + 2 * host.model.config.layers)


@pytest.mark.slow
def test_a_model_like_digits_runs_in_64_kib_of_ram_by_40_kib_of_code(target: Target, build: Any) -> None:
    data = packed(3, **DIGITS)
    firmware = build(target, data, memory_of(HostModel(data, kernels=IN_PLACE)))
    answers, status = talk(target.command("-kernel", str(firmware.elf)), "1 golden 0 0", "2 profile 1 0")
    assert status == 0
    assert [a["differing"] for a in answers if "differing" in a] == [0, 0]
    assert firmware.ram_bytes <= 64 << 10
    assert firmware.runtime_bytes <= 40 << 10
    assert firmware.model_bytes == len(data)
    assert firmware.runtime_bytes + firmware.program_bytes + firmware.helper_bytes + len(data) <= firmware.flash_bytes


def test_the_end_of_the_input_ends_the_program_with_its_status(target: Target, build: Any) -> None:
    firmware = build(target, packed(1), 1000)
    command = target.command("-kernel", str(firmware.elf))
    assert talk(command, "1 hello")[1] == 0
    answers, status = talk(command, "1 golden 0 0")
    assert (answers[-1]["code"], answers[-1]["available"], status) == ("memory", 1000, 1)


def test_without_a_model_the_firmware_says_so(target: Target, build: Any) -> None:
    firmware = build(target, b"", 1000)
    answers, status = talk(target.command("-kernel", str(firmware.elf)), "1 hello", "2 golden 0 0")
    assert (answers[1]["model"], answers[1]["refused"], answers[2]["code"], status) == (None, None, "no-model", 1)


def test_a_damaged_model_is_refused_with_its_rule(target: Target, build: Any) -> None:
    data = bytearray(packed(1))
    data[-1] ^= 1
    firmware = build(target, bytes(data), 1000)
    answers, _ = talk(target.command("-kernel", str(firmware.elf)), "1 hello")
    assert answers[1]["refused"]["rule"] == 6


# Memory


def test_too_large_a_model_fails_with_the_numbers(nano: Target, build: Any) -> None:
    small = build(nano, bytes(16), 16)
    code = small.flash_bytes - small.model_bytes
    largest = FLASH - 0x10000 - code
    assert build(nano, bytes(largest), 16, app_offset=0x10000).flash_bytes == FLASH - 0x10000
    with pytest.raises(BfedgeError, match=r"1,234 bytes of flash more than there are \(the model has") as caught:
        build(nano, bytes(largest + 1234), 16, app_offset=0x10000)
    assert f"{largest + 1234:,} bytes" in caught.value.message
    assert "a board" in caught.value.message


def test_too_large_an_arena_fails_with_the_numbers(target: Target, build: Any) -> None:
    ram = RAM if target.port == "nrf52840" else 512 << 10
    small = build(target, bytes(16), 16)
    largest = ram - (small.ram_bytes - small.arena_bytes) // 16 * 16 - 16
    assert build(target, bytes(16), largest).arena_bytes == largest
    with pytest.raises(BfedgeError, match=r"bytes of RAM more than there are") as caught:
        build(target, bytes(16), largest + 4096)
    missing = re.search(r"needs ([\d,]+) bytes of RAM", caught.value.message)
    assert missing is not None
    assert 4096 - 32 <= int(missing[1].replace(",", "")) <= 4096
    assert f"its working memory {largest + 4096:,}" in caught.value.message


def test_a_board_s_own_memory_sizes_are_kept(nano: Target, build: Any) -> None:
    small = build(nano, bytes(16), 16)
    sizes = {"flash_bytes": small.flash_bytes, "ram_bytes": small.ram_bytes + 16}
    build(nano, bytes(16), 16, **sizes)
    with pytest.raises(BfedgeError, match=r"100 bytes of flash more"):
        build(nano, bytes(116), 16, **sizes)
    with pytest.raises(BfedgeError, match=r"bytes of RAM more"):
        build(nano, bytes(16), 48, **sizes)


def test_both_memories_too_small_are_named_together(target: Target, build: Any) -> None:
    with pytest.raises(BfedgeError, match=r"bytes of flash and [\d,]+ bytes of RAM more"):
        build(target, bytes(9 << 20), 1 << 20)


@pytest.mark.parametrize(("model", "arena"), [(16, 1 << 40), (16, (1 << 32) - 16)])
def test_absurd_sizes_are_refused(nano: Target, build: Any, model: int, arena: int) -> None:
    with pytest.raises(BfedgeError, match="far too large for a board"):
        build(nano, bytes(model), arena)


# Building


def test_another_model_is_only_linked(target: Target, build: Any, objects: Path) -> None:
    first, second = b"first model" * 9, b"other model" * 9
    build(target, first, 16)
    before = {file: file.stat().st_mtime_ns for file in objects.rglob("*.o")}
    firmware = build(target, second, 16)
    assert {file: file.stat().st_mtime_ns for file in objects.rglob("*.o")} == before
    assert second in firmware.elf.read_bytes()
    assert first not in build(target, second, 32).elf.read_bytes()


def test_a_changed_source_is_compiled_again(nano: Target, build: Any, tmp_path: Path) -> None:
    copy = copy_without_inference(tmp_path)
    for words in ("one text", "another"):
        text = f'#include "bfd_platform.h"\nint bfd_serve(void) {{ bfd_write("{words}", {len(words)}); return 0; }}\n'
        (copy / "app/bfedge_device.c").write_text(text)
        assert words.encode() in build(nano, bytes(16), 16, runtime=copy).elf.read_bytes()


def test_warnings_are_none(target: Target, tmp_path: Path) -> None:
    compiler, flags = target.find_compiler()
    folder = runtime_sources()
    files = [*folder.glob(f"ports/{target.port}/**/*.c"), *folder.glob("ports/common/**/*.c")]
    includes = ["include", "src", "app", "ports/common", f"ports/{target.port}", "ports/common/include"]
    for file in files:
        command = [
            *compiler.command, *flags, "-std=c99", "-Os", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow",
            "-Werror", *(f"-I{folder / name}" for name in includes), "-c", str(file), "-o", str(tmp_path / "x.o"),
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr


def test_a_source_that_does_not_compile_is_named(nano: Target, build: Any, tmp_path: Path) -> None:
    copy = copy_without_inference(tmp_path)
    (copy / "ports/nrf52840/platform.c").write_text("int x = ;\n")
    with pytest.raises(BfedgeError, match=r"ports/nrf52840/platform\.c:1"):
        build(nano, bytes(16), 16, runtime=copy)


def test_a_missing_xtensa_compiler_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BfedgeError, match="xtensa-lx106-elf-gcc") as caught:
        find_xtensa_compiler()
    assert caught.value.hint == "`apt-get install gcc-xtensa-lx106` installs it"


def test_a_file_that_is_no_firmware_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.elf"
    file.write_bytes(b"not an ELF file")
    with pytest.raises(BfedgeError, match="no program in ELF format"):
        read_firmware(file)
    with pytest.raises(BfedgeError, match="cannot read"):
        read_firmware(tmp_path / "none.elf")
    program = shutil.which("true")
    assert program is not None
    with pytest.raises(BfedgeError, match="not firmware of bfedge"):
        read_firmware(Path(program))


# Images


def read_uf2(data: bytes) -> tuple[int, bytes]:
    """Where the blocks start, and what they write: all 256 bytes, for one family, without gaps."""
    assert len(data) % 512 == 0
    count = len(data) // 512
    start, image = 0, b""
    for number in range(count):
        block = data[512 * number : 512 * number + 512]
        first, second, flags, address, size, index, total, family = struct.unpack_from("<8I", block)
        assert (first, second, flags, family) == (0x0A324655, 0x9E5D5157, 0x2000, 0xADA52840)
        assert struct.unpack_from("<I", block, 508) == (0x0AB16F30,)
        assert (size, index, total) == (256, number, count)
        start = start or address
        assert address == start + len(image)
        image += block[32 : 32 + size]
        assert not any(block[32 + size : 508])
    return start, image


@pytest.mark.parametrize("offset", [0x10000, 0x26000])
def test_images_hold_the_same_bytes(nano: Target, build: Any, tmp_path: Path, offset: int) -> None:
    from intelhex import IntelHex

    data = packed(1)
    firmware = build(nano, data, 1000, console="uart", app_offset=offset)
    hex_file, bin_file, uf2_file = write_images(firmware.elf, tmp_path, "nano")
    assert [file.name for file in (hex_file, bin_file, uf2_file)] == ["nano.hex", "nano.bin", "nano.uf2"]
    plain = bin_file.read_bytes()
    parsed = IntelHex(str(hex_file))
    assert parsed.minaddr() == offset
    assert parsed.tobinstr() == plain
    start, blocks = read_uf2(uf2_file.read_bytes())
    assert start == offset
    assert blocks == plain.ljust(-(-len(plain) // 256) * 256, b"\xff")
    assert plain.endswith(data)
    assert (len(plain) - len(data)) % 4096 == 0
    assert len(plain) == firmware.flash_bytes
    stack, reset = struct.unpack_from("<2I", plain)
    assert stack == 0x20000000 + firmware.stack_bytes
    assert offset < reset < offset + len(plain)
    assert reset % 2 == 1


@pytest.mark.slow
def test_the_image_behind_a_bootloader_runs(nano: Target, build: Any, tmp_path: Path) -> None:
    data = packed(2)
    firmware = build(nano, data, memory_of(HostModel(data, kernels=IN_PLACE)), app_offset=0x10000)
    (image,) = write_images(firmware.elf, tmp_path, "nano", ("bin",))
    jump = tmp_path / "jump.bin"  # what a bootloader does: it takes stack and start from the program's first words
    jump.write_bytes(image.read_bytes()[:8])
    loaders = [f"loader,file={file},addr={where:#x},force-raw=on" for file, where in ((image, 0x10000), (jump, 0))]
    answers, status = talk(nano.command("-device", loaders[0], "-device", loaders[1]), "1 golden 0 0", "2 golden 2 3")
    assert ([a["differing"] for a in answers[1:]], status) == ([0, 0], 0)


# What the ports do when nothing is as it should be. The device program gives way to one function.


@pytest.fixture
def run_instead(build: Any, tmp_path: Path) -> Any:
    def run_it(target: Target, serve: str, *lines: str) -> tuple[str, int]:
        copy = copy_without_inference(tmp_path)
        (copy / "app/bfedge_device.c").write_text('#include "bfd_platform.h"\n#include <string.h>\n' + serve)
        firmware = build(target, bytes(16), 16, runtime=copy, stack_bytes=2048)
        result = subprocess.run(
            target.command("-kernel", str(firmware.elf)), input="".join(lines), capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        return result.stdout, result.returncode

    return run_it


def test_running_over_the_stack_ends_the_program(target: Target, run_instead: Any) -> None:
    endless = """
    static volatile int depth;
    static int dive(volatile int *above) { volatile int here[64]; here[depth++ % 64] = above[0];
        return depth > 0 ? dive(here) + here[1] : 0; }
    int bfd_serve(void) { volatile int here[64] = {0}; bfd_write("started\\n", 8); return dive(here); }
    """
    assert run_instead(target, endless) == ("started\n", 139)


def test_an_instruction_that_the_processor_lacks_is_said(target: Target, run_instead: Any) -> None:
    instruction = "udf #0" if target.port == "nrf52840" else "ill"
    serve = f'int bfd_serve(void) {{ bfd_write("half a line", 11); __asm__ volatile("{instruction}"); return 0; }}'
    output, status = run_instead(target, serve)
    half, line, rest = output.split("\n")
    assert (half, rest, status) == ("half a line", "", 132)
    answer = json.loads(line)
    assert (answer["id"], answer["type"], answer["code"]) == (0, "error", "illegal-instruction")


def test_a_wild_pointer_ends_the_program(target: Target, run_instead: Any) -> None:
    serve = "int bfd_serve(void) { return *(volatile int *)0xB0000000; }"
    assert run_instead(target, serve) == ("", 139)


def test_the_program_returns_its_status_and_variables_start_as_written(target: Target, run_instead: Any) -> None:
    serve = """
    static volatile int first = 40, zero[50]; static char text[] = "abc";
    int bfd_serve(void) { text[0] = 'x'; bfd_write(text, 3); return first + zero[49] + 2; }
    """
    assert run_instead(target, serve) == ("xbc", 42)


def test_lines_longer_than_the_buffers_come_through(target: Target, run_instead: Any) -> None:
    echo = (
        "int bfd_serve(void) { int c; while ((c = bfd_read()) >= 0) { char b = (char)c; bfd_write(&b, 1); } return 3; }"
    )
    text = "".join(f"{number} " for number in range(1000)) + "\nshort\n\nno end"
    assert run_instead(target, echo, text) == (text, 3)


# Arithmetic


HELPERS = {
    "__addsf3": "soft_add", "__subsf3": "soft_sub", "__mulsf3": "soft_mul", "__floatsisf": "soft_int",
    "__floatunsisf": "soft_uint", "__udivsi3": "soft_udiv", "__umodsi3": "soft_umod", "__divsi3": "soft_div",
    "__modsi3": "soft_mod", "__muldi3": "soft_wide_mul", "__udivdi3": "soft_wide_div", "__umoddi3": "soft_wide_mod",
}  # fmt: skip


def compile_and_run(folder: Path, *sources: Path | str, flags: tuple[str, ...] = ()) -> str:
    """A C program on this machine; its output."""
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler (apt install gcc)")
    program = folder / "program"
    files = []
    for number, source in enumerate(sources):
        if isinstance(source, str):
            files.append(folder / f"{number}.c")
            files[-1].write_text(source)
        else:
            files.append(source)
    subprocess.run(["cc", "-std=gnu99", "-O2", *flags, *map(str, files), "-o", str(program)], check=True, timeout=120)
    return subprocess.run([program], capture_output=True, text=True, check=True, timeout=300).stdout


def test_software_floats_and_division_compute_what_this_machine_does(tmp_path: Path) -> None:
    helpers = sorted((runtime_sources() / "ports/xtensa_sim/helpers").glob("*.c"))
    defines = tuple(f"-D{name}={other}" for name, other in HELPERS.items())
    output = compile_and_run(tmp_path, PROGRAMS / "helpers.c", *helpers, flags=defines)
    assert output == "0 wrong\n"


@pytest.mark.slow
def test_floats_of_the_emulated_boards_are_those_of_this_machine(
    target: Target, run_instead: Any, tmp_path: Path
) -> None:
    compute = f'#include "{PROGRAMS / "all_operations.h"}"\n'
    main = '#include <stdio.h>\nint main(void) { printf("%u", (unsigned)compute()); return 0; }'
    serve = """
    int bfd_serve(void) {
        char digits[10];
        uint32_t left = compute(), count = 0;
        do digits[9 - count++] = (char)('0' + left % 10); while ((left /= 10) != 0);
        bfd_write(digits + 10 - count, count);
        return 0;
    }
    """
    expected = compile_and_run(tmp_path, compute + main, flags=("-ffp-contract=off",))
    assert run_instead(target, compute + serve) == (expected, 0)


def test_memory_functions_do_what_a_c_library_does(tmp_path: Path) -> None:
    source = runtime_sources() / "ports/common/helpers/memory.c"
    names = ("memcpy", "memmove", "memset", "memchr", "memcmp", "strcmp", "strlen")
    renamed = "".join(f"#define {name} own_{name}\n" for name in names)
    wrapper = f'{renamed}#include "{source.parent.parent}/include/string.h"\n#include "{source}"\n'
    assert compile_and_run(tmp_path, PROGRAMS / "memory.c", wrapper, flags=("-fno-builtin",)) == "0 wrong\n"


# The nRF52840's clock and UART, which QEMU's Cortex-M4 does not have


def test_the_cycle_counter_goes_on_where_32_bits_end(tmp_path: Path) -> None:
    port = runtime_sources() / "ports/nrf52840"
    flags = (f"-I{port}", f"-I{runtime_sources() / 'app'}")
    assert compile_and_run(tmp_path, PROGRAMS / "clock.c", flags=flags).startswith("0 wrong of ")


def test_the_uart_console_speaks_through_nordics_uart(tmp_path: Path) -> None:
    """On QEMU's micro:bit, whose nRF51 has the same UART at the same address."""
    available(NANO_GCC)
    folder = runtime_sources()
    program = tmp_path / "echo.elf"
    command = [
        "arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb", "-std=c99", "-Os", "-ffreestanding", "-nostdlib",
        f"-I{folder / 'app'}", f"-I{folder / 'ports/nrf52840'}", str(PROGRAMS / "echo.c"),
        str(folder / "ports/nrf52840/console_uart.c"), "-Wl,--section-start=.vectors=0,-Ttext=0x100,-e,0x101",
        "-o", str(program),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=60)
    emulator = ["qemu-system-arm", "-M", "microbit", "-display", "none", "-monitor", "none", "-serial", "stdio"]
    process = subprocess.Popen(
        [*emulator, "-kernel", str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    with process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            for line in (b"hello\n", np.random.default_rng(0).integers(32, 127, 2000, np.uint8).tobytes() + b"\n"):
                process.stdin.write(line)
                echo = b""
                while len(echo) < len(line):
                    echo += process.stdout.read(len(line) - len(echo))
                assert echo == line
        finally:
            process.kill()

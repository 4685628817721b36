"""The ESP-IDF project that export writes: its CMake files are run by CMake, and its program serves the protocol, on
this machine and with stand-ins for ESP-IDF (tests/esp_idf_stubs).
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bfedge.device.compiler import runtime_sources
from bfedge.device.partition_table import (
    APP,
    DATA,
    TABLE_BYTES,
    Partition,
    check,
    find,
    read_binary,
    to_binary,
    to_csv,
)
from bfedge.device.profile import Profile, load_profile
from bfedge.errors import BfedgeError
from bfedge.export.esp_idf import MODEL_PARTITION, build_project, plan_partitions, write_project
from bfedge.packed.golden import golden_vectors
from bfedge.packed.writer import pack
from tests.plain_runtime import copy_without_x86_kernels
from tests.random_models import random_images, random_lowered

STUBS = Path(__file__).parent / "esp_idf_stubs"
MIB = 1 << 20

needs_cmake = pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("gcc")), reason="needs cmake (pip install cmake) and gcc"
)
needs_xtensa = pytest.mark.skipif(
    not shutil.which("xtensa-lx106-elf-gcc"), reason="needs the packages gcc-xtensa-lx106 and picolibc-xtensa-lx106-elf"
)


def packed_model(seed: int, **fixed: Any) -> bytes:
    model = random_lowered(seed, **fixed)
    return pack(model, golden_vectors(model, random_images(model, 3, seed)))


def board(**sizes: int) -> Profile:
    """The ESP32-S3 with memories of these sizes, by kind; 0 takes one away."""
    profile = load_profile("esp32-s3")
    memories = tuple(
        msgspec.structs.replace(m, bytes=msgspec.structs.replace(m.bytes, value=sizes.get(m.kind, m.bytes.value)))
        for m in profile.memories
        if sizes.get(m.kind, 1)
    )
    return msgspec.structs.replace(profile, memories=memories)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, exported and built."""
    folder = tmp_path_factory.mktemp("esp") / "project"
    write_project(folder, board(), packed_model(3), copy_without_x86_kernels(folder.parent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDF_PATH", str(STUBS))
        build_project(folder)
    return folder


def talk(project: Path, commands: list[str], **environment: object) -> tuple[list[dict[str, Any]], str]:
    """The answers after `ready`, each with the right checksum, and what went over the other link."""
    result = subprocess.run(
        [str(project / "build" / "bfedge_device")],
        input="".join(f"{number} {command}\n" for number, command in enumerate(commands, 1)),
        env={**os.environ, "STUB_PARTITION": str(project / "model.bfe"), **{k: str(v) for k, v in environment.items()}},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0
    answers = []
    for line in result.stdout.splitlines():
        body, mark, check = line.rpartition(',"check":"')
        assert mark
        assert int(check.removesuffix('"}'), 16) == zlib.crc32(body.encode())
        answers.append(json.loads(line))
    assert answers[0]["type"] == "ready"
    return answers[1:], result.stderr


@pytest.mark.slow
@needs_cmake
def test_the_program_computes_the_reference_s_bits_and_tells_the_truth_about_its_memory(built: Path) -> None:
    packed = (built / "model.bfe").read_bytes()
    hello, *results = talk(built, ["hello", "golden 0 0", "golden 1 1", "golden 2 0", "profile 0 0"])[0]
    assert hello["board"] == "esp32-s3"
    assert hello["cpu"] == "ESP32-S3 revision 0.2, 2 cores"
    assert hello["clock"] == {"unit": "cycles", "hz": 240_000_000}
    assert "-ffp-contract=off" in hello["flags"]
    assert hello["model"]["bytes"] == len(packed)
    assert hello["model"]["crc32"] == f"{int.from_bytes(packed[20:24], 'little'):08x}"
    assert [r["differing"] for r in results if r["type"] == "result"] == [0, 0, 0]
    profile = results[-1]
    assert profile["type"] == "profile"
    assert profile["differing"] == 0
    assert profile["workspace"]["used"] == profile["workspace"]["stated"]
    assert profile["workspace"]["intact"]
    assert 0 < profile["stack"]["run"] < profile["stack"]["total"] < hello["stack"]["bytes"]
    assert 0 < profile["ticks"] < 60 * 240_000_000
    assert profile["memory"]["free"] < hello["memory"]["free"]


@pytest.mark.slow
@needs_cmake
def test_answers_go_over_the_link_that_the_command_came_over(built: Path) -> None:
    answers, other = talk(built, ["golden 0 0"])
    assert [a["type"] for a in answers] == ["result"]
    assert [json.loads(line)["type"] for line in other.splitlines()] == ["ready"]
    answers, other = talk(built, ["golden 0 0", "hello"], STUB_USB=1)
    assert [a["type"] for a in answers] == ["result", "hello"]
    assert [json.loads(line)["type"] for line in other.splitlines()] == ["ready"]


@pytest.mark.slow
@needs_cmake
def test_memory_is_taken_from_sram_first_then_from_psram(built: Path) -> None:
    commands = ["golden 0 0", "hello"]
    for sram, psram, kind in ((200_000, 8 * MIB, "sram"), (1000, 8 * MIB, "psram")):
        result, hello = talk(built, commands, STUB_SRAM=sram, STUB_PSRAM=psram)[0]
        assert result["differing"] == 0
        assert hello["memory"]["kind"] == kind
        assert hello["memory"]["available"] == max(sram, psram) - 15
    error, hello = talk(built, commands, STUB_SRAM=1000)[0]
    assert error["code"] == "memory"
    assert error["available"] == hello["memory"]["available"] == 985
    needed = error["needed"]
    assert talk(built, commands, STUB_SRAM=needed + 15)[0][0]["differing"] == 0
    assert talk(built, commands, STUB_SRAM=needed + 14)[0][0]["code"] == "memory"


@pytest.mark.slow
@needs_cmake
def test_a_partition_without_a_good_model_is_refused_with_the_reason(built: Path, tmp_path: Path) -> None:
    packed = (built / "model.bfe").read_bytes()
    damaged = bytearray(packed)
    damaged[-20] ^= 1
    file = tmp_path / "partition"
    for content, status in (
        (b"\xff" * 4096, "not a model"),
        (bytes(64 * 1024), "not a model"),
        (packed[:-16], "corrupt"),  # erased flash stands where its end was
        (bytes(damaged), "corrupt"),
    ):
        file.write_bytes(content)
        hello, golden = talk(built, ["hello", "golden 0 0"], STUB_PARTITION=file)[0]
        assert hello["model"] is None
        assert hello["refused"]["status"] == status
        assert golden["code"] == "no-model"
    file.write_bytes(packed)
    (hello,) = talk(built, ["hello"], STUB_PARTITION=file, STUB_PARTITION_BYTES=len(packed) - 1)[0]
    assert hello["refused"]["status"] == "truncated"


@pytest.mark.slow
@needs_cmake
def test_a_board_without_a_model_partition_says_that_there_is_no_model(built: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "STUB_PARTITION"}
    program = str(built / "build" / "bfedge_device")
    result = subprocess.run(
        [program], input="1 hello\n", env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    hello = json.loads(result.stdout.splitlines()[1])
    assert hello["model"] is None
    assert hello["refused"] is None


@pytest.mark.slow
@needs_cmake
def test_the_clock_counts_every_cycle_for_days(tmp_path: Path) -> None:
    """The cycle counter itself is round every 18 seconds."""
    runtime = runtime_sources()
    port = runtime / "ports" / "esp_idf"
    library, nothing = tmp_path / "device.so", tmp_path / "nothing.c"
    nothing.write_text("int bfd_serve(void) { return 0; }\n")  # in place of the device program
    sources = [port / "platform.c", STUBS / "stubs.c", nothing]
    includes = [f"-I{folder}" for folder in (STUBS / "include", *(runtime / d for d in ("app", "src", "include")))]
    command = ["gcc", "-O1", "-shared", "-fPIC", *includes, *map(str, sources), "-o", str(library), "-lpthread"]
    subprocess.run(command, check=True, timeout=120)
    device = ctypes.CDLL(str(library))
    device.bfd_ticks.restype = ctypes.c_uint64
    now = ctypes.c_uint64.in_dll(device, "stub_cycles")
    start = now.value = 5_000_000_123
    first = device.bfd_ticks()
    for later in (1, 239, 240, 2**31, 2**32 - 1, 2**32, 2**32 + 7, 240_000_000 * 3600, 240_000_000 * 86400 * 3 + 11):
        now.value = start + later
        assert device.bfd_ticks() - first == later


@needs_xtensa
@pytest.mark.parametrize("version", ["5,1,0", "5,4,0"])
def test_the_port_compiles_for_xtensa_without_a_warning(version: str) -> None:
    runtime = runtime_sources()
    includes = [STUBS / "include", runtime / "app", runtime / "src", runtime / "include"]
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"]
    for source in [runtime / "ports" / "esp_idf" / "platform.c", *(runtime / "app").glob("*.c")]:
        result = subprocess.run(
            [
                *("xtensa-lx106-elf-gcc", "-std=gnu17", "-fsyntax-only", *warnings),
                f"-DESP_IDF_VERSION=ESP_IDF_VERSION_VAL({version})",
                *(f"-I{folder}" for folder in includes),
                *("-isystem", "/usr/lib/xtensa-lx106-elf/include", str(source)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr


@pytest.mark.slow
@needs_cmake
def test_a_build_lists_the_model_at_its_partition(built: Path) -> None:
    files = json.loads((built / "build" / "flasher_args.json").read_text())["flash_files"]
    assert {offset: (built / "build" / file).resolve() for offset, file in files.items()} == {
        "0x110000": (built / "model.bfe").resolve()
    }


def test_without_esp_idf_the_user_learns_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for root in (None, str(tmp_path)):
        if root:
            monkeypatch.setenv("IDF_PATH", root)
        else:
            monkeypatch.delenv("IDF_PATH", raising=False)
        with pytest.raises(BfedgeError, match=r"no idf\.py") as refused:
            build_project(tmp_path)
        assert "export.sh" in str(refused.value.hint)


def test_a_failed_build_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idf = tmp_path / "bin" / "idf.py"
    idf.parent.mkdir()
    for script, why in (("exit 2", "status 2"), ("exit 0", "no flasher_args")):
        idf.write_text(f"#!/bin/sh\n{script}\n")
        idf.chmod(0o755)
        monkeypatch.setenv("PATH", f"{idf.parent}:{os.environ['PATH']}")
        with pytest.raises(BfedgeError, match=why):
            build_project(tmp_path)


def test_the_settings_follow_the_board_s_memories(tmp_path: Path) -> None:
    cases = (
        (board(), ("FLASHSIZE_8MB=y", "SPIRAM_MODE_OCT=y"), ("MODE_QUAD",)),
        (board(flash=16 * MIB, psram=2 * MIB), ("FLASHSIZE_16MB=y", "SPIRAM_MODE_QUAD=y"), ("MODE_OCT",)),
        (board(flash=4 * MIB, psram=0), ("FLASHSIZE_4MB=y", "CONFIG_SPIRAM=n"), ("MODE_", "SPEED_80M")),
    )
    for number, (profile, wanted, unwanted) in enumerate(cases):
        folder = tmp_path / str(number)
        figures = write_project(folder, profile, packed_model(0), runtime_sources())
        settings = (folder / "sdkconfig.defaults").read_text()
        assert "@" not in settings
        assert all(word in settings for word in wanted)
        assert not any(word in settings.split("PSRAM")[-1] for word in unwanted)
        assert figures["flash_bytes"] == figures["model_partition_bytes"] + 0x110000
        rows = (folder / "partitions.csv").read_text()
        assert f"model, data, 0x40, 0x110000, {figures['model_partition_bytes']:#x}\n" in rows
    with pytest.raises(BfedgeError, match="3000000 bytes"):
        write_project(tmp_path / "odd", board(flash=3_000_000), packed_model(0), runtime_sources())


def test_the_largest_model_fits_and_one_byte_more_is_refused_with_the_numbers() -> None:
    for flash in (2 * MIB, 4 * MIB, 8 * MIB):
        room = flash - 0x110000
        partition = find(plan_partitions(flash, room), MODEL_PARTITION)
        assert partition
        assert partition.size == room
        assert partition.offset % 0x10000 == 0
        with pytest.raises(BfedgeError, match=f"{room + 1} bytes.*room for {room}.*{flash}"):
            plan_partitions(flash, room + 1)


def test_a_partition_table_is_laid_out_as_esp_idf_does() -> None:
    table = to_binary([Partition("nvs", DATA, 2, 0x9000, 0x6000), Partition("factory", APP, 0, 0x10000, MIB)])
    assert len(table) == TABLE_BYTES
    assert table[:32].hex() == "aa50010200900000006000006e7673" + "00" * 13 + "00000000"
    assert table[32:64].hex() == "aa5000000000010000001000666163746f7279" + "00" * 9 + "00000000"
    assert table[64:96].hex() == "ebeb" + "ff" * 14 + "e6c39985bd0f443a39e6865e110adaa5"
    assert table[96:] == b"\xff" * (TABLE_BYTES - 96)


def test_a_partition_table_reads_back_as_written() -> None:
    partitions = plan_partitions(8 * MIB, 100)
    assert read_binary(to_binary(partitions), "here") == partitions
    assert to_csv(partitions).splitlines()[3] == "factory, app, factory, 0x10000, 0x100000"
    without_md5 = to_binary(partitions)[: 32 * len(partitions)].ljust(TABLE_BYTES, b"\xff")
    assert read_binary(without_md5, "here") == partitions


def test_a_damaged_partition_table_is_refused() -> None:
    table = to_binary(plan_partitions(8 * MIB, 100))
    with pytest.raises(BfedgeError, match="no partition table on the board: the flash is empty"):
        read_binary(b"\xff" * TABLE_BYTES, "on the board")
    for at in range(0, 5 * 32):
        damaged = bytearray(table)
        damaged[at] ^= 0x10
        if 4 * 32 + 2 <= at < 4 * 32 + 16:
            continue  # padding of the checksum's entry, which means nothing
        with pytest.raises(BfedgeError, match=r"damaged|no valid partition table"):
            read_binary(bytes(damaged), "here")
    with pytest.raises(BfedgeError, match="no end"):
        read_binary(table[:64], "here")


def test_partitions_that_cannot_be_are_refused() -> None:
    good = Partition("app", APP, 0, 0x10000, MIB)
    check([good], 2 * MIB)
    replace = {
        "no multiple": Partition("app", APP, 0, 0x11000, MIB),
        "which is no multiple": Partition("app", APP, 0, 0x10000, MIB + 1),
        "before the end of the partition table": Partition("x", DATA, 0, 0x8000, 0x1000),
        "ends at 2162688 bytes, the flash at 2097152": Partition("app", APP, 0, 0x10000, 2 * MIB),
        "not 1 to 15": Partition("a" * 16, APP, 0, 0x10000, MIB),
    }
    for words, bad in replace.items():
        with pytest.raises(BfedgeError, match=words):
            check([bad], 2 * MIB)
    with pytest.raises(BfedgeError, match=r"begins at 0x20000, before the end of partition `app` at 0x110000"):
        check([good, Partition("b", DATA, 6, 0x20000, 0x1000)], 2 * MIB)
    with pytest.raises(BfedgeError, match="two partitions"):
        check([good, Partition("app", DATA, 6, 0x110000, 0x1000)], 2 * MIB)

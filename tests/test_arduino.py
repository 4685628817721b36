"""The Arduino library, compiled as Arduino's builder does, and its sketches run on the host and on a Cortex-M4."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfedge.device.host import IN_PLACE, HostModel
from bfedge.device.profile import load_profile
from bfedge.export.arduino import write_library
from bfedge.lowered import reference
from bfedge.packed.golden import golden_vectors
from bfedge.packed.writer import pack
from tests.plain_runtime import copy_without_x86_kernels
from tests.random_models import random_images, random_lowered

CORE = Path(__file__).parent / "arduino_core"
CASES = 3

# The core's own flags for the Nano 33 BLE; -ffp-contract is not among them.
NANO_33_BLE = (
    *("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=softfp"),
    *("-Os", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers", "-Wno-unused-parameter"),
    *("-fdata-sections", "-ffunction-sections", "-fno-delete-null-pointer-checks", "-fomit-frame-pointer"),
    *("-funsigned-char", "-DARDUINO=10819", "-DARDUINO_ARDUINO_NANO33BLE", "-DARDUINO_ARCH_MBED"),
)
HOST = ("-O2", "-Wall", "-Wextra", "-Werror", "-DARDUINO=10819")

needs_cortex_m4 = pytest.mark.skipif(
    shutil.which("arm-none-eabi-g++") is None or shutil.which("qemu-system-arm") is None,
    reason="needs arm-none-eabi-g++ and qemu-system-arm (packages gcc-arm-none-eabi, libnewlib-arm-none-eabi and "
    "qemu-system-arm)",
)


def run(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **more)


def compile_all(
    sources: list[Path], prefix: str, flags: tuple[str, ...], includes: list[Path], objects: Path
) -> list[str]:
    """Every C and C++ file on its own, with these include folders and no others, unless the same text has been compiled
    to `objects` already: libraries differ in their models only.
    """
    found = []
    for source in sources:
        is_c = source.suffix == ".c"
        command = [prefix + ("gcc" if is_c else "g++"), "-std=gnu11" if is_c else "-std=gnu++14", *flags]
        command += [] if is_c else ["-fno-rtti", "-fno-exceptions", "-fno-threadsafe-statics"]
        search = [f"-I{folder}" for folder in includes]
        text = run([*command, *search, "-E", "-P", str(source)]).stdout
        key = hashlib.sha256("\0".join((*command, source.name, text)).encode()).hexdigest()
        target = objects / f"{key[:16]}-{source.name}.o"
        if not target.exists():
            result = run([*command, *search, "-c", str(source), "-o", str(target)])
            assert result.returncode == 0, result.stderr
        found.append(str(target))
    return found


def build_sketch(library: Path, sketch: str, folder: Path, on_host: bool, objects: Path) -> list[str]:
    """The sketch with the library and the stand-in for the board's core; returns the command that runs it."""
    prefix, flags = ("", HOST) if on_host else ("arm-none-eabi-", NANO_33_BLE)
    library_sources = sorted([*(library / "src").rglob("*.c"), *(library / "src").rglob("*.cpp")])
    console = CORE / ("console_host.c" if on_host else "console_cortex_m4.c")
    folder.mkdir()
    ino = library / "examples" / sketch / f"{sketch}.ino"
    converted = folder / f"{sketch}.ino.cpp"
    converted.write_text(f'#include <Arduino.h>\n#line 1 "{ino}"\n{ino.read_text()}')
    compiled = compile_all(library_sources, prefix, flags, [CORE, library / "src"], objects)
    compiled += compile_all([converted], prefix, flags, [CORE, library / "src"], objects)
    compiled += compile_all([CORE / "core.cpp", console], prefix, flags, [CORE], objects)
    program = folder / "sketch.elf"
    link = [] if on_host else ["-nostartfiles", "--specs=nano.specs", "-T", str(CORE / "cortex_m4.ld")]
    result = run([f"{prefix}gcc", *flags, "-Wl,--gc-sections", *link, *compiled, "-o", str(program)])
    assert result.returncode == 0, result.stderr
    if on_host:
        return [str(program)]
    emulator = ["qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-serial", "none", "-monitor", "none"]
    return [*emulator, "-semihosting-config", "enable=on,target=native", "-kernel", str(program)]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled files that the tests share."""
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(scope="module")
def make_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    runtime = copy_without_x86_kernels(tmp_path_factory.mktemp("plain"))

    def make(packed: bytes, tile: int = 0) -> Path:
        folder = tmp_path_factory.mktemp("arduino") / "bfedge"
        write_library(folder, runtime, packed, load_profile("nano33-ble"), tile)
        return folder

    return make


def packed_model(seed: int, wrong_case: int | None = None) -> bytes:
    model = random_lowered(seed)
    golden = golden_vectors(model, random_images(model, CASES, seed))
    if wrong_case is not None:
        outputs = golden.outputs.copy()
        outputs[wrong_case, 0] = np.nextafter(outputs[wrong_case, 0], np.float32(np.inf))
        golden = replace(golden, outputs=outputs)
    return pack(model, golden)


@pytest.fixture(scope="module")
def library(make_library: Callable[..., Path]) -> Path:
    return make_library(packed_model(4))


def answers(output: str) -> Iterator[dict[str, Any]]:
    for line in output.splitlines():
        answer = json.loads(line)
        body, check = line.rsplit(',"check"', 1)
        assert f"{zlib.crc32(body.encode()):08x}" in check
        yield answer


# ----- running -----


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 7])
@pytest.mark.parametrize("on_host", [pytest.param(False, marks=needs_cortex_m4), True], ids=["cortex-m4", "host"])
def test_the_device_sketch_answers_with_the_reference_bits(
    make_library: Callable[..., Path], objects: Path, tmp_path: Path, seed: int, on_host: bool
) -> None:
    packed = packed_model(seed)
    model = random_lowered(seed)
    images = random_images(model, CASES + 1, seed + 100)
    command = build_sketch(make_library(packed), "Device", tmp_path / "build", on_host, objects)
    lines = ["1 hello", *(f"{10 + case} golden {case} 0" for case in range(CASES)), "20 profile 0 1"]
    lines += [f"{30 + i} image 0 {image.tobytes().hex()}" for i, image in enumerate(images)]
    result = run(command, input="\n".join([*lines, "99 quit", ""]))
    assert result.returncode == 0, result.stderr

    by_id = {answer["id"]: answer for answer in answers(result.stdout)}
    hello = by_id[1]
    assert hello["board"] == "nano33-ble"
    assert hello["model"]["bytes"] == len(packed)
    assert on_host or hello["cpu"] == "Cortex-M4"
    assert [by_id[10 + case]["differing"] for case in range(CASES)] == [0] * CASES
    for i, logits in enumerate(reference.run(model, images)):
        expected = "".join(f"{int(word):08x}" for word in logits.view(np.uint32))
        assert by_id[30 + i]["logits"] == expected
    profile = by_id[20]
    assert profile["workspace"] == {
        "stated": HostModel(packed, kernels=IN_PLACE).workspace_bytes(1),
        "used": HostModel(packed, kernels=IN_PLACE).workspace_bytes(1),
        "intact": True,
    }
    if on_host:  # a core whose stack nobody knows
        assert hello["stack"]["bytes"] is None
        assert profile["stack"] == {"run": None, "open": None, "total": None}
    else:
        assert hello["stack"]["bytes"] == 4096
        assert 0 < profile["stack"]["run"] < profile["stack"]["total"] < 4096
    assert by_id[99]["type"] == "bye"


@pytest.mark.slow
@pytest.mark.parametrize("on_host", [pytest.param(False, marks=needs_cortex_m4), True], ids=["cortex-m4", "host"])
def test_the_classify_sketch_compares_every_golden_case(
    make_library: Callable[..., Path], objects: Path, tmp_path: Path, on_host: bool
) -> None:
    """The last bit of one expected logit is wrong, and the sketch says so of that case only."""
    model = random_lowered(5)
    images = random_images(model, CASES, 5)
    command = build_sketch(
        make_library(packed_model(5, wrong_case=1), 1), "Classify", tmp_path / "build", on_host, objects
    )
    result = run(command)
    assert result.returncode == 0, result.stdout + result.stderr
    found = re.findall(r"case (\d+): class (\d+).*?, (equal|DIFFERENT), \d+ us", result.stdout)
    classes = [int(logits.argmax()) for logits in reference.run(model, images)]
    assert found == [
        ("0", str(classes[0]), "equal"),
        ("1", str(classes[1]), "DIFFERENT"),
        ("2", str(classes[2]), "equal"),
    ]
    assert "2 of 3 golden cases equal" in result.stdout


@pytest.mark.slow
def test_the_device_sketch_has_memory_for_the_tile_and_no_larger_one(
    make_library: Callable[..., Path], objects: Path, tmp_path: Path
) -> None:
    packed = packed_model(4)
    runtime = HostModel(packed, kernels=IN_PLACE)
    assert runtime.arena_bytes(0) > runtime.arena_bytes(1)
    command = build_sketch(make_library(packed, 1), "Device", tmp_path / "build", True, objects)
    result = run(command, input="1 golden 0 1\n2 golden 0 0\n3 quit\n")
    by_id = {answer["id"]: answer for answer in answers(result.stdout)}
    assert by_id[1]["differing"] == 0
    assert by_id[2]["code"] == "memory"
    assert by_id[2]["needed"] == runtime.arena_bytes(0)
    assert by_id[2]["available"] == runtime.arena_bytes(1)


@pytest.mark.slow
@needs_cortex_m4
def test_the_core_s_flags_fuse_nothing_in_the_library(library: Path, objects: Path) -> None:
    sources = sorted((library / "src").rglob("*.c"))
    for file in compile_all(sources, "arm-none-eabi-", NANO_33_BLE, [library / "src"], objects):
        assert not re.search(r"\bvfn?m[as]", run(["arm-none-eabi-objdump", "-d", file]).stdout), file


# ----- form -----


def properties(library: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (library / "library.properties").read_text().splitlines())


def test_library_properties_keep_arduino_s_specification(library: Path) -> None:
    fields = properties(library)
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    optional = {"depends", "dot_a_linkage", "includes", "precompiled", "ldflags"}
    assert required <= fields.keys() <= required | optional
    assert all(fields.values())
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}", fields["name"])
    assert not fields["name"].lower().startswith("arduino")
    assert fields["name"] == library.name
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", fields["version"])
    assert not fields["paragraph"].startswith(fields["sentence"])  # the editor shows one after the other
    categories = (
        "Display|Communication|Signal Input/Output|Sensors|Device Control|Timing|Data Storage|Data Processing|Other"
    )
    assert re.fullmatch(categories, fields["category"])
    assert fields["url"].startswith("https://")
    assert fields["architectures"] == "*"
    assert all((library / "src" / header).is_file() for header in fields["includes"].split(","))
    header = (library / "src" / "bfedge.h").read_text()
    numbers = [re.search(rf"#define BFE_VERSION_{part} (\d+)", header) for part in ("MAJOR", "MINOR", "PATCH")]
    assert fields["version"] == ".".join(number[1] for number in numbers if number)


def test_the_library_s_folders_keep_arduino_s_layout(library: Path) -> None:
    """With src/, sources lie nowhere else, and no `utility` folder; a sketch has its folder's name."""
    assert {entry.name for entry in library.iterdir()} == {
        *("library.properties", "library.json", "keywords.txt", "src", "examples", "extras")
    }
    sketches = sorted(library.rglob("*.ino"))
    assert [sketch.parent.name for sketch in sketches] == [sketch.stem for sketch in sketches] == ["Classify", "Device"]
    files = [f for f in library.rglob("*") if f.is_file()]
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", part) for f in files for part in f.parts[-2:])
    names = [f.name for f in (library / "src").rglob("*.c*")]
    assert len(names) == len(set(names))


def test_keywords_are_separated_by_single_tabs_and_exist(library: Path) -> None:
    text = "".join(f.read_text() for f in (library / "src").rglob("*.h"))
    lines = [line for line in (library / "keywords.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        word, kind = line.split("\t")
        assert kind in ("KEYWORD1", "KEYWORD2", "LITERAL1")
        assert re.search(rf"\b{word}\b", text), word


def test_the_model_s_array_is_the_file(library: Path) -> None:
    source = (library / "src" / "bfedge_model.c").read_text()
    assert bytes(int(byte, 16) for byte in re.findall(r"\b0x([0-9a-f]{2})\b", source)) == packed_model(4)
    assert "aligned(BFE_ALIGNMENT)" in source


def test_the_same_model_gives_the_same_library(make_library: Callable[..., Path]) -> None:
    packed = packed_model(6)
    first, second = make_library(packed), make_library(packed)
    names = [sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()) for folder in (first, second)]
    assert names[0] == names[1]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names[0])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pio") is None, reason="needs PlatformIO (`pip install platformio`)")
def test_platformio_takes_the_manifest_and_packs_the_library(library: Path, tmp_path: Path) -> None:
    environment = {"PLATFORMIO_CORE_DIR": str(tmp_path / "core"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}  # nothing is fetched
    pio = str(shutil.which("pio"))
    result = run([pio, "pkg", "pack", str(library), "-o", str(tmp_path)], env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [f.name for f in tmp_path.glob("*.tar.gz")] == [f"bfedge-{properties(library)['version']}.tar.gz"]

    manifest = json.loads((library / "library.json").read_text())
    assert "-ffp-contract=off" in manifest["build"]["flags"]
    assert all((library / manifest["build"]["srcDir"] / header).is_file() for header in manifest["headers"])

    project = library / "extras" / "platformio"
    result = run([pio, "project", "config", "-d", str(project), "--json-output"], env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    sections = {name: dict(options) for name, options in json.loads(result.stdout)}
    assert (project / sections["platformio"]["src_dir"] / "Device.ino").is_file()
    assert (
        project / sections["env:nano33ble"]["lib_deps"][0].removeprefix("symlink://")
    ).resolve() == library.resolve()

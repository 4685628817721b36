"""Profiles of boards: the ones that come with bfedge, a user's own, and whether a model fits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import util
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bfedge.cli import main
from bfedge.device.fit import Fit, Need, fit
from bfedge.device.host import IN_PLACE, HostModel
from bfedge.device.profile import Profile, Quantity, known_profiles, load_profile, profile_folder
from bfedge.errors import BfedgeError
from bfedge.packed.writer import pack
from tests.random_models import random_lowered

NAMES = [profile.name for profile in known_profiles()]
OWN = """
name = "my-board"
title = "Mine"
port = "posix"
[cpu]
name = "Some CPU"
machine = "aarch64"
clock_hz = { value = 1e9, source = "measured" }
[[memories]]
name = "flash"
kind = "flash"
holds = ["model"]
bytes = { value = 1000, source = "data sheet" }
usable = { value = 0.5, source = "our choice" }
[[memories]]
name = "SRAM"
kind = "sram"
holds = ["workspace"]
bytes = { value = 4000, source = "data sheet" }
usable = { value = 1, source = "our choice" }
[build]
zig = ["-target", "aarch64-linux-musl"]
"""
ESP_WITHOUT_COMPILER = (
    OWN.replace("posix", "esp_idf").partition("[build]")[0] + '[emulate]\nprogram = "qemu-system-xtensa"\n'
)
NRF_WITHOUT_COMPILER = OWN.replace("posix", "nrf52840").partition("[build]")[0]
ESP_WITHOUT_MEMORIES = OWN.replace("posix", "esp_idf").partition("[[memories]]")[0]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    return path


def refusal(path: Path) -> str:
    """The one line that loading gives."""
    with pytest.raises(BfedgeError) as refused:
        load_profile(str(path))
    assert "\n" not in refused.value.message
    assert len(refused.value.message.replace(str(path), "")) < 300
    return refused.value.message


def test_the_papers_boards_are_there_with_their_short_names() -> None:
    expected = {"host", "jetson-nano", "esp32-s3", "nano33-ble", *(f"raspberry-pi-{n}" for n in ("zero", 3, 4, 5))}
    assert set(NAMES) == expected
    short = {"jetson": "jetson-nano", "pi": "raspberry-pi-4", "pi-zero": "raspberry-pi-zero", "pi-5": "raspberry-pi-5"}
    short |= {"esp32": "esp32-s3", "nano33": "nano33-ble", "arduino-nano-33": "nano33-ble", "pi-3": "raspberry-pi-3"}
    assert {alias: load_profile(alias).name for alias in short} == short


def test_no_two_boards_share_a_name_or_an_alias() -> None:
    names = [name for profile in known_profiles() for name in (profile.name, *profile.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_called_after_its_board(name: str) -> None:
    assert load_profile(str(profile_folder() / f"{name}.toml")) == load_profile(name)


def quantities(value: Any) -> list[Quantity]:
    if isinstance(value, Quantity):
        return [value]
    if isinstance(value, msgspec.Struct):
        value = [getattr(value, field) for field in value.__struct_fields__]
    return [q for item in value for q in quantities(item)] if isinstance(value, (list, tuple)) else []


@pytest.mark.parametrize("name", [n for n in NAMES if n != "host"])
def test_every_number_says_where_it_is_from(name: str) -> None:
    profile = load_profile(name)
    numbers = quantities(profile)
    assert len(numbers) >= 3
    published = ("data sheet", "Datasheet", "Guide", "user guide", "Documentation", "Technical Specifications")
    published += ("Product Specification", "ISSCC", "arXiv")
    for number in numbers:
        ours = number.source.startswith("our choice: ")
        assert ours or number.source.startswith("measured ") or any(p in number.source for p in published), number
    for memory in profile.memories:
        assert memory.usable.source.startswith("our choice: ")
        assert not memory.bytes.source.startswith("our choice")


def test_shares_are_whole_pages_of_the_memories() -> None:
    nano = {memory.name: memory.room for memory in load_profile("nano33-ble").memories}
    assert nano == {"flash": (1024 - 64 - 48) * 1024, "SRAM": (256 - 4 - 12) * 1024}
    esp = {memory.name: memory.room for memory in load_profile("esp32-s3").memories}
    assert esp == {"flash": 0x800000 - 0x110000, "SRAM": 256 * 1024, "PSRAM": 7 * 2**20}


def test_a_users_own_file_works_by_its_path(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = load_profile(str(own))
    assert (profile.name, profile.cpu.clock_hz) == ("my-board", Quantity(1e9, "measured"))
    assert [memory.room for memory in profile.memories] == [500, 4000]
    assert main.run(["devices", str(own)]) == 0
    assert "my-board: Mine" in capsys.readouterr().out


def test_a_users_own_file_needs_no_suffix_and_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "board"
    path.write_text("\ufeff" + OWN, encoding="utf-8")
    assert load_profile(str(path)).name == "my-board"


def test_a_known_name_is_not_taken_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("jetson").write_text("something else")
    assert load_profile("jetson").name == "jetson-nano"


def test_an_unknown_board_is_answered_with_the_nearest_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["devices", "Raspberry-Pi-6"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "there is no board `Raspberry-Pi-6`; is it `raspberry-pi-" in err
    assert "known: esp32-s3, host, jetson-nano" in err
    with pytest.raises(BfedgeError, match=r"^there is no board `qqqq`$"):
        load_profile("qqqq")


BAD = {
    "wrong type": ('machine = "aarch64"', "machine = 5", "cpu.machine is 5; expected `str`, got `int`"),
    "unknown field": ("[build]", "[build]\nfoo = 1", "unknown field `foo`, in build"),
    "missing field": ('title = "Mine"', "", "missing required field `title`"),
    "missing source": (', source = "measured"', "", "missing required field `source`, in cpu.clock_hz"),
    "empty source": ('source = "measured"', 'source = " "', "cpu.clock_hz.source is ' '; allowed is printable text"),
    "control character": ('title = "Mine"', r'title = "\u001b[31m"', "title is '\\x1b[31m'; allowed is printable"),
    "unknown port": ('port = "posix"', 'port = "avr"', "port is 'avr'; invalid enum value"),
    "upper-case name": ('"my-board"', '"My-Board"', "name is 'My-Board'; expected `str` matching regex"),
    "name with a path": ('"my-board"', '"../x"', "name is '../x'; expected `str` matching regex"),
    "known name": ('"my-board"', '"esp32"', "`esp32` names the board esp32-s3"),
    "known alias": ('"my-board"', '"my-board"\naliases = ["pi"]', "`pi` names the board raspberry-pi-4"),
    "alias twice": ('"my-board"', '"my-board"\naliases = ["a", "a"]', "aliases is ['a', 'a']; allowed is each once"),
    "zero clock": ("value = 1e9", "value = 0", "cpu.clock_hz.value is 0; allowed is 1000 to 1e+11"),
    "negative": ("value = 1e9", "value = -1e9", "cpu.clock_hz.value is -1000000000.0; allowed is"),
    "nan": ("value = 1e9", "value = nan", "cpu.clock_hz.value is nan; allowed is"),
    "infinite": ("value = 1e9", "value = inf", "cpu.clock_hz.value is inf; allowed is"),
    "text for a number": ("value = 1e9", 'value = "1e9"', "cpu.clock_hz.value is '1e9'; expected `int | float`"),
    "bool for a number": ("value = 1e9", "value = true", "cpu.clock_hz.value is True; expected `int | float`"),
    "date for a number": ("value = 1e9", "value = 2024-01-01", "expected `int | float`"),
    "huge number": ("value = 1000,", f"value = {'9' * 400},", "memories[0].bytes.value"),
    "enormous number": ("value = 1000,", f"value = {'9' * 5000},", "a number of thousands of digits"),
    "half a byte": ("value = 1000,", "value = 1000.5,", "memories[0].bytes.value is 1000.5; allowed is a whole number"),
    "share of nothing": ("value = 0.5", "value = 0.0", "memories[0].usable.value is 0.0; allowed is more than 0, at"),
    "share above 1": ("value = 0.5", "value = 1.01", "memories[0].usable.value is 1.01; allowed is more than 0, at"),
    "no memory for the model": ('holds = ["model"]', 'holds = ["workspace"]', "at least one that holds the model"),
    "no memory for work": ('holds = ["workspace"]', 'holds = ["model"]', "at least one that holds the workspace"),
    "memory for nothing": ('holds = ["model"]', "holds = []", "memories[0].holds is []; expected `array` of length"),
    "memory for something else": ('holds = ["model"]', 'holds = ["music"]', "memories[0].holds[0] is 'music'; inv"),
    "memory twice": ('name = "SRAM"', 'name = "flash"', "memories[1].name is 'flash'; allowed is a name that no other"),
    "no cores": ('machine = "aarch64"', 'machine = "aarch64"\ncores = 0', "cpu.cores is 0; expected `int` >= 1"),
    "no compiler": (OWN, NRF_WITHOUT_COMPILER, "allowed is a compiler for the port nrf52840, in gcc or zig"),
    "no compiler to emulate": (OWN, ESP_WITHOUT_COMPILER, "build.gcc is ''; allowed is a compiler for the emulator's"),
    "firmware without memories": (OWN, ESP_WITHOUT_MEMORIES, "memories is []; allowed is flash and RAM, for the"),
    "malformed": ('title = "Mine"', "title = Mine", "Invalid value (at line 3, column 9)"),
    "key twice": ('title = "Mine"', 'title = "a"\ntitle = "b"', "Cannot overwrite a value (at line 4"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_each_kind_of_fault_is_one_line_with_field_and_value(
    fault: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after, expected = BAD[fault]
    assert OWN.count(before) >= 1
    own.write_text(OWN.replace(before, after, 1))
    message = refusal(own)
    assert message.startswith(f"`{own}`: ")
    assert expected in message
    assert main.run(["devices", str(own)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == f"error: {message}"


def test_what_is_no_toml_file_at_all_is_refused_in_one_line(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\x7fELF\xff\xfe\x00")
    assert "is no text: byte 4 is not UTF-8" in refusal(binary)
    binary.write_bytes(b"\x00" * 100)
    assert "(at line 1, column 1)" in refusal(binary)
    binary.write_bytes(b"#" * 70_000)
    assert "is larger than 65536 bytes" in refusal(binary)
    binary.write_text("x = " + "[" * 30_000)
    refusal(binary)
    binary.write_text("x = " + "{a=" * 20_000)
    refusal(binary)
    binary.write_text("")
    assert "missing required field `name`" in refusal(binary)
    assert "is a folder" in refusal(tmp_path)
    assert "there is no file" in refusal(tmp_path / "missing.toml")
    assert "there is no file" in refusal(Path("a" * 5000 + ".toml"))
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    assert "there is no file" in refusal(pipe)


# Whether a model fits.


def small_board(flash: int, sram: int, psram: int = 0) -> Profile:
    """Its own numbers, and all of each memory for a model."""

    def memory(name: str, kind: str, holds: str, size: int) -> dict[str, Any]:
        whole = {"value": 1, "source": "test"}
        return {
            "name": name,
            "kind": kind,
            "holds": [holds],
            "bytes": {"value": size, "source": "test"},
            "usable": whole,
        }

    memories = [memory("flash", "flash", "model", flash), memory("SRAM", "sram", "workspace", sram)]
    if psram:
        memories.append(memory("PSRAM", "psram", "workspace", psram))
    values = {"name": "small", "title": "t", "port": "nrf52840", "cpu": {"name": "c", "machine": "m"}}
    return msgspec.convert({**values, "memories": memories}, Profile)


def workspace(tile: int) -> int:
    """Of a made-up model with 16 tokens: grows by 100 a token."""
    return 1000 + 100 * (tile or 16)


def fitted(board: Profile, model: int = 5000, tile: int | None = None) -> Fit:
    return fit(board, lambda _: Need(model, workspace, {"image": 64}, 16), tile)


def test_a_model_fits_to_the_byte() -> None:
    found = fitted(small_board(5000, 2664))
    assert (found.tile, found.workspace_bytes) == (0, 2600)
    flash, sram = found.memories
    assert (flash.needed, flash.room, flash.size, flash.contents) == (5000, 5000, 5000, ("model",))
    assert (sram.needed, sram.room, sram.size, sram.contents) == (2664, 2664, 2664, ("workspace",))
    with pytest.raises(BfedgeError, match=r"^model.bfe is 5 KiB; small has 4 KiB of flash for a model$"):
        fitted(small_board(4999, 2664))


@pytest.mark.parametrize("tile", range(1, 16))
def test_the_largest_tile_that_fits_is_taken(tile: int) -> None:
    exact = 1000 + 100 * tile + 64
    assert fitted(small_board(5000, exact)).tile == tile
    assert fitted(small_board(5000, exact + 99)).tile == tile
    below = fitted(small_board(5000, exact - 1)).tile if tile > 1 else None
    assert below == (tile - 1 if tile > 1 else None)


def test_not_even_one_token_is_said_with_the_numbers_and_a_board_that_has_room() -> None:
    with pytest.raises(BfedgeError) as refused:
        fitted(small_board(5000, 1163))
    assert refused.value.message == (
        "model.bfe needs 2 KiB of RAM with one token at a time; small has 1 KiB of RAM for a model"
    )
    assert refused.value.hint is not None
    assert refused.value.hint.startswith("it fits esp32-s3, jetson-nano, nano33-ble")


def test_a_tile_that_does_not_fit_is_answered_with_one_that_does() -> None:
    with pytest.raises(BfedgeError) as refused:
        fitted(small_board(5000, 1464), tile=5)
    assert refused.value.message == (
        "model.bfe needs 2 KiB of RAM with 5 tokens at a time; small has 1 KiB of RAM for a model"
    )
    assert refused.value.hint == "`--tile 4` needs 2 KiB"
    assert fitted(small_board(5000, 1464), tile=4).tile == 4
    assert fitted(small_board(5000, 1464), tile=2).tile == 2


def test_the_first_memory_is_taken_if_four_tokens_fit_it() -> None:
    """Four columns share a pass over a matrix in place: more tokens are not worth a slower memory, fewer not enough."""
    board = small_board(5000, 1464, psram=4000)
    assert fitted(board).tile == 4
    assert [m.contents for m in fitted(board).memories] == [("model",), ("workspace",), ()]
    assert [m.contents for m in fitted(board, tile=0).memories] == [("model",), (), ("workspace",)]
    for sram in (1463, 100):
        board = small_board(5000, sram, psram=4000)
        assert fitted(board).tile == 0
        assert [m.contents for m in fitted(board).memories] == [("model",), (), ("workspace",)]
    assert fitted(small_board(5000, 1463, psram=1300)).tile == 3
    assert fitted(small_board(5000, 1263, psram=1300)).tile == 2


def test_model_and_workspace_in_one_memory_share_it() -> None:
    board = load_profile("raspberry-pi-zero")
    (dram,) = board.memories
    found = fitted(board, dram.room - 2664)
    assert (found.tile, found.memories[0].contents) == (0, ("model", "workspace"))
    assert found.memories[0].needed == dram.room
    assert fitted(board, dram.room - 2663).tile == 15
    with pytest.raises(BfedgeError, match=r"raspberry-pi-zero has 1 KiB of memory for a model beside it$"):
        fitted(board, dram.room - 1163)


def test_a_model_too_large_for_every_board_is_said_so() -> None:
    with pytest.raises(BfedgeError) as refused:
        fitted(load_profile("esp32-s3"), 10**13)
    assert refused.value.message.endswith("esp32-s3 has 7,104 KiB of flash for a model")
    assert "no board that bfedge knows has room for it" in str(refused.value.hint)


def test_everything_fits_this_machine() -> None:
    found = fitted(load_profile("host"), 10**15)
    assert (found.tile, found.memories) == (0, ())


@pytest.mark.parametrize("seed", range(5))
def test_the_runtimes_own_workspace_decides(seed: int) -> None:
    model = random_lowered(seed)
    packed = pack(model)
    runtime = HostModel(packed, kernels=IN_PLACE)
    tokens = model.shape.tokens
    sizes = [runtime.workspace_bytes(tile) for tile in range(1, tokens + 1)]
    assert sizes == sorted(sizes)  # what the search relies on
    assert sizes[-1] == runtime.workspace_bytes(0)
    for room in {size + extra for size in sizes for extra in (0, 15)}:
        need = Need(len(packed), runtime.workspace_bytes, {}, tokens)
        chosen = fit(small_board(len(packed), room), lambda _: need, None).tile  # noqa: B023
        assert runtime.workspace_bytes(chosen) <= room
        assert chosen == 0 or runtime.workspace_bytes(chosen + 1) > room


@pytest.mark.slow
def test_the_installed_package_has_the_profiles(tmp_path: Path) -> None:
    """What the wheel's build installs beside the Python files."""
    build, installed = tmp_path / "build", tmp_path / "installed"
    repository = profile_folder().parent
    options = ["-DSKBUILD=2", "-DCMAKE_C_FLAGS_RELEASE=-O0"]  # the library is not used here
    configure = ["cmake", "-S", repository / "runtime_c", "-B", build, "-G", "Ninja", *options]
    for command in (configure, ["cmake", "--build", build], ["cmake", "--install", build, "--prefix", installed]):
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    shutil.copytree(repository / "bfedge", installed / "bfedge", dirs_exist_ok=True)
    code = "from bfedge.device.profile import *; print(profile_folder(), *(p.name for p in known_profiles()))"
    # Without `site`, which would bring back the repository's own package where that is installed for development.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), sysconfig.get_path("purelib")])}
    command = [sys.executable, "-S", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == [str(installed / "bfedge" / "devices"), *NAMES]


# The flags.

DOT = """
#include <stdint.h>
int dot(const int8_t *a, const int8_t *b, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += (int)a[i] * b[i];
    return sum;
}
float scale(float a, float b) { return a * b; }
"""


def assembly(compiler: list[str], flags: tuple[str, ...], folder: Path) -> str:
    source, output = folder / "dot.c", folder / "dot.s"
    source.write_text(DOT)
    command = [*compiler, *flags, "-O3", "-S", str(source), "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return output.read_text()


def uses_only_what_the_board_has(name: str, text: str) -> None:
    assert ("sdot" in text) == (name == "raspberry-pi-5")  # ARMv8.2's dot product
    if name == "nano33-ble":
        assert "vmul.f32" in text  # the FPU
        assert "__aeabi_fmul" not in text


@pytest.mark.slow
@pytest.mark.skipif(not util.find_spec("ziglang"), reason="needs the Python package ziglang")
@pytest.mark.parametrize("name", [p.name for p in known_profiles() if p.build.zig])
def test_zig_knows_the_cpu(name: str, tmp_path: Path) -> None:
    build = load_profile(name).build
    flags = build.zig + build.zig_cpu
    uses_only_what_the_board_has(name, assembly([sys.executable, "-m", "ziglang", "cc"], flags, tmp_path))


@pytest.mark.parametrize("name", [p.name for p in known_profiles() if p.build.gcc])
def test_gcc_knows_the_cpu(name: str, tmp_path: Path) -> None:
    build = load_profile(name).build
    if shutil.which(build.gcc) is None:
        pytest.skip(f"needs {build.gcc} (`bfedge doctor` says how to install it)")
    uses_only_what_the_board_has(name, assembly([build.gcc], build.gcc_flags, tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(not util.find_spec("ziglang"), reason="needs the Python package ziglang")
@pytest.mark.parametrize("name", [p.name for p in known_profiles() if p.port == "posix" and p.emulate])
def test_a_static_program_runs_on_the_emulated_cpu(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    assert profile.emulate is not None
    if shutil.which(profile.emulate.program) is None:
        pytest.skip(f"needs {profile.emulate.program} (Debian: {profile.emulate.package})")
    source, compiled, program = tmp_path / "hello.c", tmp_path / "hello.o", tmp_path / "hello"
    source.write_text(f'#include <stdio.h>\n{DOT}int main(void) {{ return puts("runs") < 0; }}')
    zig = [sys.executable, "-m", "ziglang", "cc", *profile.build.zig]
    subprocess.run([*zig, *profile.build.zig_cpu, "-c", str(source), "-o", str(compiled)], check=True, timeout=600)
    subprocess.run([*zig, "-static", str(compiled), "-o", str(program)], check=True, timeout=600)
    command = [profile.emulate.program, *profile.emulate.arguments, str(program)]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "runs\n"


@pytest.mark.parametrize("name", [p.name for p in known_profiles() if p.emulate])
def test_the_emulator_knows_cpu_and_machine(name: str) -> None:
    emulate = load_profile(name).emulate
    assert emulate is not None
    if shutil.which(emulate.program) is None:
        pytest.skip(f"needs {emulate.program} (Debian: {emulate.package})")
    options = dict(zip(emulate.arguments[::2], emulate.arguments[1::2], strict=True))
    assert options
    for option, value in options.items():
        command = [emulate.program, option, "help"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout  # with status 0 or 1
        assert value in listed.split()


# The verb.


def test_devices_lists_every_board(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["devices"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line.split() and line.split()[0] in NAMES}
    assert set(rows) == set(NAMES)
    assert "64 MHz" in rows["nano33-ble"]
    assert "256 KiB" in rows["nano33-ble"]
    assert "512 KiB + 8 MiB" in rows["esp32-s3"]
    assert all(len(line) < 240 for line in out.splitlines())


def test_devices_shows_all_numbers_of_a_board_with_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["devices", "esp32"]) == 0
    out = capsys.readouterr().out
    for number in quantities(load_profile("esp32-s3")):
        assert number.source in out
    assert "8,388,608 bytes" in out
    assert "0.8671875" in out


def test_devices_as_json_has_the_profiles_and_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["devices", "--json"]) == 0
    found = {device["name"]: device for device in json.loads(capsys.readouterr().out)["devices"]}
    assert set(found) == set(NAMES)
    assert found["nano33-ble"]["memories"][1]["room"] == 240 * 1024
    assert set(found["jetson-nano"]["steps"]) == {"build", "emulate", "talk"}
    compiler = util.find_spec("ziglang") or shutil.which("aarch64-linux-gnu-gcc")
    exporter = util.find_spec("onnx") and util.find_spec("onnxruntime")
    emulate = found["jetson-nano"]["steps"]["emulate"]
    assert emulate["ready"] == bool(shutil.which("qemu-aarch64") and compiler and exporter)

"""What an export holds besides the model and the C sources: it depends on the port that runs on the target."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bfedge.device.compiler import compile_program, find_target_compiler
from bfedge.device.fit import Fit
from bfedge.device.host import IN_PLACE, HostModel
from bfedge.device.profile import Profile
from bfedge.errors import BfedgeError
from bfedge.files import cache_folder
from bfedge.lowered.model import LoweredViT

if TYPE_CHECKING:
    from bfedge.device.firmware import Firmware

PROGRAM = "bfedge-device"
FIRMWARE = "firmware"
PROJECT = "project"

ARDUINO_APP_OFFSET = 0x10000
"""Behind Arduino's bootloader"""
UF2_APP_OFFSET = 0x26000
"""Behind Adafruit's bootloader and its SoftDevice S140"""


def write_port(
    folder: Path, profile: Profile, model: LoweredViT, packed: bytes, fitted: Fit, cc: str | None
) -> dict[str, Any]:
    """Writes the files of the profile's port into an export that has model.bfe and runtime/ already. Returns what
    the manifest says of it.
    """
    if profile.port == "posix":
        return write_posix(folder, profile, model, cc)
    if profile.port == "nrf52840":
        return write_nrf52840(folder, profile, packed, fitted, cc)
    return write_esp_idf(folder, profile, packed)


def write_posix(folder: Path, profile: Profile, model: LoweredViT, cc: str | None) -> dict[str, Any]:
    """The device program, and the ONNX graph for other runtimes."""
    try:
        import onnx
        import onnxruntime

        from bfedge.export.onnx_graph import to_onnx
    except ImportError as problem:
        raise BfedgeError(
            f"export needs the package `{problem.name}`", '`pip install "bfedge[onnx]"` installs it'
        ) from None
    compiler = find_target_compiler(profile, cc)
    (folder / "model.onnx").write_bytes(to_onnx(model).SerializeToString(deterministic=True))
    flags = compile_program(compiler, folder / "runtime", folder / PROGRAM, profile.name)
    return {
        "compiler": {"version": compiler.compiler.version, "flags": list(flags)},
        "versions": {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    }


def write_nrf52840(folder: Path, profile: Profile, packed: bytes, fitted: Fit, cc: str | None) -> dict[str, Any]:
    """Firmware for a debug probe or Arduino's bootloader (.hex, .bin, .elf) and for a UF2 bootloader, and an Arduino
    library that holds the same program and model.
    """
    from bfedge.device.firmware import FLAGS, build_firmware
    from bfedge.device.flash_images import write_images
    from bfedge.export.arduino import write_library

    compiler = find_target_compiler(profile, cc)
    runtime = folder / "runtime"

    def build(output: Path, app_offset: int) -> Firmware:
        return build_firmware(
            "nrf52840",
            runtime,
            packed,
            HostModel(packed, kernels=IN_PLACE).arena_bytes(fitted.tile),
            output,
            console="uart",
            board=profile.name,
            compiler=compiler.compiler,
            target_flags=compiler.target,
            flash_bytes=profile.bytes_of("flash"),
            ram_bytes=profile.bytes_of("sram"),
            app_offset=app_offset,
            objects=cache_folder() / "objects",
        )

    with tempfile.TemporaryDirectory(prefix="bfedge-") as temporary:
        firmware = build(folder / f"{FIRMWARE}.elf", ARDUINO_APP_OFFSET)
        write_images(firmware.elf, folder, FIRMWARE, ("hex", "bin"))
        notes = []
        if UF2_APP_OFFSET + firmware.flash_bytes > profile.bytes_of("flash"):
            notes.append(f"no {FIRMWARE}.uf2: behind a UF2 bootloader, which is larger than Arduino's, it does not fit")
        else:
            behind_uf2 = build(Path(temporary, "uf2.elf"), UF2_APP_OFFSET)
            write_images(behind_uf2.elf, folder, FIRMWARE, ["uf2"])
    write_library(folder / "arduino" / "bfedge", runtime, packed, profile, fitted.tile)
    sizes = {f.name: getattr(firmware, f.name) for f in dataclasses.fields(firmware) if f.name != "elf"}
    return {
        "compiler": {"version": compiler.compiler.version, "flags": [*compiler.target, *FLAGS]},
        "firmware": {**sizes, "ram_bytes": firmware.ram_bytes},
        "notes": [
            f"firmware: {firmware.runtime_bytes:,} bytes of flash for the runtime, "
            f"{firmware.program_bytes + firmware.helper_bytes:,} for the program, "
            f"{firmware.model_bytes:,} for the model; "
            f"{firmware.ram_bytes:,} bytes of RAM in all",
            *notes,
        ],
    }


def write_esp_idf(folder: Path, profile: Profile, packed: bytes) -> dict[str, Any]:
    """A project for ESP-IDF."""
    from bfedge.export.esp_idf import write_project

    figures = write_project(folder / PROJECT, profile, packed, folder / "runtime")
    return {"esp_idf": figures, "notes": [f"{PROJECT}/ is a project for ESP-IDF; --build or `idf.py build` builds it"]}


def built_later(folder: Path) -> Iterator[Path]:
    """What ESP-IDF leaves in an export when it builds the project: it may be replaced like the rest."""
    project = folder / PROJECT
    for name in ("build", "managed_components"):
        yield from (project / name).rglob("*")
    yield from (project / name for name in ("sdkconfig", "sdkconfig.old", "dependencies.lock"))

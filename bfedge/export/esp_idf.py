"""Export for the ESP32-S3: a complete project for ESP-IDF, with the model in a partition of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bfedge.device.esp_images import GET_IDF
from bfedge.device.partition_table import (
    APP,
    DATA,
    FIRST_OFFSET,
    MMAP_PAGE,
    MODEL_FILE,
    MODEL_PARTITION,
    MODEL_SUBTYPE,
    Partition,
    check,
    to_csv,
)
from bfedge.device.profile import Memory, Profile
from bfedge.errors import BfedgeError
from bfedge.export.runtime_version import runtime_version

MIB = 1 << 20
FLASH_MIB = (2, 4, 8, 16, 32)
"""Sizes of flash that ESP-IDF has a name for, the runtime fits in, and the chip can map at once"""
APP_BYTES = MIB
OCTAL_PSRAM_BYTES = 8 * MIB
"""Modules of the ESP32-S3 with at least this much PSRAM have it on eight lines, those with less on four"""

BUILD_SECONDS = 3600
STDERR = 2
"""File descriptor"""


def write_project(folder: Path, profile: Profile, packed: bytes, runtime: Path) -> dict[str, int]:
    """Writes an ESP-IDF project with the packed model into `folder`, from the C sources in `runtime`.

    Returns figures for the manifest: bytes of flash, and of the model's partition. Raises BfedgeError if ESP-IDF
    can't be set up for the profile's memories, or the model does not fit into its flash.
    """
    flash_bytes = flash_of(profile)
    partitions = plan_partitions(flash_bytes, len(packed))
    port = runtime / "ports" / "esp_idf"
    shutil.copytree(port / "project", folder, dirs_exist_ok=True)
    fill_in(folder / "sdkconfig.defaults", {"FLASH_MB": str(flash_bytes // MIB), "PSRAM": psram_settings(profile)})
    fill_in(folder / "main" / "CMakeLists.txt", {"BOARD": profile.name})
    component = folder / "components" / "bfedge"
    fill_in(component / "idf_component.yml", {"VERSION": runtime_version(runtime / "include" / "bfedge.h")})
    (folder / "partitions.csv").write_text(to_csv(partitions))
    (folder / MODEL_FILE).write_bytes(packed)
    shutil.copytree(runtime / "include", component / "include")
    shutil.copytree(runtime / "src", component / "src")
    shutil.copytree(runtime / "app", folder / "main" / "app")
    shutil.copy(port / "platform.c", folder / "main")
    return {"flash_bytes": flash_bytes, "model_partition_bytes": partitions[-1].size}


def plan_partitions(flash_bytes: int, model_bytes: int) -> tuple[Partition, ...]:
    """The usual partitions of one program, and behind them the model's, which has the rest of the flash: any model that
    fits the board can replace this one later without a new table.

    Raises BfedgeError with the numbers if this model does not fit.
    """
    model_offset = MMAP_PAGE + APP_BYTES
    room = flash_bytes - model_offset
    if model_bytes > room:
        raise BfedgeError(
            f"the model has {model_bytes} bytes, the flash room for {max(room, 0)}: of its {flash_bytes} bytes, "
            f"{model_offset} are for the program",
            "`--ternary base3` stores trits smaller; or take a smaller model, or a board with more flash",
        )
    partitions = (
        Partition("nvs", DATA, 2, FIRST_OFFSET, 0x6000),
        Partition("phy_init", DATA, 1, FIRST_OFFSET + 0x6000, 0x1000),
        Partition("factory", APP, 0, MMAP_PAGE, APP_BYTES),
        Partition(MODEL_PARTITION, DATA, MODEL_SUBTYPE, model_offset, room),
    )
    check(partitions, flash_bytes)
    return partitions


def build_project(folder: Path) -> Path:
    """Builds the project with ESP-IDF, whose output goes to stderr. Returns build/flasher_args.json, which lists
    what is to be flashed.

    Raises BfedgeError if ESP-IDF is not there, or fails.
    """
    command = [*find_idf(), "build"]
    try:
        result = subprocess.run(command, cwd=folder, stdout=STDERR, timeout=BUILD_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise BfedgeError(f"`idf.py build` failed in `{folder}`: {problem}") from None
    flasher_args = folder / "build" / "flasher_args.json"
    if result.returncode or not flasher_args.is_file():
        why = f"status {result.returncode}" if result.returncode else f"it wrote no {flasher_args.name}"
        raise BfedgeError(f"`idf.py build` failed in `{folder}`: {why}", "its own messages are above")
    return flasher_args


def find_idf() -> list[str]:
    """The command that runs idf.py: of $PATH, or of $IDF_PATH. Raises BfedgeError if there is none."""
    found = shutil.which("idf.py")
    if found:
        return [found]
    root = os.environ.get("IDF_PATH")
    script = Path(root, "tools", "idf.py") if root else None
    if script is None or not script.is_file():
        raise BfedgeError("there is no idf.py: neither in $PATH nor in $IDF_PATH/tools", GET_IDF)
    return [sys.executable, str(script)]


def flash_of(profile: Profile) -> int:
    flash = next((m for m in profile.memories if m.kind == "flash"), None)
    if flash is None:
        raise BfedgeError(f"the profile {profile.name} has no memory of kind flash")
    size = int(flash.bytes.value)
    if size not in [n * MIB for n in FLASH_MIB]:
        sizes = ", ".join(str(n * MIB) for n in FLASH_MIB)
        raise BfedgeError(f"the flash of {profile.name} has {size} bytes; an ESP32-S3 can have {sizes}")
    return size


def psram_settings(profile: Profile) -> str:
    """Lines of sdkconfig."""
    psram: Memory | None = next((m for m in profile.memories if m.kind == "psram"), None)
    if psram is None:
        return "# This board has no PSRAM\nCONFIG_SPIRAM=n"
    mode = "OCT" if psram.bytes.value >= OCTAL_PSRAM_BYTES else "QUAD"
    return "\n".join(
        (
            "# PSRAM, only for those who ask for it. A board without starts all the same, and says how much it has",
            "CONFIG_SPIRAM=y",
            f"CONFIG_SPIRAM_MODE_{mode}=y",
            "CONFIG_SPIRAM_SPEED_80M=y",
            "CONFIG_SPIRAM_USE_CAPS_ALLOC=y",
            "CONFIG_SPIRAM_IGNORE_NOTFOUND=y",
        )
    )


def fill_in(file: Path, values: dict[str, str]) -> None:
    """Replaces every @NAME@ in the file."""
    text = file.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    file.write_text(text)

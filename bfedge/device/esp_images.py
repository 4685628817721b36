"""What is to be flashed onto an ESP32: the files of an ESP-IDF project, checked."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bfedge.device.esp_board import first_line, import_esptool
from bfedge.device.partition_table import (
    APP,
    MODEL_FILE,
    MODEL_PARTITION,
    TABLE_OFFSET,
    Partition,
    find,
    read_binary,
)
from bfedge.errors import BfedgeError
from bfedge.files import is_file

GET_IDF = (
    "install ESP-IDF 5.1 or later (https://docs.espressif.com/projects/esp-idf), then run `. $IDF_PATH/export.sh` in "
    "this shell"
)
REBUILD = "build the project again"
ANY_REVISION = 0xFFFF


@dataclass(frozen=True)
class Image:
    """Bytes for the flash."""

    name: str
    offset: int
    data: bytes
    revisions: tuple[int, int] = (0, ANY_REVISION)
    """Of the chip, in hundredths, that a program can run on"""

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


def read_model(project: Path) -> bytes:
    """model.bfe, checked by rules V1 to V18 and against the export's manifest."""
    from bfedge.packed.validate import BadFileError, validate

    file = project / MODEL_FILE
    data = read_file(file)
    try:
        validate(data)
    except BadFileError as refused:
        raise BfedgeError(f"`{file}`: {refused.message}", refused.hint) from None
    expected = manifest_sha256(project, MODEL_FILE)
    if expected and hashlib.sha256(data).hexdigest() != expected:
        raise BfedgeError(f"`{file}` is not the file that was exported: its SHA-256 is another", "export again")
    return data


def read_images(project: Path, chip: str, model: bytes) -> list[Image]:
    """What build/flasher_args.json lists, ascending, each file checked."""
    build = project / "build"
    files = {int(offset, 0): build / name for offset, name in read_flasher_args(project)["flash_files"].items()}
    if TABLE_OFFSET not in files:
        raise BfedgeError(f"`{build / 'flasher_args.json'}` lists no partition table at {TABLE_OFFSET:#x}", REBUILD)
    partitions = read_binary(read_file(files[TABLE_OFFSET]), f"in `{files[TABLE_OFFSET].name}`")
    images = [read_image(files[offset], offset, chip, partitions) for offset in sorted(files)]
    for image, after in itertools.pairwise(images):
        if image.end > after.offset:
            raise BfedgeError(
                f"`{image.name}` has {len(image.data)} bytes at {image.offset:#x} and would reach into `{after.name}` "
                f"at {after.offset:#x}"
            )
    partition = find(partitions, MODEL_PARTITION)
    if partition is None:
        raise BfedgeError(f"the partition table of `{build}` has no partition `{MODEL_PARTITION}`", REBUILD)
    if not any(image.offset == partition.offset and image.data == model for image in images):
        raise BfedgeError(f"`{build}` does not write `{MODEL_FILE}` to partition `{MODEL_PARTITION}`", REBUILD)
    return images


def read_image(file: Path, offset: int, chip: str, partitions: Sequence[Partition]) -> Image:
    """The bootloader, which lies before the partition table, the table itself, or a file inside a partition."""
    image = Image(file.name, offset, read_file(file))
    if offset == TABLE_OFFSET:
        return image
    if offset < TABLE_OFFSET:
        return checked_program(image, chip)
    around = next((p for p in partitions if p.offset <= offset < p.end), None)
    if around is None:
        raise BfedgeError(f"`{image.name}` is for {offset:#x}, where there is no partition", REBUILD)
    if image.end > around.end:
        raise BfedgeError(
            f"`{image.name}` has {len(image.data)} bytes, partition `{around.name}` {around.end - offset}"
        )
    return checked_program(image, chip) if around.type == APP else image


def checked_program(image: Image, chip: str) -> Image:
    """With the chip's revisions that it can run on. Refuses a program for another chip, and one whose checksum or
    SHA-256 is wrong.
    """
    esptool = import_esptool()
    try:
        read = esptool.bin_image.LoadFirmwareImage(chip, image.data)
        checksum = read.calculate_checksum()
    except Exception as problem:  # esptool raises whatever it stumbles over in a damaged file
        raise BfedgeError(f"`{image.name}` is no valid program: {first_line(problem)}", REBUILD) from None
    wanted = esptool.targets.CHIP_DEFS[chip]
    if read.chip_id != wanted.IMAGE_CHIP_ID:
        names = [c.CHIP_NAME for c in esptool.targets.ROM_LIST if getattr(c, "IMAGE_CHIP_ID", None) == read.chip_id]
        built_for = names[0] if names else f"a chip with the unknown number {read.chip_id}"
        raise BfedgeError(f"`{image.name}` is a program for {built_for}, not for {wanted.CHIP_NAME}")
    if read.checksum != checksum:
        what = f"its checksum is {read.checksum:#04x}, that of its contents {checksum:#04x}"
        raise BfedgeError(f"`{image.name}` is damaged: {what}", REBUILD)
    if not read.append_digest:
        raise BfedgeError(f"`{image.name}` has no SHA-256, so nobody can tell whether it is whole", REBUILD)
    if read.stored_digest != read.calc_digest:
        raise BfedgeError(f"`{image.name}` is damaged: its SHA-256 is not that of its contents", REBUILD)
    return replace(image, revisions=(read.min_rev_full, read.max_rev_full or ANY_REVISION))


def read_flasher_args(project: Path) -> dict[str, Any]:
    file = project / "build" / "flasher_args.json"
    if not file.is_file():
        raise BfedgeError(f"`{project}` is not built: there is no build/{file.name}", f"`idf.py build` does; {GET_IDF}")
    try:
        arguments: dict[str, Any] = json.loads(file.read_text())
        for offset, name in arguments["flash_files"].items():
            int(offset, 0), Path(name)
        str(arguments["flash_settings"]["flash_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BfedgeError(f"`{file}` is not what ESP-IDF writes", REBUILD) from None
    if not arguments["flash_files"]:
        raise BfedgeError(f"`{file}` lists nothing to flash", REBUILD)
    return arguments


def read_file(file: Path) -> bytes:
    if file.exists() and not is_file(file):  # reading a pipe would wait for ever
        raise BfedgeError(f"`{file}` is not a file", REBUILD)
    try:
        return file.read_bytes()
    except OSError as problem:
        raise BfedgeError(f"cannot read `{file}`: {problem.strerror}") from None


def manifest_sha256(project: Path, name: str) -> str | None:
    """What the export's manifest, in the project's folder or the one above, says of a file of the project."""
    for folder in (project.absolute(), project.absolute().parent):
        try:
            files = json.loads((folder / "manifest.json").read_text())["files"]
            return str(files[str((project.absolute() / name).relative_to(folder).as_posix())]["sha256"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None

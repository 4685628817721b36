"""Flashing an ESP32 by esptool's Python API: everything is checked before the first write, and read back after it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from bfedge.device.esp_board import Board, connected
from bfedge.device.esp_images import Image, read_flasher_args, read_images, read_model
from bfedge.device.partition_table import (
    DATA,
    MODEL_FILE,
    MODEL_PARTITION,
    MODEL_SUBTYPE,
    TABLE_BYTES,
    TABLE_OFFSET,
    Partition,
    check,
    find,
    read_binary,
)
from bfedge.device.progress import Progress
from bfedge.errors import BfedgeError


def flash(
    project: Path,
    port: str,
    model_only: bool = False,
    chip: str = "esp32s3",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes a built ESP-IDF project, or its model alone, to the board on `port`: a serial port or a socket:// URL.

    Returns chip, flash_bytes, seconds, reset (False: only the button starts what was flashed), and files: of each its
    name, offset, bytes and the SHA-256 of what was read back.

    Raises BfedgeError, before anything is written, for a project that is not built, a damaged file, another chip, a
    flash or partition that is too small, a port that is absent, busy or silent; and later, if the line breaks or the
    board does not hold what was written.
    """
    model = read_model(project)
    images = [] if model_only else read_images(project, chip, model)
    setting = "keep" if model_only else str(read_flasher_args(project)["flash_settings"]["flash_size"])
    started = time.monotonic()
    with connected(port, chip, progress) as board:
        size = board.flash_bytes()
        if model_only:
            images = [Image(MODEL_FILE, model_partition(board, size, len(model)).offset, model)]
        check_size(images, setting, size, port)
        check_revision(images, board)
        return {
            "chip": board.chip,
            "flash_bytes": size,
            "files": [write_and_read_back(board, image) for image in images],
            "reset": board.reset(),
            "seconds": round(time.monotonic() - started, 1),
        }


def check_size(images: list[Image], setting: str, flash_bytes: int, port: str) -> None:
    """`setting`: the flash size that the program was built for, as ESP-IDF writes it: 8MB, keep, detect."""
    built_for = int(setting.removesuffix("MB")) << 20 if setting.removesuffix("MB").isdigit() else 0
    if built_for > flash_bytes:
        raise BfedgeError(
            f"the flash of the board on `{port}` has {flash_bytes} bytes, the project is for {built_for}",
            "it would not start there: export for a profile with this board's flash",
        )
    last = max(images, key=lambda image: image.end)
    if last.end > flash_bytes:
        raise BfedgeError(
            f"`{last.name}` ends at {last.end} bytes, the flash of the board on `{port}` at {flash_bytes} bytes"
        )


def check_revision(images: list[Image], board: Board) -> None:
    chip = board.revision()
    for image in images:
        first, last = image.revisions
        if not first <= chip <= last:
            raise BfedgeError(
                f"the {board.chip} on `{board.port}` has revision {chip / 100:.2f}, `{image.name}` is for "
                f"{first / 100:.2f} to {last / 100:.2f}",
                "set the chip's revision by `idf.py menuconfig` and build again",
            )


def model_partition(board: Board, flash_bytes: int, model_bytes: int) -> Partition:
    """The board's own model partition, large enough for a model of `model_bytes`."""
    flash_all = "without --model-only the program and its partition table are written too"
    try:
        partitions = read_binary(board.read(TABLE_OFFSET, TABLE_BYTES), f"on the board on `{board.port}`")
        partition = find(partitions, MODEL_PARTITION)
        check([partition] if partition else [], flash_bytes=1 << 32)
    except BfedgeError as problem:
        raise BfedgeError(problem.message, flash_all) from None
    if partition is None:
        there = ", ".join(p.name for p in partitions) or "none"
        raise BfedgeError(
            f"the board on `{board.port}` has no partition `{MODEL_PARTITION}`; there are: {there}", flash_all
        )
    if (partition.type, partition.subtype) != (DATA, MODEL_SUBTYPE):
        raise BfedgeError(
            f"partition `{MODEL_PARTITION}` of the board on `{board.port}` has type {partition.type:#x} and subtype "
            f"{partition.subtype:#x}, not {DATA:#x} and {MODEL_SUBTYPE:#x}",
            flash_all,
        )
    room = min(partition.size, max(flash_bytes - partition.offset, 0))
    if room < model_bytes:
        raise BfedgeError(
            f"the model has {model_bytes} bytes, partition `{MODEL_PARTITION}` of the board on `{board.port}` {room}",
            flash_all,
        )
    return partition


def write_and_read_back(board: Board, image: Image) -> dict[str, Any]:
    board.write(image.offset, image.data, image.name)
    read = board.read(image.offset, len(image.data), image.name)
    digest = hashlib.sha256(read).hexdigest()
    if digest != hashlib.sha256(image.data).hexdigest():
        wrong = next(i for i, byte in enumerate(image.data) if read[i] != byte)
        raise BfedgeError(
            f"the board on `{board.port}` does not hold what was written: `{image.name}` differs at byte {wrong} of "
            f"{len(read)}",
            "flash again; if it stays so, the board's flash is worn out or its supply too weak",
        )
    return {"name": image.name, "offset": image.offset, "bytes": len(read), "sha256": digest}

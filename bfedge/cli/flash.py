"""`bfedge flash`: an exported folder onto its board."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import Progress, TaskID

from bfedge.cli.output import count, json_option, out, print_json, table, words
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    from bfedge.device.exported import Exported


@click.command("flash")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--host", metavar="USER@BOARD", help="For Linux boards: where to copy to, by SSH.")
@click.option("--port", help="The board's serial port.")
@click.option("--model-only", is_flag=True, help="Replace only the model (ESP32-S3: its partition).")
@click.option("--tool", type=click.Choice(["pyocd", "bossac", "uf2"]),
              help="How to reach a Nano 33 BLE [default: what is installed and connected].")  # fmt: skip
@click.option("--probe", metavar="ID",
              help="Id of a debug probe, or a part of it, if there are several (`pyocd list`).")  # fmt: skip
@json_option
def command(
    folder: Path,
    host: str | None,
    port: str | None,
    model_only: bool,
    tool: str | None,
    probe: str | None,
    as_json: bool,
) -> None:
    """Put the export FOLDER onto its board.

    Everything that can be checked is checked before the first write: files against the manifest's hashes, the
    model, the chip, sizes. What was written is read back and compared.
    """
    from bfedge.device.exported import read_exported

    exported = read_exported(folder)
    kind = exported.profile.port
    if (tool or probe) and kind != "nrf52840":
        raise BfedgeError(f"--tool and --probe are not for the {exported.profile.name}", "leave them out")
    if kind == "posix" and port:
        raise BfedgeError(f"the {exported.profile.name} is not flashed by a serial port", "--host user@board")
    if kind == "posix":
        figures = flash_linux(exported, host, model_only)
    elif host:
        raise BfedgeError(f"{exported.profile.name} has no SSH", "--port names its serial port")
    elif kind == "esp_idf":
        figures = flash_esp(exported, port, model_only)
    else:
        figures = flash_nrf(exported, port, tool, probe, model_only)
    if as_json:
        print_json("flash", {"folder": str(folder), "target": exported.profile.name, **figures})
        return
    rows = table(f"{exported.profile.name}", "")
    for name, value in figures.items():
        if name == "files":
            for file in value:
                rows.add_row(f"{file['name']} at {file['offset']:#x}", f"{count(file['bytes'])} bytes, read back")
        elif isinstance(value, bool):
            rows.add_row(name, "yes" if value else "no")
        else:
            rows.add_row(name.replace("_", " "), count(value) if isinstance(value, int) else str(value))
    out.print(rows)
    if figures.get("reset") is False:
        out.print("press the board's reset button: this line has no wire for it")


def flash_linux(exported: Exported, host: str | None, model_only: bool) -> dict[str, Any]:
    if exported.profile.name == "host" and not host:
        raise BfedgeError("this machine needs no flashing", f"`bfedge verify {exported.folder}` runs the model here")
    if not host:
        raise BfedgeError(f"where is the {exported.profile.name}?", "--host user@board")
    if model_only:
        words.print("note: files that are on the board already are not sent again")
    from bfedge.device.ssh import deploy_exported

    return {"host": host, "folder_on_board": deploy_exported(host, exported)}


def flash_esp(exported: Exported, port: str | None, model_only: bool) -> dict[str, Any]:
    from bfedge.device.esp_flash import flash
    from bfedge.export.ports import PROJECT

    if not port:
        raise BfedgeError(f"where is the {exported.profile.name}?", "--port names its serial port")
    with progress_bars() as progress:
        return flash(exported.folder / PROJECT, port, model_only, progress=progress)


def flash_nrf(
    exported: Exported, port: str | None, tool: str | None, probe: str | None, model_only: bool
) -> dict[str, Any]:
    from bfedge.device.nrf_flash import flash

    if model_only:
        raise BfedgeError("on this board the model is part of the firmware", "leave --model-only out")
    with progress_bars() as progress:
        return flash(exported, port, tool, probe, progress)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each piece of work that reports (what, done, total)."""
    with Progress(console=words, transient=True, disable=not words.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report

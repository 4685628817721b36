"""Options that say where the board is, shared by the verbs that talk to one."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from bfedge.errors import BfedgeError
from bfedge.files import is_folder

if TYPE_CHECKING:
    from bfedge.device.board import Line
    from bfedge.device.exported import Exported
    from bfedge.device.protocol import Hello


LINE_OPTIONS = ("emulate", "host", "port", "baud", "timeout", "threads", "kernels")


def board_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--emulate, --host, --port, --baud, --timeout, --threads, --kernels; the command takes them as one `line`."""

    @functools.wraps(command)
    def with_line(**options: Any) -> Any:
        line = board_line(**{name: options.pop(name) for name in LINE_OPTIONS})
        return command(line=line, **options)

    wrapped: Callable[..., Any] = with_line
    for option in reversed(
        [
            click.option("--emulate", is_flag=True, help="Run the board's program in QEMU on this machine."),
            click.option("--host", metavar="USER@BOARD",
                         help="The board is reached by SSH, with ssh's own keys and known hosts."),
            click.option("--port", help="The board is on this serial port, or a URL of pySerial's (socket://...)."),
            click.option("--baud", type=click.IntRange(300, 4_000_000), default=115_200, show_default=True,
                         help="Speed of the serial port."),
            click.option("--timeout", type=click.FloatRange(1, 86_400),
                         help="Seconds to wait for an answer [default: by the kind of request]."),
            click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True,
                         help="Threads that share the work, on Linux."),
            click.option("--kernels", metavar="NAME",
                         help="The runtime's kernels, on Linux [default: the fastest of the processor]."),
        ]
    ):  # fmt: skip
        wrapped = option(wrapped)
    return wrapped


@contextmanager
def exported_for(model: Path, target: str | None, ternary: str = "2bit", data: str | None = None) -> Iterator[Exported]:
    """An exported folder; of a checkpoint or .bfe file, a temporary one for `target`."""
    from bfedge.device.exported import read_exported
    from bfedge.device.profile import load_profile

    if is_folder(model):
        exported = read_exported(model)
        if target and load_profile(target).name != exported.profile.name:
            raise BfedgeError(
                f"`{model}` is for {exported.profile.name}, not for {target}", f"`bfedge export --target {target}`"
            )
        yield exported
        return
    from bfedge.cli.export import export_model
    from bfedge.cli.models import GOLDEN_CASES

    with tempfile.TemporaryDirectory(prefix="bfedge-") as temporary:
        folder = Path(temporary, "export")
        export_model(model, folder, load_profile(target or "host"), ternary, GOLDEN_CASES, data)
        yield read_exported(folder)


def hello_as_dict(hello: Hello) -> dict[str, Any]:
    """What the board says of itself, without what belongs to the line protocol."""
    values: dict[str, Any] = msgspec.to_builtins(hello)
    return {name: value for name, value in values.items() if name not in ("type", "id")}


def board_line(
    emulate: bool,
    host: str | None,
    port: str | None,
    baud: int,
    timeout: float | None,
    threads: int,
    kernels: str | None,
) -> Line:
    """Where the options say the board is."""
    from bfedge.device.board import Line

    if sum((emulate, host is not None, port is not None)) > 1:
        raise BfedgeError("--emulate, --host and --port exclude each other", "a board is in one place")
    if host == "" or port == "":
        raise BfedgeError("--host and --port need a value", "is a variable of the shell empty?")
    if timeout is not None and not math.isfinite(timeout):
        raise BfedgeError(f"--timeout {timeout} is no number of seconds")
    return Line(emulate, host, port, baud, timeout, threads, kernels)

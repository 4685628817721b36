"""`bfedge export`: a checkpoint to a folder that runs on a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bfedge.cli.models import TERNARY_ENCODINGS, is_checkpoint, lower_checkpoint, open_checkpoint
from bfedge.cli.output import count, json_option, out, print_json, table
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bfedge.model.checkpoint import Checkpoint

TARGETS = ("host",)


@click.command("export")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--target", default="host", show_default=True, help="What to export for: host.")
@click.option("--out", "out_path", type=click.Path(path_type=Path), help="Folder to write [default: NAME-TARGET].")
@click.option("--ternary", type=click.Choice(list(TERNARY_ENCODINGS)), default="2bit", show_default=True,
              help="How trits are stored: 2 bits each (fast), or five a byte (small).")  # fmt: skip
@click.option("--golden", "cases", type=click.IntRange(1, 256), default=8, show_default=True,
              help="Number of golden vectors.")  # fmt: skip
@click.option("--data", help="Data set whose test images become golden vectors [default: the checkpoint's].")
@click.option("--cc", help="C compiler [default: $CC, cc, gcc, clang or zig].")
@json_option
def command(
    checkpoint: Path,
    target: str,
    out_path: Path | None,
    ternary: str,
    cases: int,
    data: str | None,
    cc: str | None,
    as_json: bool,
) -> None:
    """Write a folder that runs the model of CHECKPOINT: packed file, ONNX, golden vectors, C runtime and a
    built program.
    """
    from bfedge.export.host import Source, export_host

    if target not in TARGETS:
        raise BfedgeError(f"unknown target `{target}`", f"known targets: {', '.join(TARGETS)}")
    if not is_checkpoint(checkpoint):
        raise BfedgeError(
            f"`{checkpoint}` is not a checkpoint", "give the .pt or .safetensors file that `bfedge train` wrote"
        )
    opened = open_checkpoint(checkpoint)
    folder = out_path or checkpoint.with_name(f"{checkpoint.stem}-{target}")
    images, golden_from, why_noise = golden_images(opened, data, cases)
    manifest = export_host(lower_checkpoint(opened, ternary), images, Source(checkpoint, golden_from), folder, cc)
    if as_json:
        print_json("export", {"folder": str(folder), "manifest": manifest})
        return
    files = table(str(folder), "bytes")
    for name, entry in manifest["files"].items():
        if not name.startswith("runtime/"):
            files.add_row(name, count(entry["bytes"]))
    sources = [entry["bytes"] for name, entry in manifest["files"].items() if name.startswith("runtime/")]
    files.add_row(f"runtime/ ({len(sources)} files)", count(sum(sources)))
    out.print(files)
    out.print(f"\ngolden vectors: {len(images)} {golden_from}{f' ({why_noise})' if why_noise else ''}")
    out.print(f"built with {manifest['compiler']['version']}")


def golden_images(checkpoint: Checkpoint, data: str | None, cases: int) -> tuple[NDArray[np.uint8], str, str]:
    """Test images spread over the data set, or noise where the checkpoint's data set is not at hand.

    Returns the images, what they are in words, and why they are noise if they are.
    """
    import numpy as np

    from bfedge.training.data import load_data

    config = checkpoint.model.config
    size = (config.image_height, config.image_width)
    source = data or checkpoint.data
    try:
        if not source:
            raise BfedgeError("the checkpoint names no data set")
        test = load_data(source, size, config.channels).test_images
        if test.shape[1:] != (*size, config.channels):
            raise BfedgeError(
                f"the images of `{source}` are {test.shape[1:]}, the model takes {(*size, config.channels)}"
            )
    except BfedgeError as problem:
        if data:
            raise
        noise = np.random.default_rng(0).integers(0, 256, (cases, *size, config.channels), np.uint8)
        return noise, "images of seeded noise", problem.message
    return test[np.linspace(0, len(test) - 1, min(cases, len(test))).astype(int)], f"test images of {source}", ""

"""`bfedge plan`: how many bytes a model takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bfedge.cli.models import TERNARY_ENCODINGS, packed_bytes
from bfedge.cli.output import count, json_option, out, print_json, table

if TYPE_CHECKING:
    from bfedge.device.fit import Fit


@click.command("plan")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--ternary", type=click.Choice(list(TERNARY_ENCODINGS)), default="2bit", show_default=True,
              help="How a checkpoint's trits would be stored.")  # fmt: skip
@click.option("--target", help="Show whether it fits this board; exit status 1 if not.")
@click.option("--tile", type=click.IntRange(1, 65_536),
              help="Tokens that go through the experts together on the board [default: as many as fit].")  # fmt: skip
@json_option
def command(model: Path, ternary: str, target: str | None, tile: int | None, as_json: bool) -> None:
    """Show how many bytes MODEL takes, part by part, what the paper counts, and whether it fits a board.

    MODEL is a checkpoint, a .bfe file or an exported folder. The numbers are exact: sizes are those of the packed
    bytes, and the workspace is what the C runtime itself asks for.
    """
    from bfedge.measure.plan import plan

    packed = packed_bytes(model, ternary)
    result = plan(packed)
    board, fitted = fit_target(model.name, packed, target, tile) if target else ("", None)
    if as_json:
        on_board = {"target": board, **dataclasses.asdict(fitted)} if fitted else None
        print_json("plan", {"model": str(model), **dataclasses.asdict(result), "fit": on_board})
        return
    parts = table("file, by part", "bytes", "share")
    for part, size in result.parts.items():
        parts.add_row(part, count(size), f"{size / result.file_bytes:.1%}")
    parts.add_row("whole file", count(result.file_bytes), "", style="bold")
    out.print(parts)
    memory = table("\nworking memory", "\nbytes")
    memory.add_row("workspace, all tokens at once (fastest)", count(result.workspace_bytes))
    memory.add_row("  and weights rearranged for vector instructions", count(result.prepared_bytes))
    memory.add_row("workspace, one token at a time (smallest)", count(result.workspace_bytes_smallest))
    memory.add_row("one input image", count(result.input_bytes))
    memory.add_row("logits", count(result.output_bytes))
    out.print(memory)
    paper = result.paper
    experts = table("\nexpert memory", "\nbytes", "\ncompression")

    def row(name: str, size: float) -> None:
        experts.add_row(name, count(round(size)), f"{paper.standard_experts / size:.1f} x")

    row("standard MoE, float32 experts", paper.standard_experts)
    row("paper's formula, 1.58 bits and FP32 angles", paper.butterfly_fp32_angles)
    row("paper's formula, 1.58 bits and FP16 angles", paper.butterfly_fp16_angles)
    row("this file: substrate and angles", paper.packed_experts)
    out.print(experts)
    out.print(
        "\nThe paper counts experts only. What must fit on a device is the whole file, "
        f"{count(result.file_bytes)} bytes, and a workspace."
    )
    if fitted:
        show_fit(board, fitted)


def fit_target(name: str, packed: bytes, target: str, tile: int | None) -> tuple[str, Fit]:
    """The board's name and where the model lies on it. Raises BfedgeError with the numbers if it does not fit."""
    from bfedge.device.fit import fit, needs_of
    from bfedge.device.profile import load_profile

    profile = load_profile(target)
    return profile.name, fit(profile, needs_of(packed), tile, name)


def show_fit(board: str, fitted: Fit) -> None:
    memories = table(f"\non {board}", "\nneeded", "\nfor a model", "\nin all")
    for memory in fitted.memories:
        what = " and ".join("workspace, image, logits" if c == "workspace" else c for c in memory.contents)
        memories.add_row(
            f"{memory.name}: {what or 'nothing'}", count(memory.needed), count(memory.room), count(memory.size)
        )
    out.print(memories)
    tokens = "all tokens" if fitted.tile == 0 else f"{fitted.tile} tokens"
    out.print(f"It fits, with {tokens} through the experts at a time.")

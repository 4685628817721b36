"""`bfedge plan`: how many bytes a model takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from bfedge.cli.models import TERNARY_ENCODINGS, packed_bytes
from bfedge.cli.output import count, json_option, out, print_json, table


@click.command("plan")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--ternary", type=click.Choice(list(TERNARY_ENCODINGS)), default="2bit", show_default=True,
              help="How a checkpoint's trits would be stored.")  # fmt: skip
@json_option
def command(model: Path, ternary: str, as_json: bool) -> None:
    """Show how many bytes MODEL takes, part by part, and what the paper counts.

    MODEL is a checkpoint, a .bfe file or an exported folder. The numbers are exact: sizes are those of the packed
    bytes, and the workspace is what the C runtime itself asks for.
    """
    from bfedge.measure.plan import plan

    result = plan(packed_bytes(model, ternary))
    if as_json:
        print_json("plan", {"model": str(model), **dataclasses.asdict(result)})
        return
    parts = table("file, by part", "bytes", "share")
    for part, size in result.parts.items():
        parts.add_row(part, count(size), f"{size / result.file_bytes:.1%}")
    parts.add_row("whole file", count(result.file_bytes), "", style="bold")
    out.print(parts)
    memory = table("\nworking memory", "\nbytes")
    memory.add_row("workspace, all tokens at once (fastest)", count(result.workspace_bytes))
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

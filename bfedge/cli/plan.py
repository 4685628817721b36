"""`bfedge plan`: what a model takes, and where it fits, before there is a board, or even a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bfedge.cli.energy_table import energy_as_dicts
from bfedge.cli.model_options import model_options
from bfedge.cli.models import (
    GOLDEN_CASES,
    TERNARY_ENCODINGS,
    ModelArgument,
    is_checkpoint,
    model_name,
    packed_bytes,
)
from bfedge.cli.output import json_option, print_json
from bfedge.cli.plan_tables import show_boards, show_golden, show_model, show_target
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    from bfedge.config import ViTConfig
    from bfedge.measure.counters import RealInput
    from bfedge.measure.plan import Plan
    from bfedge.measure.target_plan import TargetPlan
    from bfedge.packed.outline import Outline

ALL = "all"


@click.command("plan")
@click.argument("model", type=ModelArgument(), required=False)
@model_options
@click.option("--ternary", type=click.Choice(list(TERNARY_ENCODINGS)), default="2bit", show_default=True,
              help="How a checkpoint's trits would be stored.")  # fmt: skip
@click.option("--golden", "cases", type=click.IntRange(0, 256),
              help="Golden vectors in the file [default: its own; 8 for a checkpoint, as from `export`].")  # fmt: skip
@click.option("--target", help="In detail for this board; exit status 1 if it does not fit. `all` for every board.")
@click.option("--tile", type=click.IntRange(1, 65_536),
              help="Tokens that go through the experts together on the board [default: as many as fit].")  # fmt: skip
@json_option
def command(
    model: Path | None,
    described: ViTConfig | None,
    ternary: str,
    cases: int | None,
    target: str | None,
    tile: int | None,
    as_json: bool,
) -> None:
    """Show what MODEL takes, part by part, and whether it fits a board: with what tile, how many experts it could have,
    how many instructions and what energy an inference takes.

    MODEL is a checkpoint, a .bfe file, an exported folder or the name of a model that comes with bfedge; without
    one, options describe a model that need not
    exist. Sizes are exact: those of the packed bytes, and the workspace that the C runtime itself asks for.
    Instructions are estimates, from counts in emulators.
    """
    from bfedge.device.profile import known_profiles, load_profile
    from bfedge.measure.plan import plan
    from bfedge.measure.target_plan import plan_target
    from bfedge.packed.outline import outline_of, with_golden

    if (model is None) == (described is None):
        raise BfedgeError(
            "name a MODEL, or describe one" if model is None else "a MODEL has its own widths, layers and experts",
            "a description is, for example, `bfedge plan --d-model 256 --experts 64`",
        )
    demand_packing(model, ternary)
    profiles = known_profiles() if target in (None, ALL) else [load_profile(target or "")]
    packed = packed_bytes(model, ternary) if model else None
    outline = outline_of(packed) if packed else described_outline(described, ternary)
    if cases is None and model and is_checkpoint(model):
        cases = GOLDEN_CASES
    if cases is not None:
        outline = with_golden(outline, cases)
    name = model.name if model else "the model"
    result = plan(outline)
    real = real_input(packed) if packed else None
    boards = [
        plan_target(profile, outline, result, name, tile, real) for profile in profiles if profile.memories or target
    ]
    if as_json:
        print_json("plan", as_dict(model, outline, result, boards))
    else:
        show_model(result)
        for board in boards if target else ():
            show_target(board)
        if target in (None, ALL):
            show_boards(boards)
        show_golden(outline)
    if target not in (None, ALL) and not boards[0].fits:
        raise BfedgeError(boards[0].problem or "", boards[0].hint)


def demand_packing(model: Path | None, ternary: str) -> None:
    """Raises BfedgeError if --ternary is given for trits that are packed already."""
    given = click.get_current_context().get_parameter_source("ternary") is ParameterSource.COMMANDLINE
    if given and model and not is_checkpoint(model):
        raise BfedgeError(f"--ternary {ternary} is for checkpoints: `{model}` is packed already", "leave it out")


def described_outline(described: ViTConfig | None, ternary: str) -> Outline:
    from bfedge.lowered.model import shape_of
    from bfedge.packed.outline import outline

    assert described is not None
    return outline(
        shape_of(described), TERNARY_ENCODINGS[ternary], described.projection_weights, angles=described.angles
    )


def real_input(packed: bytes) -> RealInput | None:
    """The first golden input, if the file has any."""
    from bfedge.measure.counters import RealInput
    from bfedge.packed.reader import unpack

    golden = unpack(packed).golden
    return RealInput(packed, golden.inputs[0]) if golden is not None else None


def as_dict(model: Path | None, outline: Outline, plan: Plan, boards: list[TargetPlan]) -> dict[str, Any]:
    shape = {**dataclasses.asdict(outline.shape), "tokens": outline.shape.tokens}
    return {
        "model": model_name(model) if model else None,
        "config": shape,
        **dataclasses.asdict(plan),
        "boards": [board_as_dict(board) for board in boards],
    }


def board_as_dict(board: TargetPlan) -> dict[str, Any]:
    return {
        **dataclasses.asdict(board),
        "weights_read_bytes": board.weights_read_bytes,
        "energy": energy_as_dicts(board.energy),
    }

"""`bfedge paper`: what the papers claim, recomputed. Exit status 1 if a figure that should match does not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bfedge.cli.models import ModelArgument, is_checkpoint, lower_checkpoint, open_checkpoint, packed_bytes
from bfedge.cli.output import count, json_option, out, print_json, table, track
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from bfedge.lowered.model import Shape
    from bfedge.measure.claims import Claim
    from bfedge.measure.experts import ExpertAnalysis, LayerAnalysis
    from bfedge.measure.paper import Recomputed
    from bfedge.measure.paper_model import Comparison
    from bfedge.model.checkpoint import Checkpoint

IMAGES = 64


@click.command("paper")
@click.argument("model", type=ModelArgument(), required=False)
@click.option("--data", help="Data set whose test images MODEL sees [default: the checkpoint's, else noise].")
@click.option("--images", type=click.IntRange(1, 1_000_000),
              help=f"How many of them at most [default: {IMAGES}].")  # fmt: skip
@json_option
def command(model: Path | None, data: str | None, images: int | None, as_json: bool) -> int:
    """Recompute what the two papers claim of memory, energy and boards, from packed files of their models' shapes.

    With MODEL, a checkpoint, a .bfe file or an exported folder, also how its experts differ, where they get tokens,
    and what the rotations do to outliers and quantisation errors, beside what the papers say. Exit status 1 if a
    figure that should match does not; contradictions within the papers are named.
    """
    if model is None and (data is not None or images is not None):
        raise BfedgeError("--data and --images are for a MODEL, and none is given")
    study = study_model(model, data, images or IMAGES) if model else None
    from bfedge.measure.paper import recompute

    recomputed = recompute()
    if as_json:
        print_json("paper", {**claims_as_dict(recomputed), "model": model_as_dict(study) if study else None})
    else:
        show_claims(recomputed)
        if study:
            show_model(study)
        summary = f"\n{recomputed.do_match} of {recomputed.should_match} rows that should match do; "
        summary += f"{recomputed.contradictions} contradictions in the papers"
        out.print(summary, style="bold" if recomputed.passed else "bold red")
    return 0 if recomputed.passed else 1


@dataclass(frozen=True)
class Study:
    """The user's model and the analysis of its experts."""

    path: Path
    images: str
    """What the images are, in words"""
    analysis: ExpertAnalysis
    standard: bool
    """StandardMoE's experts, not rotations of a shared matrix"""

    @property
    def comparisons(self) -> list[Comparison]:
        from bfedge.measure.paper_model import compare

        return compare(self.analysis, self.standard)


def study_model(path: Path, data: str | None, most: int) -> Study:
    from bfedge.measure.experts import analyse
    from bfedge.packed.reader import unpack

    if is_checkpoint(path):
        return study_checkpoint(path, data, most)
    model = unpack(packed_bytes(path, "2bit")).model
    images, what = some_images(model.shape, None, data, most)
    return Study(path, what, analyse(model, images, track=track), standard=False)


def study_checkpoint(path: Path, data: str | None, most: int) -> Study:
    from bfedge.lowered.model import shape_of
    from bfedge.measure.experts import analyse

    checkpoint = open_checkpoint(path)
    config = checkpoint.model.config
    if config.feed_forward == "dense":
        raise BfedgeError(
            f"`{path}` has dense feed-forward layers, and so no experts to analyse",
            "`bfedge paper` alone recomputes the papers' figures",
        )
    from bfedge.measure.torch_experts import analyse_standard, latent_substrates

    images, what = some_images(shape_of(config), checkpoint, data, most)
    if config.feed_forward == "standard":
        return Study(path, what, analyse_standard(checkpoint.model, images, track), standard=True)
    latent = latent_substrates(checkpoint.model)
    return Study(path, what, analyse(lower_checkpoint(checkpoint, "2bit"), images, latent, track), standard=False)


def some_images(
    shape: Shape, checkpoint: Checkpoint | None, data: str | None, most: int
) -> tuple[NDArray[np.uint8], str]:
    """Evenly from all test images, because folders come class by class; and what they are in words."""
    import numpy as np

    from bfedge.cli.verify import test_images

    images, _, what = test_images(shape, checkpoint, data, ())
    return images[np.linspace(0, len(images) - 1, min(most, len(images))).astype(int)], what


def claims_as_dict(recomputed: Recomputed) -> dict[str, Any]:
    claims = [
        {
            "group": group,
            **{name: getattr(claim, name) for name in ("paper", "where", "what", "paper_says", "recomputed")},
            "difference": claim.difference,
            "matches": claim.matches,
            "must_match": claim.must_match,
            "contradiction": claim.contradiction,
            "why": claim.note,
        }
        for group, members in recomputed.groups.items()
        for claim in members
    ]
    return {
        "passed": recomputed.passed,
        "should_match": recomputed.should_match,
        "do_match": recomputed.do_match,
        "contradictions": recomputed.contradictions,
        "claims": claims,
        "stored": [dataclasses.asdict(row) for row in recomputed.stored],
        "boards": [dataclasses.asdict(row) for row in recomputed.capacities],
    }


def model_as_dict(study: Study) -> dict[str, Any]:
    return {
        "path": str(study.path),
        "images": study.analysis.images,
        "images_of": study.images,
        "tokens": study.analysis.tokens,
        "comparisons": [dataclasses.asdict(row) for row in study.comparisons],
        "layers": [layer_as_dict(layer) for layer in study.analysis.layers],
    }


def layer_as_dict(layer: LayerAnalysis) -> dict[str, Any]:
    matrices = {name: getattr(layer, name).tolist() for name in ("shares", "similarity", "matrix_similarity")}
    derived = ("mean_similarity", "mean_matrix_similarity", "entropy", "load_balance")
    return {**dataclasses.asdict(layer), **matrices, **{name: getattr(layer, name) for name in derived}}


def show_claims(recomputed: Recomputed) -> None:
    for group, claims in recomputed.groups.items():
        rows = beside(group, "recomputed")
        for claim in claims:
            style = None if claim.matches else "yellow" if not claim.must_match else "red"
            name = claim.what if claim.where in group else f"{claim.where}: {claim.what}"
            cells = (claim.paper_says, claim.recomputed_text, claim.difference_text, why(claim))
            rows.add_row(name, *cells, style=style)
        out.print(rows)
    stored = table("\nour files, expert memory", "\n2-bit trits", "", "\n5 trits a byte", "")
    for row in recomputed.stored:
        sizes = (cell for size in (row.two_bits, row.base_3) for cell in (count(size), f"{row.standard / size:.0f}x"))
        stored.add_row(f"{row.experts} experts", *sizes)
    out.print(stored)
    boards = table("\nmost experts of the whole model", "\nin SRAM alone", "\nweights in flash or DRAM")
    for board in recomputed.capacities:
        boards.add_row(board.board, most(board.whole_model.in_sram), most(board.whole_model.on_board))
    out.print(boards)
    out.print(
        "\nOur files store FP16 angles, unless model.angles is int8. The whole model is the packed file, int8 outside\n"
        "the substrate, and a workspace.\nAccuracy and speed are not recomputed here: they need training and the "
        "papers' GPUs."
    )


def beside(title: str, column: str) -> Table:
    """A table that sets figures beside the papers'; the last column is text."""
    rows = table(f"\n{title}", "\npaper says", f"\n{column}", "\ndifference", "\nwhy")
    rows.columns[-1].justify = "left"
    for figure in rows.columns[1:4]:
        figure.no_wrap = True
    return rows


def why(claim: Claim) -> str:
    if claim.matches:
        return claim.note
    if claim.recomputed is None:
        return claim.note
    mark = "DOES NOT MATCH" if claim.must_match else "contradiction" if claim.contradiction else "differs"
    return f"{mark}: {claim.note}" if claim.note else mark


def most(experts: int | None) -> str:
    from bfedge.measure.most_experts import FORMAT_LIMIT

    if experts is None:
        return "n/a"
    return f"{count(experts)}, the format's limit" if experts == FORMAT_LIMIT else count(experts)


def show_model(study: Study) -> None:
    found = study.analysis
    out.print(f"\n{study.path}: {count(found.images)} images ({study.images})", style="bold")
    rows = beside("beside the papers", "this model")
    for row in study.comparisons:
        here = figure(row.here, 2, row.unit)
        rows.add_row(f"{row.where}: {row.what}", row.paper_says, here, figure(row.difference, 2, sign="+"), row.why)
    out.print(rows)
    experts = table("\nlayer", "similarity\nof outputs", "\nof matrices", "entropy of\nshares, bits", "load\nbalance",
                    "busiest\nexpert", "idlest\nexpert")  # fmt: skip
    for index, layer in enumerate(found.layers):
        shares = (f"{layer.shares.max():.1%}", f"{layer.shares.min():.1%}")
        similarities = (figure(layer.mean_similarity, 3), figure(layer.mean_matrix_similarity, 3))
        balance = (figure(layer.entropy, 3), figure(layer.load_balance, 3))
        experts.add_row(str(index), *similarities, *balance, *shares)
    out.print(experts)
    outliers = table("\nlayer", "largest over median\nbefore", "\nafter", "excess kurtosis\nbefore", "\nafter")
    errors = table("\nlayer", "int8 error\nbefore", "\nafter", "ternary error\nrotated", "\nstatic")
    for index, layer in enumerate(found.layers):
        before, after, ternary = layer.before, layer.after, layer.ternary_error
        peaks = (figure(before.peak, 2), figure(after.peak if after else None, 2))
        kurtoses = (figure(before.kurtosis, 2), figure(after.kurtosis if after else None, 2))
        outliers.add_row(str(index), *peaks, *kurtoses)
        int8 = (scientific(layer.int8_error_before), scientific(layer.int8_error_after))
        static = figure(ternary.static if ternary else None, 4)
        errors.add_row(str(index), *int8, figure(ternary.rotated if ternary else None, 4), static)
    out.print(outliers)
    out.print(errors)
    out.print(
        f"\nCosines and errors are of {count(found.tokens)} tokens a layer, drawn with a fixed seed, shares of all.\n"
        "Similarity is of two experts' outputs for the same token, off the diagonal. Load balance is N times the sum\n"
        "of squared shares, 1 if even. Before and after are of the input rotation."
    )


def figure(value: float | None, decimals: int, unit: str = "", sign: str = "") -> str:
    return "n/a" if value is None else f"{value:{sign},.{decimals}f}{unit}"


def scientific(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1e}"

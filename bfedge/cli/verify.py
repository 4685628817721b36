"""`bfedge verify`: is the deployed model what it should be? Exit status 1 if anything is off."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from rich.text import Text

from bfedge.cli.boards import board_options, exported_for
from bfedge.cli.models import TERNARY_ENCODINGS, is_checkpoint, lower_checkpoint, open_checkpoint, packed_bytes
from bfedge.cli.output import json_option, out, print_json, track, words
from bfedge.errors import BfedgeError
from bfedge.files import is_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bfedge.device.board import Line
    from bfedge.device.exported import Exported
    from bfedge.lowered.model import LoweredViT, Shape
    from bfedge.measure.verify import Check
    from bfedge.model.checkpoint import Checkpoint

NOISE_IMAGES = 64
IMAGES_TO_SLOW_BOARDS = 16


@click.command("verify")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", help="For a checkpoint or .bfe file: the board to export for and check.")
@click.option("--checkpoint", "checkpoint_path", type=click.Path(path_type=Path),
              help="The checkpoint that MODEL was exported from, to compare with torch.")  # fmt: skip
@click.option("--data", help="Data set whose test images are used [default: the checkpoint's, else noise].")
@click.option("--images", type=click.IntRange(1, 1_000_000),
              help="Test images to send to a board [default: all to this machine or over SSH, else 16].")  # fmt: skip
@click.option("--ternary", type=click.Choice(list(TERNARY_ENCODINGS)), default="2bit", show_default=True,
              help="How to pack a checkpoint's trits.")  # fmt: skip
@click.option("--max-drop", type=float, default=1.0, show_default=True,
              help="Points of accuracy that the deployed model may lose against float.")  # fmt: skip
@board_options
@json_option
def command(
    model: Path,
    target: str | None,
    checkpoint_path: Path | None,
    data: str | None,
    images: int | None,
    ternary: str,
    max_drop: float,
    line: Line,
    as_json: bool,
) -> int:
    """Prove that the deployed MODEL computes what it should.

    MODEL is an exported folder, a .bfe file, or a checkpoint, which is packed first. The C runtime must give the
    reference's bits, on this machine and on the board; torch and ONNX are compared with the deployed model. Exit
    status 1 if anything is off.
    """
    if math.isnan(max_drop):
        raise BfedgeError("--max-drop nan is no number of points")
    if is_checkpoint(model):
        checkpoint_path = checkpoint_path or model
    checkpoint = open_checkpoint(checkpoint_path) if checkpoint_path else None
    on_board = bool(line.emulate or line.host or line.port or target)
    packed = packed_model(model, checkpoint, ternary)
    subject = Subject(packed, checkpoint, data)
    checks = list(check_here(model, subject, ternary, max_drop))
    unchecked = None
    if is_folder(model) or on_board:
        with exported_for(model, target, ternary, data) as exported:
            if on_board or exported.profile.name == "host":
                checks += check_there(exported, subject, line, images)
            else:
                unchecked = exported.profile.name
    passed = all(check.passed for check in checks)
    if as_json:
        listed = [{"name": c.name, "passed": c.passed, "detail": c.detail, **c.figures} for c in checks]
        print_json("verify", {"model": str(model), "passed": passed, "unchecked_board": unchecked, "checks": listed})
    else:
        show(checks, passed, unchecked)
    return 0 if passed else 1


def show(checks: list[Check], passed: bool, unchecked: str | None) -> None:
    for check in checks:
        mark = ("ok  ", "green") if check.passed else ("FAIL", "red")
        out.print(Text.assemble(mark, f" {check.name}: {check.detail}"))
    verdict = "verified" if passed else "not verified"
    if unchecked:
        verdict += f" on this machine; no {unchecked} was checked (--emulate, --host or --port says where one is)"
    out.print(verdict, style="bold" if passed else "bold red")


def packed_model(path: Path, checkpoint: Checkpoint | None, ternary: str) -> bytes:
    from bfedge.packed.writer import pack

    if checkpoint and is_checkpoint(path):
        return pack(lower_checkpoint(checkpoint, ternary))
    return packed_bytes(path, ternary)


class Subject:
    """The packed model, the images to try it with, and what the reference makes of them."""

    def __init__(self, packed: bytes, checkpoint: Checkpoint | None, data: str | None) -> None:
        from bfedge.device.host import HostModel
        from bfedge.measure.verify import reference_logits
        from bfedge.packed.reader import unpack

        opened = unpack(packed)
        self.packed, self.checkpoint = packed, checkpoint
        self.lowered, self.golden = opened.model, opened.golden
        self.runtime = HostModel(packed)
        self.images, self.targets, what = test_images(self.lowered.shape, checkpoint, data)
        words.print(f"{what}: {len(self.images)} images")
        self.expected = reference_logits(self.lowered, self.images, track)


def check_here(path: Path, subject: Subject, ternary: str, max_drop: float) -> Iterable[Check]:
    """On this machine: the runtime, the exported files, torch and ONNX."""
    from bfedge.measure import verify

    lowered, checkpoint, images, expected = subject.lowered, subject.checkpoint, subject.images, subject.expected

    def bits(name: str, what: str, inputs: NDArray[np.uint8], outputs: NDArray[np.float32]) -> Check:
        got = verify.runtime_logits(subject.runtime, inputs, track)
        return verify.check_bits(name, what, lowered, subject.runtime, inputs, outputs, got)

    if subject.golden is not None:
        yield bits("C runtime, golden vectors", "cases", subject.golden.inputs, subject.golden.outputs)
    kind = "test images" if subject.targets is not None else "noise"
    yield bits(f"C runtime, {kind}", "images", images, expected)
    if path.is_dir():
        yield check_manifest(path)
    matches = checkpoint is None or is_checkpoint(path) or is_from(lowered, checkpoint)
    if checkpoint is not None and not is_checkpoint(path):
        detail = "the same weights" if matches else "the weights are not this checkpoint's"
        yield verify.Check("packed file against checkpoint", matches, detail)
    compared, name = expected, "reference"
    if checkpoint is not None and matches:
        compared, name = verify.torch_logits(checkpoint.model, images, track, "torch, quantised"), "quantised torch"
        yield verify.check_torch(expected, compared)
        yield verify.check_float(float_logits(checkpoint, images), expected, subject.targets, max_drop)
    graph = onnx_graph(path, lowered)
    if graph is not None:
        yield verify.check_onnx(compared, verify.onnx_logits(graph, images, track), name)


def check_there(exported: Exported, subject: Subject, line: Line, images: int | None) -> list[Check]:
    """On the board: its model, golden vectors, memory, and images that are sent to it. A board that does not answer
    is a check that has failed, beside the others.
    """
    from bfedge.measure.verify import Check

    checks: list[Check] = []
    try:
        for check in board_checks(exported, subject, line, images):
            checks.append(check)
    except BfedgeError as problem:
        hint = f" ({problem.hint})" if problem.hint else ""
        checks.append(Check("board", False, f"{problem.message}{hint}"))
    return checks


def board_checks(exported: Exported, subject: Subject, line: Line, images: int | None) -> Iterable[Check]:
    from bfedge.device.board import open_board
    from bfedge.device.host import IN_PLACE, REARRANGED, HostModel, kernels_on
    from bfedge.measure.board import check_board, check_images
    from bfedge.packed.reader import unpack

    packed = exported.model.read_bytes()  # an export of a checkpoint has golden vectors
    golden = unpack(packed).golden
    if golden is None:
        raise BfedgeError(f"`{exported.model}` has no golden vectors", "export the model again")
    with open_board(exported, line) as board:
        words.print(f"{board.hello.board}, {board.hello.cpu}: {board.where}")
        passed = []
        rearranged = REARRANGED if board.hello.prepared else IN_PLACE  # as the user's choice of kernels has it
        runtime = HostModel(
            packed, kernels=rearranged if line.kernels else kernels_on(exported.profile), threads=line.threads
        )
        for check in check_board(board, exported, packed, golden, runtime, track):
            passed.append(check.passed)
            yield check
        if passed[0]:
            most = images or (len(subject.images) if board.is_fast else IMAGES_TO_SLOW_BOARDS)
            sent, expected = subject.images[:most], subject.expected[:most]
            yield check_images(board.session, sent, expected, exported.tile, track)


def test_images(
    shape: Shape, checkpoint: Checkpoint | None, data: str | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None, str]:
    """Images, their classes where known, and what they are in words."""
    source = data or (checkpoint.data if checkpoint else "")
    if source:
        from bfedge.training.data import load_data

        try:
            test = load_data(source, shape.image_shape[:2], shape.channels)
            if test.test_images.shape[1:] != shape.image_shape:
                raise BfedgeError(
                    f"images of `{source}` are {test.test_images.shape[1:]}, the model takes {shape.image_shape}"
                )
            if len(test.labels) != shape.classes:
                raise BfedgeError(f"`{source}` has {len(test.labels)} classes, the model has {shape.classes}")
            return test.test_images, test.test_targets, f"test images of {source}"
        except BfedgeError as problem:
            if data:
                raise
            words.print(f"note: {problem.message}")
    noise = np.random.default_rng(0).integers(0, 256, (NOISE_IMAGES, *shape.image_shape), np.uint8)
    return noise, None, "seeded noise"


def float_logits(checkpoint: Checkpoint, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    from bfedge.measure.verify import torch_logits
    from bfedge.model.layers import float_arithmetic

    with float_arithmetic(checkpoint.model):
        return torch_logits(checkpoint.model, images, track, "torch, float")


def check_manifest(folder: Path) -> Check:
    """The files of an exported folder still have the hashes of its manifest."""
    from bfedge.device.exported import MANIFEST, sha256
    from bfedge.measure.verify import Check

    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        changed = [n for n, f in files.items() if not (folder / n).is_file() or sha256(folder / n) != f["sha256"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Check("manifest", False, f"`{folder / MANIFEST}` is missing or damaged")
    detail = (
        f"changed or missing: {', '.join(changed[:3])}" if changed else f"{len(files)} files have the hashes it states"
    )
    return Check("manifest", not changed, detail)


def is_from(lowered: LoweredViT, checkpoint: Checkpoint) -> bool:
    """Whether a packed file holds the weights of a checkpoint, however its trits are stored."""
    from bfedge.lowered.model import same

    return any(same(lower_checkpoint(checkpoint, encoding), lowered) for encoding in TERNARY_ENCODINGS)


def onnx_graph(path: Path, lowered: LoweredViT) -> bytes | None:
    """The exported ONNX file, or for a checkpoint the graph that would be exported; None for a lone .bfe file."""
    if path.is_dir():
        try:
            return (path / "model.onnx").read_bytes()
        except FileNotFoundError:
            return None  # no export for microcontrollers has one; where one is missing, the manifest's check says so
        except OSError as problem:
            raise BfedgeError(f"cannot read `{path / 'model.onnx'}`: {problem.strerror}") from None
    if not is_checkpoint(path):
        return None
    try:
        from bfedge.export.onnx_graph import to_onnx
    except ImportError:
        words.print('note: ONNX is not checked; `pip install "bfedge[onnx]"` installs what it needs')
        return None
    graph: bytes = to_onnx(lowered).SerializeToString(deterministic=True)
    return graph

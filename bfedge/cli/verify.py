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
from bfedge.cli.models import (
    TERNARY_ENCODINGS,
    ModelArgument,
    is_checkpoint,
    lower_checkpoint,
    model_name,
    open_checkpoint,
    packed_bytes,
)
from bfedge.cli.output import json_option, out, print_json, track, words
from bfedge.errors import BfedgeError
from bfedge.files import is_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bfedge.device.board import Line
    from bfedge.lowered.model import LoweredViT, Shape
    from bfedge.measure.verify import Check
    from bfedge.model.checkpoint import Checkpoint

NOISE_IMAGES = 64


@click.command("verify")
@click.argument("model", type=ModelArgument())
@click.option("--target", help="For a checkpoint or .bfe file: the board to export for and check.")
@click.option("--checkpoint", "checkpoint_path", type=click.Path(path_type=Path),
              help="The checkpoint that MODEL was exported from, to compare with torch.")  # fmt: skip
@click.option("--data", help="Data set whose test images are used [default: the checkpoint's, else noise].")
@click.option("--images-compared", type=click.IntRange(1, 1_000_000), metavar="N",
              help="Test images that the reference, torch and ONNX run too, evenly from all [default: as many as 34 "
              "billion multiply-adds allow]. Accuracy is always that of all images.")  # fmt: skip
@click.option("--images", type=click.IntRange(1, 1_000_000), metavar="N",
              help="Test images to send to a board [default: those compared; on a serial line and in an emulator "
              "16].")  # fmt: skip
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
    images_compared: int | None,
    images: int | None,
    ternary: str,
    max_drop: float,
    line: Line,
    as_json: bool,
) -> int:
    """Prove that the deployed MODEL computes what it should.

    MODEL is an exported folder, a .bfe file, a checkpoint, which is packed first, or the name of a model that comes
    with bfedge. The C runtime must give the reference's bits, on this machine and on the board; torch and ONNX are
    compared with the deployed model, whose accuracy is the C runtime's on all test images. Exit status 1 if anything
    is off.
    """
    if math.isnan(max_drop):
        raise BfedgeError("--max-drop nan is no number of points")
    if is_checkpoint(model):
        checkpoint_path = checkpoint_path or model
    checkpoint = open_checkpoint(checkpoint_path) if checkpoint_path else None
    on_board = bool(line.emulate or line.host or line.port or target)
    packed = packed_model(model, checkpoint, ternary)
    subject = Subject(packed, checkpoint, data, images_compared)
    checks = list(check_here(model, subject, ternary, max_drop))
    unchecked = None
    if is_folder(model) or on_board:
        with exported_for(model, target, ternary, data) as exported:
            if on_board or exported.profile.name == "host":
                from bfedge.cli.verify_board import check_there

                checks += check_there(exported, subject, line, images)
            else:
                unchecked = exported.profile.name
    passed = all(check.passed for check in checks)
    if as_json:
        listed = [{"name": c.name, "passed": c.passed, "detail": c.detail, **c.figures} for c in checks]
        print_json(
            "verify", {"model": model_name(model), "passed": passed, "unchecked_board": unchecked, "checks": listed}
        )
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
    """The packed model, images to try it with, and what the C runtime makes of all of them, the reference of some."""

    def __init__(self, packed: bytes, checkpoint: Checkpoint | None, data: str | None, most: int | None) -> None:
        from bfedge.device.host import HostModel
        from bfedge.measure.verify import images_within_budget, runtime_logits, spread
        from bfedge.packed.reader import unpack

        opened = unpack(packed)
        self.checkpoint = checkpoint
        self.lowered, self.golden = opened.model, opened.golden
        self.runtime = HostModel(packed)
        shape, labels = self.lowered.shape, self.lowered.labels
        self.images, self.targets, what = test_images(shape, checkpoint, data, labels)
        words.print(f"{what}: {len(self.images):,} images")
        self.deployed = runtime_logits(self.runtime, self.images, track)
        self.compared = spread(len(self.images), most or images_within_budget(shape))
        """Numbers of the images whose bits are compared"""
        self.known: dict[int, NDArray[np.float32]] = {}

    def expected(self, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """The reference's logits of the images with these numbers, each computed once."""
        from bfedge.measure.verify import reference_logits

        missing = [number for number in numbers.tolist() if number not in self.known]
        if missing:
            self.known.update(zip(missing, reference_logits(self.lowered, self.images[missing], track), strict=True))
        return np.stack([self.known[number] for number in numbers.tolist()])


def check_here(path: Path, subject: Subject, ternary: str, max_drop: float) -> Iterable[Check]:
    """On this machine: the runtime, the exported files, torch and ONNX."""
    from bfedge.measure import verify

    lowered, checkpoint, runtime, golden = subject.lowered, subject.checkpoint, subject.runtime, subject.golden
    images, expected = subject.images[subject.compared], subject.expected(subject.compared)
    if golden is not None:
        got = verify.runtime_logits(runtime, golden.inputs, track)
        name = "C runtime, golden vectors"
        yield verify.check_bits(name, "cases", lowered, runtime, golden.inputs, golden.outputs, got)
    name = f"C runtime, {'noise' if subject.targets is None else 'test images'}"
    got, total = subject.deployed[subject.compared], len(subject.images)
    yield verify.check_bits(name, "images", lowered, runtime, images, expected, got, total)
    if subject.targets is not None:
        yield verify.check_accuracy(subject.deployed, subject.targets)
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
        in_float = float_logits(checkpoint, subject.images)
        yield verify.check_float(in_float, subject.deployed, subject.targets, max_drop)
    graph = onnx_graph(path, lowered)
    if graph is not None:
        yield verify.check_onnx(compared, verify.onnx_logits(graph, images, track), name)


def test_images(
    shape: Shape,
    checkpoint: Checkpoint | None,
    data: str | None,
    labels: tuple[str, ...],
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None, str]:
    """Images, their classes where known, and what they are in words. `labels` are the model's, in whose order the
    classes are numbered.
    """
    source = data or (checkpoint.data if checkpoint else "")
    if source:
        from bfedge.training.data import load_data

        try:
            test = load_data(source, shape.image_shape[:2], shape.channels, track)
            if test.test_images.shape[1:] != shape.image_shape:
                raise BfedgeError(
                    f"images of `{source}` are {test.test_images.shape[1:]}, the model takes {shape.image_shape}"
                )
            if len(test.labels) != shape.classes:
                raise BfedgeError(f"`{source}` has {len(test.labels)} classes, the model has {shape.classes}")
            targets = as_numbered(test.test_targets, test.labels, labels, source)
            return test.test_images, targets, f"test images of {source}"
        except BfedgeError as problem:
            if data:
                raise
            words.print(f"note: {problem.message}")
    noise = np.random.default_rng(0).integers(0, 256, (NOISE_IMAGES, *shape.image_shape), np.uint8)
    return noise, None, "seeded noise"


def as_numbered(
    targets: NDArray[np.int64], names: tuple[str, ...], labels: tuple[str, ...], source: str
) -> NDArray[np.int64]:
    """Targets that count the classes `names`, as the model counts them, by its `labels`."""
    if not labels or names == labels:
        return targets
    if sorted(names) == sorted(labels) and len(set(labels)) == len(labels):
        return np.array([labels.index(name) for name in names], np.int64)[targets]
    other = next(name for name in names if name not in labels) if set(names) - set(labels) else names[0]
    raise BfedgeError(
        f"the classes of `{source}` have other names than the model's: `{other}` is none of them",
        f"the model's are {', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''}",
    )


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

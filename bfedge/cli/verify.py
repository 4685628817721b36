"""`bfedge verify`: is the deployed model what it should be? Exit status 1 if anything is off."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.progress import track as rich_track
from rich.text import Text

from bfedge.cli.models import TERNARY_ENCODINGS, is_checkpoint, lower_checkpoint, open_checkpoint, packed_bytes
from bfedge.cli.output import json_option, out, print_json, words
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bfedge.lowered.model import LoweredViT, Shape
    from bfedge.measure.verify import Check
    from bfedge.model.checkpoint import Checkpoint

NOISE_IMAGES = 64


@click.command("verify")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--checkpoint", "checkpoint_path", type=click.Path(path_type=Path),
              help="The checkpoint that MODEL was exported from, to compare with torch.")  # fmt: skip
@click.option("--data", help="Data set whose test images are used [default: the checkpoint's, else noise].")
@click.option("--ternary", type=click.Choice(list(TERNARY_ENCODINGS)), default="2bit", show_default=True,
              help="How to pack a checkpoint's trits.")  # fmt: skip
@click.option("--max-drop", type=float, default=1.0, show_default=True,
              help="Points of accuracy that the deployed model may lose against float.")  # fmt: skip
@json_option
def command(
    model: Path, checkpoint_path: Path | None, data: str | None, ternary: str, max_drop: float, as_json: bool
) -> int:
    """Prove that the deployed MODEL computes what it should.

    MODEL is an exported folder, a .bfe file, or a checkpoint, which is packed first. The C runtime must give the
    reference's bits; torch and ONNX are compared with the deployed model. Exit status 1 if anything is off.
    """
    if is_checkpoint(model):
        checkpoint_path = checkpoint_path or model
    checkpoint = open_checkpoint(checkpoint_path) if checkpoint_path else None
    checks = list(run_checks(model, checkpoint, data, ternary, max_drop))
    passed = all(check.passed for check in checks)
    if as_json:
        listed = [{"name": c.name, "passed": c.passed, "detail": c.detail, **c.figures} for c in checks]
        print_json("verify", {"model": str(model), "passed": passed, "checks": listed})
    else:
        for check in checks:
            mark = ("ok  ", "green") if check.passed else ("FAIL", "red")
            out.print(Text.assemble(mark, f" {check.name}: {check.detail}"))
        out.print("verified" if passed else "not verified", style="bold" if passed else "bold red")
    return 0 if passed else 1


def run_checks(
    path: Path, checkpoint: Checkpoint | None, data: str | None, ternary: str, max_drop: float
) -> Iterable[Check]:
    from bfedge.device.host import HostModel
    from bfedge.measure import verify
    from bfedge.packed.reader import unpack
    from bfedge.packed.writer import pack

    packed = (
        pack(lower_checkpoint(checkpoint, ternary))
        if checkpoint and is_checkpoint(path)
        else packed_bytes(path, ternary)
    )
    opened = unpack(packed)
    lowered, golden = opened.model, opened.golden
    runtime = HostModel(packed)
    images, targets, what = test_images(lowered.shape, checkpoint, data)
    words.print(f"{what}: {len(images)} images")
    if golden is not None:
        yield verify.check_bits(
            "C runtime, golden vectors",
            "cases",
            lowered,
            runtime,
            golden.inputs,
            golden.outputs,
            verify.runtime_logits(runtime, golden.inputs, track),
        )
    expected = verify.reference_logits(lowered, images, track)
    yield verify.check_bits(
        "C runtime, test images" if targets is not None else "C runtime, noise",
        "images",
        lowered,
        runtime,
        images,
        expected,
        verify.runtime_logits(runtime, images, track),
    )
    if path.is_dir():
        yield check_manifest(path)
        yield from verify.check_program(path / "bfedge-host", path / "model.bfe", images, expected)
    matches = checkpoint is None or is_checkpoint(path) or is_from(lowered, checkpoint)
    if checkpoint is not None and not is_checkpoint(path):
        detail = "the same weights" if matches else "the weights are not this checkpoint's"
        yield verify.Check("packed file against checkpoint", matches, detail)
    compared, name = expected, "reference"
    if checkpoint is not None and matches:
        compared, name = verify.torch_logits(checkpoint.model, images, track, "torch, quantised"), "quantised torch"
        yield verify.check_torch(expected, compared)
        yield verify.check_float(float_logits(checkpoint, images), expected, targets, max_drop)
    graph = onnx_graph(path, lowered)
    if graph is not None:
        yield verify.check_onnx(compared, verify.onnx_logits(graph, images, track), name)


def track(items: Iterable[Any], title: str) -> Iterable[Any]:
    return rich_track(items, title, console=words, transient=True, disable=not words.is_terminal)


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
    from bfedge.export.host import MANIFEST, sha256
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
        file = path / "model.onnx"
        try:
            return file.read_bytes()
        except OSError as problem:
            raise BfedgeError(f"cannot read `{file}`: {problem.strerror}") from None
    if not is_checkpoint(path):
        return None
    try:
        from bfedge.export.onnx_graph import to_onnx
    except ImportError:
        words.print('note: ONNX is not checked; `pip install "bfedge[onnx]"` installs what it needs')
        return None
    graph: bytes = to_onnx(lowered).SerializeToString(deterministic=True)
    return graph

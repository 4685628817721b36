"""Checks that what was deployed computes what it should: bits against the reference, torch and ONNX against the
deployed model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bfedge.device.host import HostModel
from bfedge.errors import BfedgeError
from bfedge.lowered import reference
from bfedge.lowered.model import LoweredViT

if TYPE_CHECKING:
    from bfedge.model.vit import ViT

BATCH = 64
ONNX_TOLERANCE = 1e-4

Logits = NDArray[np.float32]
Track = Callable[[Iterable[Any], str], Iterable[Any]]
"""Wraps a loop in a progress bar with a title"""


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    detail: str
    """What was compared and found, in words"""
    figures: dict[str, Any] = field(default_factory=dict)


def reference_logits(model: LoweredViT, images: NDArray[np.uint8], track: Track) -> Logits:
    batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    return np.concatenate([reference.run(model, batch) for batch in track(batches, "reference")])


def runtime_logits(runtime: HostModel, images: NDArray[np.uint8], track: Track) -> Logits:
    return np.stack([runtime.run(image) for image in track(images, "C runtime")])


def differing_images(a: Logits, b: Logits) -> NDArray[np.intp]:
    """Indices of the images whose logits are not the same bits."""
    return np.flatnonzero((a.view(np.uint32) != b.view(np.uint32)).any(1))


def check_bits(
    name: str,
    what: str,
    model: LoweredViT,
    runtime: HostModel,
    images: NDArray[np.uint8],
    expected: Logits,
    got: Logits,
) -> Check:
    """Bit for bit; where they differ, the first image is traced to the first stage that differs."""
    different = differing_images(expected, got)
    bits = int((expected.view(np.uint32) != got.view(np.uint32)).sum())
    figures: dict[str, Any] = {"images": len(images), "differing_images": len(different), "differing_logits": bits}
    if not len(different):
        return Check(name, True, f"{len(images)} {what}, 0 differing bits", figures)
    first = int(different[0])
    stage = first_differing_stage(model, runtime, images[first])
    figures |= {"first_image": first, "first_stage": stage}
    return Check(
        name, False, f"{len(different)} of {len(images)} {what} differ; the first, {first}, from {stage} on", figures
    )


def first_differing_stage(model: LoweredViT, runtime: HostModel, image: NDArray[np.uint8]) -> str:
    """In words: where the runtime leaves the reference for this image."""
    expected: dict[tuple[str, int | None], bytes] = {}
    reference.run(model, image[None], lambda stage, block, z: expected.update({(stage, block): z.tobytes()}))
    found: list[str] = []

    def compare(stage: str, block: int | None, values: Logits) -> None:
        if values.tobytes() != expected[stage, block]:
            found.append(stage if block is None else f"block {block} {stage}")

    runtime.run(image, trace=compare)
    return found[0] if found else "no traced stage"


def torch_logits(model: ViT, images: NDArray[np.uint8], track: Track, title: str) -> Logits:
    import torch

    model.eval()
    with torch.no_grad():
        batches = [torch.from_numpy(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        return torch.cat([model(batch) for batch in track(batches, title)]).numpy()


def check_float(in_float: Logits, deployed: Logits, targets: NDArray[np.int64] | None, largest_drop: float) -> Check:
    """Float torch against the deployed model. `largest_drop` is in points of accuracy."""
    agreement = float((in_float.argmax(1) == deployed.argmax(1)).mean())
    difference = float(np.abs(in_float - deployed).max())
    figures: dict[str, Any] = {"top1_agreement": agreement, "largest_logit_difference": difference}
    detail = f"top-1 agreement {agreement:.2%}, largest logit difference {difference:.3g}"
    passed = True
    if targets is not None:
        accuracies = [float((logits.argmax(1) == targets).mean()) for logits in (in_float, deployed)]
        drop = 100 * (accuracies[0] - accuracies[1])
        figures |= {"float_accuracy": accuracies[0], "deployed_accuracy": accuracies[1], "drop_in_points": drop}
        detail = f"accuracy {accuracies[0]:.2%} in float, {accuracies[1]:.2%} deployed; {detail}"
        passed = drop <= largest_drop
    return Check("float torch against deployed", passed, detail, figures)


def check_torch(expected: Logits, got: Logits) -> Check:
    """The quantised torch model in eval() computes NUMERICS.md too; processors may differ in the last bit, so
    this is a tolerance.
    """
    difference = float(np.abs(expected - got).max())
    different = len(differing_images(expected, got))
    same_class = bool((expected.argmax(1) == got.argmax(1)).all())
    return Check(
        "quantised torch against reference",
        difference <= ONNX_TOLERANCE and same_class,
        f"largest logit difference {difference:.3g}, {different} of {len(expected)} images differ in a bit",
        {"largest_logit_difference": difference, "differing_images": different, "top1_equal": same_class},
    )


def onnx_logits(graph: bytes, images: NDArray[np.uint8], track: Track) -> Logits:
    """Runs the graph in onnxruntime. Raises BfedgeError if it does not load."""
    try:
        import onnxruntime
    except ImportError:
        raise BfedgeError("checking ONNX needs onnxruntime", '`pip install "bfedge[onnx]"` installs it') from None
    onnxruntime.set_default_logger_severity(3)
    try:
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
        return np.concatenate([session.run(None, {"image": batch})[0] for batch in track(batches, "onnxruntime")])
    except Exception as problem:  # onnxruntime raises many kinds, all with a message
        text = str(problem).strip().splitlines() or ["no message"]
        raise BfedgeError(f"onnxruntime refuses the ONNX file: {text[0]}") from None


def check_onnx(expected: Logits, got: Logits, against: str) -> Check:
    name = f"ONNX in onnxruntime against {against}"
    if got.shape != expected.shape:
        return Check(name, False, f"logits of shape {got.shape}, expected {expected.shape}")
    difference = float(np.abs(expected - got).max())
    unequal = int((expected.argmax(1) != got.argmax(1)).sum())
    different = len(differing_images(expected, got))
    return Check(
        name,
        difference <= ONNX_TOLERANCE and not unequal,
        f"largest logit difference {difference:.3g}, top-1 equal on {len(got) - unequal} of {len(got)} images, "
        f"{different} differ in a bit",
        {"largest_logit_difference": difference, "top1_unequal": unequal, "differing_images": different},
    )

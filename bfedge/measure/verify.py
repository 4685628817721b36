"""Checks that what was deployed computes what it should: bits against the reference, torch and ONNX against the
deployed model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bfedge.device.host import HostModel
from bfedge.errors import BfedgeError
from bfedge.lowered import reference
from bfedge.lowered.model import LoweredViT, Shape, shape_of
from bfedge.measure.work import multiply_adds

if TYPE_CHECKING:
    from bfedge.model.vit import ViT

LARGEST_BATCH = 64
BATCH_MULTIPLY_ADDS = 2**33
"""Of a batch, at most: larger ones of large models are slower, and progress shows in jerks"""
COMPARED_MULTIPLY_ADDS = 2**35
"""Of the images whose bits are compared, each of which also the slow reference, torch and ONNX run"""
TOP = 5
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


def images_within_budget(shape: Shape) -> int:
    """How many images are compared bit for bit where there are more."""
    return max(1, COMPARED_MULTIPLY_ADDS // sum(multiply_adds(shape).values()))


def spread(total: int, most: int) -> NDArray[np.intp]:
    """Numbers of `most` images, or all, evenly from the first to the last of `total`: folders come class by class."""
    return np.linspace(0, total - 1, min(most, total)).round().astype(np.intp)


def batches_of(images: NDArray[np.uint8], shape: Shape) -> list[NDArray[np.uint8]]:
    size = min(LARGEST_BATCH, max(1, BATCH_MULTIPLY_ADDS // sum(multiply_adds(shape).values())))
    return [images[start : start + size] for start in range(0, len(images), size)]


def reference_logits(model: LoweredViT, images: NDArray[np.uint8], track: Track) -> Logits:
    batches = batches_of(images, model.shape)
    return np.concatenate([reference.run(model, batch) for batch in track(batches, "reference")])


def runtime_logits(runtime: HostModel, images: NDArray[np.uint8], track: Track) -> Logits:
    """Logits [images, classes]. Several images at once, one a processor, is faster than several threads an image."""
    with ThreadPool(1 if runtime.threads > 1 else processors()) as pool:
        results = pool.imap(runtime.run, images)
        return np.stack([next(results) for _ in track(range(len(images)), "C runtime")])


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    total: int | None = None,
) -> Check:
    """Bit for bit; where they differ, the first image is traced to the first stage that differs. `total` says of how
    many the images are an even `spread`.
    """
    different = differing_images(expected, got)
    bits = int((expected.view(np.uint32) != got.view(np.uint32)).sum())
    figures: dict[str, Any] = {"images": len(images), "differing_images": len(different), "differing_logits": bits}
    if total is not None:
        figures["of_images"] = total
    if not len(different):
        few = f"{len(images):,} of {total:,}" if total is not None and total > len(images) else f"{len(images)}"
        return Check(name, True, f"{few} {what}, 0 differing bits", figures)
    first = int(different[0])
    stage = first_differing_stage(model, runtime, images[first])
    number = first if total is None else int(spread(total, len(images))[first])
    figures |= {"first_image": number, "first_stage": stage}
    return Check(
        name, False, f"{len(different)} of {len(images)} {what} differ; the first, {number}, from {stage} on", figures
    )


def check_accuracy(deployed: Logits, targets: NDArray[np.int64]) -> Check:
    """What the C runtime makes of all test images. Nothing that can fail: only the user knows what is enough."""
    accuracy = float((deployed.argmax(1) == targets).mean())
    figures: dict[str, Any] = {"images": len(targets), "accuracy": accuracy, "top5_accuracy": None}
    detail = f"{accuracy:.2%} of {len(targets):,} images (C runtime)"
    if deployed.shape[1] > TOP:
        figures["top5_accuracy"] = among = float(is_among_top(deployed, targets).mean())
        detail += f", top-{TOP} {among:.2%}"
    return Check("deployed accuracy", True, detail, figures)


def is_among_top(logits: Logits, targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each target's logit is one of the TOP largest. Of equal logits the first class comes first, as in
    argmax.
    """
    best = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    return np.asarray((best == targets[:, None]).any(1))


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
    """[images, classes], on the model's device, in its present arithmetic (`eval()`)."""
    import torch

    model.eval()
    device = model.head.weight.device
    with torch.no_grad():
        batches = track(batches_of(images, shape_of(model.config)), title)
        return torch.cat([model(torch.from_numpy(batch).to(device)).cpu() for batch in batches]).numpy()


def check_float(in_float: Logits, deployed: Logits, targets: NDArray[np.int64] | None, largest_drop: float) -> Check:
    """Float torch against the deployed model. `largest_drop` is in points of accuracy."""
    agreement = float((in_float.argmax(1) == deployed.argmax(1)).mean())
    difference = float(np.abs(in_float - deployed).max())
    figures: dict[str, Any] = {
        "images": len(deployed),
        "top1_agreement": agreement,
        "largest_logit_difference": difference,
    }
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
        {
            "images": len(got),
            "largest_logit_difference": difference,
            "differing_images": different,
            "top1_equal": same_class,
        },
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
        batches = [images[i : i + LARGEST_BATCH] for i in range(0, len(images), LARGEST_BATCH)]
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
        {
            "images": len(got),
            "largest_logit_difference": difference,
            "top1_unequal": unequal,
            "differing_images": different,
        },
    )

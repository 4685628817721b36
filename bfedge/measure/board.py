"""Checks of a board: has it the right model, are its bits the reference's, is its memory what the plan says?"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bfedge.device.board import Board
from bfedge.device.exported import Exported
from bfedge.device.host import HostModel
from bfedge.device.protocol import Hello
from bfedge.device.session import Session
from bfedge.errors import BfedgeError
from bfedge.measure.verify import Check, Logits, Track, differing_images
from bfedge.packed.golden import Golden

STACK_BOUND, PREPARED_STACK_BOUND = 2048, 4096
"""BFE_STACK_BYTES and BFE_PREPARED_STACK_BYTES of bfedge.h"""


def check_board(
    board: Board, exported: Exported, packed: bytes, golden: Golden, runtime: HostModel, track: Track
) -> Iterable[Check]:
    """Everything that the golden cases in the board's own copy of the model can show. The board's answers are not
    taken at their word: the CRCs of its logits are compared with those of the reference's.
    """
    identity = check_identity(board.hello, exported.profile.name, packed)
    yield identity
    if identity.passed:
        yield check_golden(board.session, golden, exported.tile, track)
        yield from check_profile(board.session, board.hello, runtime, golden, exported.tile)


def demand_identity(hello: Hello, exported: Exported) -> None:
    """Raises BfedgeError if another program or model answers: what it measures would be another's."""
    identity = check_identity(hello, exported.profile.name, exported.model.read_bytes())
    if not identity.passed:
        raise BfedgeError(f"the board has not this export: {identity.detail}", "`bfedge flash` puts it there")


def check_identity(hello: Hello, board: str, packed: bytes) -> Check:
    """The board runs the program that was built for it, on this very file."""
    name = "board has the model"
    expected = f"{int.from_bytes(packed[20:24], 'little'):08x}"  # FORMAT.md: the header's checksum
    if hello.board != board:
        return Check(name, False, f"its program was built for {hello.board}, not for {board}")
    if hello.refused:
        where = f" (rule V{hello.refused.rule}, offset {hello.refused.offset})" if hello.refused.rule else ""
        return Check(name, False, f"the board refuses its model: {hello.refused.status}{where}")
    if hello.model is None:
        return Check(name, False, "there is no model on the board")
    figures = {"crc32": hello.model.crc32, "bytes": hello.model.bytes}
    if (hello.model.bytes, hello.model.crc32) != (len(packed), expected):
        return Check(
            name,
            False,
            f"it has another one: {hello.model.bytes} bytes with CRC {hello.model.crc32}, "
            f"expected {len(packed)} with {expected}",
            figures,
        )
    config = HostModel(packed).model.config
    shape = (config.tokens, config.classes, config.image_height * config.image_width * config.channels)
    if (hello.model.tokens, hello.model.classes, hello.model.input) != shape:
        return Check(name, False, "it says that the model has another shape", figures)
    return Check(name, True, f"{len(packed)} bytes, CRC {expected}, runtime {hello.runtime} on {hello.cpu}", figures)


def check_golden(session: Session, golden: Golden, tile: int, track: Track) -> Check:
    """Every golden case of the file."""
    wrong = []
    cases = range(len(golden.outputs))
    for case in track(cases, "golden cases on the board"):
        result = session.golden(case, tile)
        if result.differing or result.crc32 != crc_of(golden.outputs[case]):
            wrong.append((case, result))
    name = "board, golden vectors"
    figures = {"cases": len(cases), "differing_cases": len(wrong)}
    if not wrong:
        return Check(name, True, f"{len(cases)} cases, 0 differing bits", figures)
    case, result = wrong[0]
    where = f"in {result.differing} logits" if result.differing else f"by its CRC, {result.crc32}"
    detail = f"{len(wrong)} of {len(cases)} cases differ; the first, {case}, {where}"
    return Check(name, False, detail, figures)


def check_images(session: Session, images: NDArray[np.uint8], expected: Logits, tile: int, track: Track) -> Check:
    """Images that are sent to the board."""
    got = np.stack([session.image(image, tile)[1] for image in track(images, "images on the board")])
    different = len(differing_images(expected, got))
    figures = {"images": len(images), "differing_images": different}
    detail = f"{different} of {len(images)} images differ" if different else f"{len(images)} images, 0 differing bits"
    return Check("board, test images", not different, detail, figures)


def check_profile(session: Session, hello: Hello, runtime: HostModel, golden: Golden, tile: int) -> Iterable[Check]:
    """What a run computed stage by stage and what it touched, against the host's copy of the runtime."""
    planned = runtime.workspace_bytes(tile)
    stages, found = session.profile(0, tile)
    workspace = found.workspace
    expected: list[str] = []
    runtime.run(
        golden.inputs[0], tile, lambda stage, block, values: expected.append(f"{stage} {block} {crc_of(values)}")
    )
    got = [f"{stage.stage} {stage.block} {stage.crc32}" for stage in stages]
    wrong = next((a.rsplit(" ", 1)[0] for a, b in zip(expected, got, strict=False) if a != b), None)
    equal = got == expected and found.crc32 == crc_of(golden.outputs[0]) and not found.differing
    yield Check(
        "board, stages",
        equal,
        f"{len(got)} stages, each with this machine's bits" if equal else f"they differ from {wrong or 'the end'} on",
        {"stages": len(got)},
    )
    yield Check(
        "board, workspace",
        workspace.stated == workspace.used == planned and workspace.intact,
        f"planned {planned:,} bytes, stated {workspace.stated:,}, used {workspace.used:,}; "
        f"memory behind it {'untouched' if workspace.intact else 'overwritten'}",
        {"planned": planned, "stated": workspace.stated, "used": workspace.used, "intact": workspace.intact},
    )
    stack = found.stack
    if stack.run is None and stack.open is None:
        return  # the board can't tell
    deepest = max(stack.run or 0, stack.open or 0)
    bound = PREPARED_STACK_BOUND if hello.prepared else STACK_BOUND
    free = f" of {hello.stack.bytes:,}" if hello.stack.bytes else ""
    yield Check(
        "board, stack",
        0 < deepest <= bound,
        f"runtime {deepest:,} bytes, bound {bound:,}; program {stack.total or 0:,}{free}",
        {"run": stack.run, "open": stack.open, "total": stack.total, "bound": bound},
    )


def crc_of(logits: NDArray[np.float32]) -> str:
    """As boards give it: of the values as little-endian binary32."""
    return f"{zlib.crc32(logits.astype('<f4').tobytes()):08x}"

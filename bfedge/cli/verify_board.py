"""What `bfedge verify` checks on a board."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bfedge.cli.output import track, words
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bfedge.cli.verify import Subject
    from bfedge.device.board import Line
    from bfedge.device.exported import Exported
    from bfedge.measure.verify import Check

IMAGES_TO_SLOW_BOARDS = 16


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
            numbers = images_to_send(subject, images or (None if board.is_fast else IMAGES_TO_SLOW_BOARDS))
            sent, expected = subject.images[numbers], subject.expected(numbers)
            yield check_images(board.session, sent, expected, exported.tile, track)


def images_to_send(subject: Subject, most: int | None) -> NDArray[np.intp]:
    """Numbers of as many test images, evenly from those that the reference has run, or from all if it must run more."""
    from bfedge.measure.verify import spread

    compared = subject.compared
    if most is None or most <= len(compared):
        return compared[spread(len(compared), most or len(compared))]
    return spread(len(subject.images), most)

"""A transport to a scripted board without a process between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from bfedge.device.transport import LineSplitter
from bfedge.errors import BfedgeError
from tests.boards.scripted import Board


class InProcess:
    """What the board says goes through `change`. Beyond `most` bytes from the host the board is gone."""

    if_silent = "plug it in"

    def __init__(self, board: Board, change: Callable[[bytes], bytes] = bytes, most: int = 1 << 30) -> None:
        self.board = board
        self.change = change
        self.left = most
        self.from_host = LineSplitter()
        self.to_host = LineSplitter()
        self.lines: deque[bytes] = deque(self.to_host.feed(change(board.start())))
        self.sent = b""
        self.closed = 0

    def describe(self) -> str:
        return "the board in this process"

    def write(self, data: bytes) -> None:
        self.sent += data
        self.left -= len(data)
        for text in self.from_host.feed(data):
            if not self.board.ended:
                self.lines.extend(self.to_host.feed(self.change(self.board.take(text + b"\n"))))

    def read_line(self, timeout: float) -> bytes | None:
        if not self.lines and not self.is_over():
            time.sleep(timeout)
        return self.lines.popleft() if self.lines else None

    def is_over(self) -> bool:
        return self.board.ended or self.left < 0

    def gone(self) -> BfedgeError | None:
        return BfedgeError("the board in this process is gone") if self.is_over() and not self.lines else None

    def close(self) -> None:
        self.closed += 1

"""Questions to a board and its answers."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bfedge.device.exchange import Channel, Exchange, Greeting, logits_of
from bfedge.device.protocol import Answer, Bye, Hello, Profile, Result, Stage
from bfedge.device.transport import Transport
from bfedge.errors import BfedgeError

TIMEOUTS = {"hello": 30.0, "golden": 120.0, "image": 120.0, "profile": 300.0, "quit": 5.0}
"""Seconds, by command; a board is silent while it computes"""

T = TypeVar("T", bound=Answer)


class Session:
    """A conversation with a board.

        with Session(SerialTransport("/dev/ttyACM0")) as board:
            print(board.hello().cpu, board.golden(0, 0).differing)

    what: how messages name the board, by default as its transport does. timeout: seconds for every answer, instead of
    TIMEOUTS. All methods raise BfedgeError: the board is silent, has gone, speaks something else or another version,
    answers with an error (BoardRefusalError), or its answers stay damaged.
    """

    def __init__(self, transport: Transport, what: str | None = None, timeout: float | None = None) -> None:
        self.channel = Channel(transport, what or transport.describe())
        self.timeout = timeout
        self.greeting: Hello | None = None

    def hello(self) -> Hello:
        """Greets the board until it answers. The other methods do so first if nobody did."""
        self.greeting = Greeting(self.channel, self.seconds("hello")).run()
        return self.greeting

    def golden(self, case: int, tile: int = 0) -> Result:
        """Runs a golden case; `tile` tokens go through the experts together, 0 for all."""
        return self.ask(Result, "golden", case, tile).run()

    def image(self, pixels: NDArray[np.uint8], tile: int = 0) -> tuple[Result, NDArray[np.float32]]:
        """Runs an image [height, width, channels]. Returns the answer and the logits [classes], bit by bit."""
        if pixels.dtype != np.uint8:
            raise ValueError(f"pixels are {pixels.dtype}, not uint8")
        result = self.ask(Result, "image", tile, pixels.tobytes().hex()).run()
        return result, logits_of(result)

    def profile(self, case: int, tile: int = 0) -> tuple[list[Stage], Profile]:
        """Runs a golden case with measurements. Returns the stages in the order of their run, and the summary."""
        exchange = self.ask(Profile, "profile", case, tile)
        summary = exchange.run()
        return exchange.stages[summary.id], summary

    def quit(self) -> None:
        """Ends the device program, on boards where it can end."""
        self.ask(Bye, "quit").run()
        self.greeting = None

    def close(self) -> None:
        self.channel.transport.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None and self.greeting:
                with contextlib.suppress(BfedgeError):
                    self.quit()
        finally:
            self.close()

    def ask(self, wanted: type[T], command: str, *arguments: str | int) -> Exchange[T]:
        greeting = self.greeting or self.hello()
        classes = greeting.model.classes if greeting.model else 0
        return Exchange(self.channel, wanted, (command, *arguments), self.seconds(command), classes)

    def seconds(self, command: str) -> float:
        return TIMEOUTS[command] if self.timeout is None else self.timeout

"""One command and its answer, over a line that may lose, damage and add bytes."""

from __future__ import annotations

import math
import re
import secrets
import time
import zlib
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bfedge.device.protocol import (
    Answer,
    Error,
    Hello,
    Profile,
    Ready,
    Result,
    Stage,
    command_line,
    looks_damaged,
    parse_answer,
)
from bfedge.device.transport import Transport, shown
from bfedge.errors import BfedgeError

REPEATS = 3
"""How often a command is sent again because it or its answer was damaged"""
HELLO_SECONDS = (0.5, 1.0, 2.0, 4.0)
"""Pauses between the first greetings; the last one stays"""
SOON_SECONDS = 0.05

ECHO = re.compile(rb"\d+ (hello|golden|image|profile|quit)\b.*\*[0-9a-f]{8}")

HINTS = {
    "garbled": "check the cable, or take a lower baud rate",
    "unknown-command": "the program on the board is older than this bfedge: build it again and put it on the board",
    "no-model": "put a model on the board",
    "memory": "a smaller tile needs less",
    "illegal-instruction": "build the program for this board's own --target",
    "internal": "this is a bug of bfedge: please report it",
}

T = TypeVar("T", bound=Answer)


class BoardRefusalError(BfedgeError):
    """The board answered with an error; `answer` is what it said."""

    def __init__(self, what: str, request: str, answer: Error) -> None:
        bytes_ = ""
        if answer.needed is not None:
            has = "unknown" if answer.available is None else answer.available
            bytes_ = f" (needed: {answer.needed} bytes, available: {has})"
        if answer.code == "illegal-instruction":
            super().__init__(f"{what}: the program was built for a newer CPU than this one", HINTS[answer.code])
        else:
            text = f"{what} answers `{request}` with {answer.code}: {shown(answer.message.encode())}{bytes_}"
            super().__init__(text, HINTS.get(answer.code))
        self.answer = answer


class Channel:
    """What goes over a transport, as all commands of a session see it."""

    def __init__(self, transport: Transport, what: str) -> None:
        self.transport = transport
        self.what = what
        # Not 1: answers that an earlier session has left must not look like ours.
        self.last_id = secrets.randbelow(1 << 31)
        self.noise: bytes | None = None
        """The first line that was no answer; one that is text is preferred"""
        self.echoes = False
        """Whether commands came back"""

    def send(self, words: tuple[str | int, ...]) -> int:
        """Sends a command and returns its id. The empty line in front ends what may be left of an earlier one."""
        self.last_id += 1
        self.transport.write(b"\n" + command_line(self.last_id, *words))
        return self.last_id

    def take_noise(self, line: bytes) -> None:
        line = line.strip(b"\0\r\n\t ")
        if ECHO.search(line):
            self.echoes = True
        elif line and (self.noise is None or (is_text(line) and not is_text(self.noise))):
            self.noise = line


class Exchange(Generic[T]):
    """A command, sent until its answer comes.

    All commands may be repeated. When something seems to be lost (a damaged line, a command that the board calls
    garbled, or half of the time is over), a `hello` is sent behind the command: boards answer in order, so if that is
    answered first, the command or its answer was lost, and only then is it sent again.
    """

    def __init__(
        self, channel: Channel, wanted: type[T], words: tuple[str | int, ...], seconds: float, classes: int = 0
    ) -> None:
        """`classes`: of the model that the board says it has."""
        self.channel = channel
        self.classes = classes
        self.wanted = wanted
        self.words = words
        self.shown = shown(" ".join(str(word) for word in words).encode())
        self.seconds = seconds
        self.deadline = self.probe_at = math.inf
        self.stages: dict[int, list[Stage]] = {}
        """Of every attempt, by its id"""
        self.probes: set[int] = set()
        self.garbled: Error | None = None
        """The board did not understand this command, or one that was sent before it"""
        self.misfit: str | None = None
        """What was wrong with the last answer that came whole"""
        self.repeats = 0
        self.restarts = 0
        self.stale = 0

    def run(self) -> T:
        transport = self.channel.transport
        self.send()
        while True:
            now = time.monotonic()
            if now >= self.deadline:
                raise self.timed_out()
            if now >= self.probe_at:
                self.probe()
            text = transport.read_line(max(0.0, min(self.deadline, self.probe_at) - now))
            if text is None:
                if problem := transport.gone():
                    raise self.with_noise(problem)
            elif answer := self.take(text):
                return answer

    def send(self) -> None:
        self.stages[self.channel.send(self.words)] = []
        self.probes.clear()
        self.misfit = None
        self.deadline = time.monotonic() + self.seconds
        self.probe_at = time.monotonic() + self.seconds / 2

    def probe(self) -> None:
        self.probes.add(self.channel.send(("hello",)))
        self.probe_at = math.inf

    def probe_soon(self) -> None:
        self.probe_at = min(self.probe_at, time.monotonic() + SOON_SECONDS)

    def take(self, text: bytes) -> T | None:
        """The answer, if `text` is it."""
        answer = parse_answer(text)
        if answer is None:
            self.channel.take_noise(text)
            if looks_damaged(text):
                self.probe_soon()
        elif isinstance(answer, Ready):
            self.take_restart()
        elif isinstance(answer, Error) and answer.code == "garbled":
            self.garbled = answer
            self.probe_soon()
        elif answer.id in self.probes:
            self.repeat()
        elif isinstance(answer, Error) and answer.id in (0, *self.stages):
            raise BoardRefusalError(self.channel.what, self.shown, answer)
        elif answer.id not in self.stages:
            self.stale += 1
        elif isinstance(answer, Stage):
            self.stages[answer.id].append(answer)
        else:
            problem = self.misfit_of(answer)
            if isinstance(answer, self.wanted) and problem is None:
                return answer
            if answer.id == max(self.stages):
                self.misfit = problem
                self.repeat()
        return None

    def misfit_of(self, answer: Answer) -> str | None:
        """What is wrong with an answer to this command; None if nothing is.

        Lines get lost, a board believes a command that has lost its checksum on the way, and a program may lie.
        """
        if not isinstance(answer, self.wanted):
            return "its answer is of another kind"
        if isinstance(answer, Profile):
            if (answer.case, answer.tile) != self.words[1:]:
                return f"its answer is for case {answer.case}, tile {answer.tile}"
            return None if are_whole(self.stages[answer.id]) else "stages are missing"
        if isinstance(answer, Result):
            return self.misfit_of_result(answer)
        return None

    def misfit_of_result(self, result: Result) -> str | None:
        of_image = self.words[0] == "image"
        wanted = (None, self.words[1]) if of_image else self.words[1:]
        if (result.case, result.tile) != wanted or (not of_image and result.differing is None):
            return f"its answer is for case {result.case}, tile {result.tile}"
        if result.logits is None:
            return "there are no logits" if of_image else None
        if len(result.logits) != 8 * self.classes:
            return f"there are {len(result.logits) // 8} logits, its model has {self.classes} classes"
        return None if result.crc32 == crc32_of(result) else "its logits are not those of their checksum"

    def repeat(self) -> None:
        if self.repeats == REPEATS:
            raise self.damaged()
        self.repeats += 1
        self.send()

    def damaged(self) -> BfedgeError:
        if self.garbled:
            return BoardRefusalError(self.channel.what, self.shown, self.garbled)
        times = f"{self.repeats + 1} times"
        if self.misfit:
            return BfedgeError(
                f"{self.channel.what} does not answer `{self.shown}` as it should, {times}: {self.misfit}",
                "is it the program of this export? Else check the cable",
            )
        return BfedgeError(
            f"{self.channel.what}: `{self.shown}` or its answer was damaged on the way, {times}", HINTS["garbled"]
        )

    def take_restart(self) -> None:
        self.restarts += 1
        if self.restarts > 1:
            raise BfedgeError(
                f"{self.channel.what} restarts whenever it gets `{self.shown}`",
                "too little power, a watchdog, or a stack that is too small may be the reason",
            )
        self.send()

    def timed_out(self) -> BfedgeError:
        if self.garbled:
            return self.damaged()
        return BfedgeError(
            f"{self.channel.what} did not answer `{self.shown}` within {self.seconds:g} s",
            "if it is slow, give it more time with --timeout",
        )

    def with_noise(self, problem: BfedgeError) -> BfedgeError:
        noise = self.channel.noise
        if problem.hint is None and noise and is_text(noise):
            return BfedgeError(problem.message, f"it said: {shown(noise)}")
        return problem


class Greeting(Exchange[Hello]):
    """`hello`, sent again and again: the board may be starting, or busy with what somebody else has asked."""

    def __init__(self, channel: Channel, seconds: float) -> None:
        super().__init__(channel, Hello, ("hello",), seconds)
        self.end = time.monotonic() + self.seconds
        self.pauses = iter(HELLO_SECONDS)

    def send(self) -> None:
        self.stages[self.channel.send(self.words)] = []
        self.deadline = self.end
        self.probe_at = time.monotonic() + next(self.pauses, HELLO_SECONDS[-1])

    def probe(self) -> None:
        self.send()

    def repeat(self) -> None:
        self.probe_soon()

    def take_restart(self) -> None:
        self.restarts += 1
        self.probe_soon()

    def timed_out(self) -> BfedgeError:
        channel, seconds = self.channel, f"{self.seconds:g} s"
        if self.restarts > 1:
            return BfedgeError(
                f"{channel.what} restarted {self.restarts} times in {seconds} and answered nothing",
                "too little power, a watchdog, or a stack that is too small may be the reason",
            )
        if self.garbled:
            return BoardRefusalError(channel.what, "hello", self.garbled)
        if self.restarts:
            return BfedgeError(
                f"{channel.what} started the device program, which does not answer ({seconds})",
                "does the line from here to the board work?",
            )
        if self.stale:
            return BfedgeError(
                f"{channel.what} is busy: it still answers what was asked earlier ({seconds})",
                "wait, or reset the board",
            )
        if channel.noise and is_text(channel.noise):
            return BfedgeError(
                f"{channel.what} does not speak bfedge's protocol; it says: {shown(channel.noise)}",
                "another program runs there: put the device program on the board, or give the right port",
            )
        if channel.noise:
            return BfedgeError(
                f"{channel.what} sends bytes that are no text: {channel.noise[:8].hex(' ')}",
                "is the baud rate right?",
            )
        if channel.echoes:
            return BfedgeError(
                f"{channel.what} only echoes what is sent to it", "is the device program running on the board?"
            )
        return BfedgeError(f"{channel.what} says nothing ({seconds})", channel.transport.if_silent)


def is_text(line: bytes) -> bool:
    """Whether somebody could read it: colour codes and a stray byte are allowed."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return False
    return sum(c.isprintable() for c in text) >= 0.75 * len(text)


def are_whole(stages: list[Stage]) -> bool:
    """Whether the stages are all those of one inference, in their order, of one block or more."""
    blocks = range(max(1, (len(stages) - 2) // 2))
    expected: list[tuple[str, int | None]] = [("embed", None)]
    expected += [(name, block) for block in blocks for name in ("attention", "experts")]
    expected += [("logits", None)]
    return [(s.stage, s.block) for s in stages] == expected


def logits_of(result: Result) -> NDArray[np.float32]:
    """Logits [classes] of an answer that has them, with the bits that the board sent."""
    words = np.frombuffer(bytes.fromhex(result.logits or ""), ">u4")
    return words.astype(np.uint32).view(np.float32)


def crc32_of(result: Result) -> str:
    """What the answer's `crc32` should be, from its logits."""
    return f"{zlib.crc32(logits_of(result).astype('<f4').tobytes()):08x}"

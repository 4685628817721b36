"""A board made of Python that speaks PROTOCOL.md, and misbehaves as its name says.

`python scripted.py NAME` speaks on stdin and stdout. It shares no code with bfedge, so both can be wrong only in
different ways.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from typing import Any

LOGITS = struct.pack("<4f", 1.5, -0.0, 1e-40, -3.25)
LOGITS_CRC = f"{zlib.crc32(LOGITS):08x}"
BLOCKS = 2
IMAGE_BYTES = 12


def line(number: int, kind: str, version: int = 1, **members: Any) -> bytes:
    """An answer with its checksum."""
    text = json.dumps({"bfedge": version, "id": number, "type": kind, **members}, separators=(",", ":"))[:-1]
    return f'{text},"check":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def hello(number: int, **changes: Any) -> bytes:
    members = {
        "runtime": "0.1.0",
        "format": "1.0",
        "board": "scripted",
        "cpu": "Python",
        "compiler": "none",
        "flags": "-O3",
        "clock": {"unit": "cycles", "hz": 64000000},
        "model": {"bytes": 9, "crc32": "01234567", "golden": 8, "tokens": 16, "classes": 4, "input": IMAGE_BYTES},
        "refused": None,
        "memory": {"kind": "sram", "available": 29000, "free": None},
        "stack": {"bytes": 4096},
    }
    return line(number, "hello", **{**members, **changes})


def result(number: int, case: int | None, tile: int, **changes: Any) -> bytes:
    members = {
        "case": case,
        "tile": tile,
        "differing": None if case is None else 0,
        "first": None,
        "crc32": LOGITS_CRC,
        "ticks": 1000,
        "logits": None,
    }
    if case is None:
        members["logits"] = "".join(f"{word:08x}" for word in struct.unpack("<4I", LOGITS))
    return line(number, "result", **{**members, **changes})


def stages(number: int) -> list[bytes]:
    names = [("embed", None)]
    names += [(name, block) for block in range(BLOCKS) for name in ("attention", "experts")]
    names += [("logits", None)]
    return [
        line(number, "stage", stage=name, block=block, ticks=10, model_bytes=100, crc32=LOGITS_CRC)
        for name, block in names
    ]


def summary(number: int, case: int, tile: int) -> bytes:
    return line(
        number,
        "profile",
        case=case,
        tile=tile,
        differing=0,
        crc32=LOGITS_CRC,
        ticks=900,
        workspace={"stated": 512, "used": 512, "intact": True},
        stack={"run": 1100, "open": 700, "total": 1900},
        memory={"free": None},
    )


def error(number: int, code: str, message: str = "scripted", **members: Any) -> bytes:
    return line(number, "error", code=code, message=message, **members)


class Board:
    """Does all that PROTOCOL.md says."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.ended = False

    def start(self) -> bytes:
        return line(0, "ready")

    def take(self, text: bytes) -> bytes:
        """What the board sends for a line from the host."""
        text = text.rstrip(b"\r\n")
        if not text:
            return b""
        words = text.decode("ascii", "replace").split()
        if "*" in words[-1]:
            command, _, check = text.rpartition(b"*")
            if f"{zlib.crc32(command):08x}" != check.decode("ascii", "replace"):
                return error(0, "garbled")
            words.pop()
        if not words[0].isdecimal() or len(words) < 2:
            return error(0, "garbled")
        return self.answer(int(words[0]), words[1], words[2:])

    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        self.commands.append(command)
        if command == "hello":
            return hello(number)
        if command == "golden":
            return result(number, int(arguments[0]), int(arguments[1]))
        if command == "image":
            if len(arguments[1]) != 2 * IMAGE_BYTES:
                return error(number, "bad-argument")
            return result(number, None, int(arguments[0]))
        if command == "profile":
            return b"".join([*stages(number), summary(number, int(arguments[0]), int(arguments[1]))])
        if command == "quit":
            self.ended = True
            return line(number, "bye")
        return error(number, "unknown-command")

    def is_first(self, command: str) -> bool:
        return self.commands.count(command) == 1


class Chatty(Board):
    """Says all kinds of things around its answers."""

    NOISE = b"ESP-ROM:esp32s3-20210327\r\n\0\0\xff\xfe broken \x80\n\nI (314) boot: half a line"

    def start(self) -> bytes:
        return self.NOISE + super().start()

    def take(self, text: bytes) -> bytes:
        said = super().take(text)
        return text + self.NOISE + said.replace(b"\n", b"\r\n" + self.NOISE)


class DamagesOnce(Board):
    """One byte of the first answer to each command is wrong."""

    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        said = super().answer(number, command, arguments)
        return said.replace(b'"id"', b'"iD"', 1) if self.is_first(command) else said


class DamagesAlways(Board):
    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        said = super().answer(number, command, arguments)
        return said if command == "hello" else said.replace(b'"crc32"', b'"crc23"')


class LosesLineFeeds(Board):
    """The first answer to each command runs into the next one."""

    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        said = super().answer(number, command, arguments)
        return said.rstrip(b"\n") if self.is_first(command) else said


class LosesAnswers(Board):
    """The first answer to each command never comes."""

    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        said = super().answer(number, command, arguments)
        return b"" if self.is_first(command) else said


class LosesStage(Board):
    """A stage of the first profile is missing."""

    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        said = super().answer(number, command, arguments)
        if command == "profile" and self.is_first(command):
            said = said.replace(stages(number)[2], b"")
        return said


class GarblesTwice(Board):
    """Does not understand two commands of each kind."""

    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        said = super().answer(number, command, arguments)
        return error(0, "garbled", "lost bytes") if self.commands.count(command) < 3 else said


class GarblesAlways(Board):
    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        said = super().answer(number, command, arguments)
        return said if command == "hello" else error(0, "garbled", "lost bytes")


class Misreads(Board):
    """Gets another case at first, as if the end of the command and its checksum had been lost."""

    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        said = super().answer(number, command, arguments)
        if command == "golden" and self.is_first(command):
            return result(number, int(arguments[0]), 7777)
        return said


class Stale(Board):
    """Answers first what somebody has asked earlier."""

    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        old = (
            hello(number - 100, board="stale") + result(number - 100, 0, 0, differing=4) + error(number - 99, "memory")
        )
        return old + super().answer(number, command, arguments)


class RestartsOnce(Board):
    """Resets itself within the first answer to each command but hello."""

    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        said = super().answer(number, command, arguments)
        restarts = command != "hello" and self.is_first(command)
        return said[:20] + line(0, "ready") if restarts else said


class RestartsAlways(Board):
    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        return hello(number) if command == "hello" else line(0, "ready")


class BootLoop(Board):
    def take(self, text: bytes) -> bytes:
        return line(0, "ready")


class Silent(Board):
    def start(self) -> bytes:
        return b""

    def take(self, text: bytes) -> bytes:
        return b""


class OnlyStarts(Silent):
    def start(self) -> bytes:
        return line(0, "ready")


class Echo(Silent):
    def take(self, text: bytes) -> bytes:
        return text


class Blink(Silent):
    def take(self, text: bytes) -> bytes:
        return b"\x1b[31mLED on\r\n"


class WrongBaud(Silent):
    def take(self, text: bytes) -> bytes:
        return b"\xf8\x80\x00\xfe\xe0\n"


class Busy(Silent):
    """Works on what somebody else has asked."""

    def take(self, text: bytes) -> bytes:
        return result(5, 0, 0)


class Silenced(Board):
    """Says hello, and then nothing."""

    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        said = super().answer(number, command, arguments)
        return said if self.commands == ["hello"] else b""


class Newer(Board):
    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        return line(number, "hello", version=2, all="new")


class Older(Board):
    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        return line(number, "hello", version=0)


class Refuses(Board):
    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        if command == "golden":
            return error(number, "memory", "too little", needed=28672, available=20000)
        if command == "profile":
            return error(number, "no-model")
        return super().answer(number, command, arguments)


class OldCpu(Board):
    def take(self, text: bytes) -> bytes:
        self.ended = True
        return error(0, "illegal-instruction")


class Miscounts(Board):
    """The logits are not those of the checksum."""

    def answer(self, number: int, command: str, arguments: list[str]) -> bytes:
        said = super().answer(number, command, arguments)
        return result(number, None, int(arguments[0]), crc32="deadbeef") if command == "image" else said


class Exits(Board):
    """Ends instead of answering, with words."""

    def take(self, text: bytes) -> bytes:
        print("first\ncannot read model.bfe", file=sys.stderr)
        sys.exit(3)


class Crashes(Board):
    SIGNAL = signal.SIGSEGV

    def take(self, text: bytes) -> bytes:
        os.kill(os.getpid(), self.SIGNAL)
        return b""


class NewerCpu(Crashes):
    SIGNAL = signal.SIGILL


class Usage(Board):
    """Some other program, which ends at once."""

    def start(self) -> bytes:
        self.ended = True
        return b"usage: other FILE\n"


class Floods(Board):
    """Sends lines without end before it reads anything."""

    def start(self) -> bytes:
        while True:
            os.write(1, b"tick\n" * 10000)


class NeverEndsItsLine(Board):
    def start(self) -> bytes:
        while True:
            os.write(1, b"x" * 65536)


class LongLineFirst(Board):
    """Three million bytes, then it behaves."""

    def start(self) -> bytes:
        return b"x" * 3_000_000 + b"\n" + super().start()


class Deaf(Board):
    """Never reads its input, and goes on when that ends."""

    def start(self) -> bytes:
        time.sleep(1000)
        return b""


class ClosesOutput(Board):
    def start(self) -> bytes:
        os.close(1)
        time.sleep(1000)
        return b""


class LeavesChild(Board):
    """Ends, but a child of it keeps its output open."""

    def start(self) -> bytes:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        sys.exit(4)


def main() -> None:
    board: Board = globals()[sys.argv[1]]()
    said = board.start()
    while True:
        sys.stdout.buffer.write(said)
        sys.stdout.buffer.flush()
        if board.ended:
            break
        text = sys.stdin.buffer.readline()
        if not text:
            break
        said = board.take(text)


if __name__ == "__main__":
    main()

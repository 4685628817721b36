"""The messages of the line protocol between host and board: PROTOCOL.md, version 1."""

from __future__ import annotations

import re
import zlib
from typing import Annotated, Literal

import msgspec

from bfedge.errors import BfedgeError

VERSION = 1
MAX_ID = 4294967295

# The first three members and the last one, with whatever is between them.
ANSWER = re.compile(
    rb'\{"bfedge":(?P<version>\d{1,10}),"id":(?P<id>\d{1,10}),"type":"(?P<type>[a-z-]{1,40})".*'
    rb',"check":"(?P<check>[0-9a-f]{8})"\}'
)
PRINTABLE = re.compile(rb"[ -~]*")
# Pieces of an answer; where one is, a damaged answer may have been.
TRACES = (b'"bfedge"', b'"check"', b'"type"', b'"crc32"', b'"id"')

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Text = Annotated[str, msgspec.Meta(pattern=r"\A[ -~]*\Z")]
"""Printable ASCII: a board's words go to the user's terminal"""
Crc = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}\Z")]
Logits = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{8})+\Z")]


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    id: Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
    """Of the command that is answered; 0 if the board speaks of itself"""


class Ready(Answer, frozen=True, kw_only=True, tag="ready"):
    """The program has started."""


class Clock(msgspec.Struct, frozen=True):
    unit: Text
    """`cycles` or `ns`"""
    hz: Count | None


class BoardModel(msgspec.Struct, frozen=True):
    """The packed file that the board has opened and found valid."""

    bytes: Count
    crc32: Crc
    golden: Count
    """Number of golden cases"""
    tokens: Count
    classes: Count
    input: Count
    """Bytes of an image"""


class Refusal(msgspec.Struct, frozen=True):
    """Why the board does not take the file that it has."""

    status: Text
    rule: Count
    offset: Count


class BoardMemory(msgspec.Struct, frozen=True):
    kind: Text
    """`sram`, `psram` or `dram`"""
    available: Count | None
    """Bytes that workspace, image and logits can have"""
    free: Count | None
    """Bytes that nobody uses"""


class StackSize(msgspec.Struct, frozen=True):
    bytes: Count | None


class Hello(Answer, frozen=True, kw_only=True, tag="hello"):
    runtime: Text
    format: Text
    board: Text
    cpu: Text
    compiler: Text
    flags: Text
    clock: Clock | None
    model: BoardModel | None
    refused: Refusal | None
    kernels: Text | None = None
    """In use; None from a program that does not say"""
    prepared: Count = 0
    """Bytes of weights rearranged for them"""
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    memory: BoardMemory
    stack: StackSize


class Result(Answer, frozen=True, kw_only=True, tag="result"):
    case: Count | None
    """None for an image from the host"""
    tile: Count
    differing: Count | None
    """Logits whose bits are not the expected ones; None for an image from the host"""
    first: Count | None
    """Index of the first that differs"""
    crc32: Crc
    """Of the logits as little-endian binary32"""
    ticks: Count | None
    logits: Logits | None
    """Eight digits each, highest digit first; None for a golden case without differences"""


class Stage(Answer, frozen=True, kw_only=True, tag="stage"):
    stage: Literal["embed", "attention", "experts", "logits"]
    block: Count | None
    ticks: Count | None
    model_bytes: Count
    """Bytes of the file that the stage read, each pass over a matrix counted"""
    crc32: Crc
    """Of the stage's result as little-endian binary32"""


class Workspace(msgspec.Struct, frozen=True):
    """Bytes that the library asked for and that it touched, and whether memory behind it was left alone."""

    stated: Count
    used: Count
    intact: bool


class StackUse(msgspec.Struct, frozen=True):
    """Bytes that `bfe_run` and `bfe_open` took below their caller, and the high-water mark since start."""

    run: Count | None
    open: Count | None
    total: Count | None


class FreeMemory(msgspec.Struct, frozen=True):
    free: Count | None


class Profile(Answer, frozen=True, kw_only=True, tag="profile"):
    case: Count
    tile: Count
    differing: Count
    crc32: Crc
    ticks: Count | None
    """Of an inference without tracing"""
    workspace: Workspace
    stack: StackUse
    memory: FreeMemory


class Bye(Answer, frozen=True, kw_only=True, tag="bye"):
    """The answer to `quit`."""


class Error(Answer, frozen=True, kw_only=True, tag="error"):
    code: Text
    message: Text
    needed: Count | None = None
    """Bytes, with code `memory`"""
    available: Count | None = None


DECODERS = {
    str(kind.__struct_config__.tag): msgspec.json.Decoder(kind)
    for kind in (Ready, Hello, Result, Stage, Profile, Bye, Error)
}


def command_line(number: int, *words: str | int) -> bytes:
    """The line for command number `number` (1 to 4294967295), checksum and line feed included."""
    text = " ".join(str(word) for word in (number, *words)).encode("ascii") + b" "
    return b"%s*%08x\n" % (text, zlib.crc32(text))


def parse_answer(line: bytes) -> Answer | None:
    """The answer on a line, or None if there is none.

    Noise in front of an answer is skipped: a board that restarts begins its first line where the last one broke off.
    Raises BfedgeError if the line is an answer (its checksum is right), but of another version of the protocol, or
    without what this version says must be there.
    """
    line = line.rstrip(b"\r\n")
    line = line[max(line.rfind(b'{"bfedge":'), 0) :]
    match = ANSWER.fullmatch(line)
    if not match or not PRINTABLE.fullmatch(line):
        return None
    if zlib.crc32(line[: line.rindex(b',"check"')]) != int(match["check"], 16):
        return None
    if int(match["version"]) != VERSION:
        raise other_version(int(match["version"]))
    kind = match["type"].decode()
    if kind not in DECODERS:
        return None
    try:
        return DECODERS[kind].decode(line)
    except msgspec.ValidationError as problem:
        raise BfedgeError(
            f"the board's answer `{kind}` is not what protocol {VERSION} says: {problem}",
            "the device program does not fit this bfedge: build it again and put it on the board",
        ) from None
    except (msgspec.DecodeError, RecursionError):
        return None


def looks_damaged(line: bytes) -> bool:
    """Whether a line that is no answer may have been one before something happened to it."""
    return any(trace in line for trace in TRACES)


def other_version(version: int) -> BfedgeError:
    if version > VERSION:
        way_out = "this bfedge is too old for it: update bfedge"
    else:
        way_out = "the program on the board is too old: build it again and put it on the board"
    return BfedgeError(f"the board speaks protocol {version}, this bfedge speaks {VERSION}", way_out)

"""Reads what `bfedge profile --json` printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bfedge.errors import BfedgeError
from bfedge.files import is_file
from bfedge.measure.against_plan import Comparison
from bfedge.measure.energy import Account, EnergyPart, Origin
from bfedge.report.data import Measured, MeasuredStage

LARGEST_FILE = 2**22
MISSING = "missing required field"
"""As msgspec says it"""
PRINTED = "`bfedge profile --json` prints one"
AGAIN = "run `bfedge profile --json` again"

Bytes = Annotated[int, Meta(ge=0, le=2**53)]
Number = Annotated[float, Meta(ge=0, le=1e18)]
Text = Annotated[str, Meta(max_length=4096)]


class Stage(msgspec.Struct, frozen=True):
    name: Text
    ticks: Bytes | None
    instructions: Bytes | None
    model_bytes: Bytes


class Clock(msgspec.Struct, frozen=True):
    hz: Bytes | None


class Hello(msgspec.Struct, frozen=True):
    runtime: Text
    cpu: Text
    compiler: Text
    flags: Text
    kernels: Text | None
    workers: Annotated[int, Meta(ge=1, le=1024)]


class Compared(msgspec.Struct, frozen=True):
    what: Text
    planned: Bytes
    measured: Bytes | None
    is_bound: bool


class Part(msgspec.Struct, frozen=True):
    what: Text
    amount: Number | None
    unit: Text
    origin: Origin
    where: Text
    pj_per_unit: Number | None
    source: Text | None


class PrintedAccount(msgspec.Struct, frozen=True):
    name: Text
    meaning: Text
    parts: Annotated[tuple[Part, ...], Meta(max_length=16)]


class Printed(msgspec.Struct, frozen=True):
    """The fields that the page shows."""

    schema: Literal[1]
    verb: Literal["profile"]
    sha256: Text
    target: Text
    where: Text
    hello: Hello
    emulated: bool
    note: Text | None
    clock: Clock | None
    tile: Annotated[int, Meta(ge=0, le=65_536)]
    stages: Annotated[tuple[Stage, ...], Meta(min_length=1, max_length=1024)]
    ticks: Bytes | None
    instructions: Bytes | None
    against_plan: Annotated[tuple[Compared, ...], Meta(max_length=2048)]
    energy: Annotated[tuple[PrintedAccount, ...], Meta(max_length=16)]


def read_measured(file: Path, sha256: str) -> Measured:
    """What was measured of the packed file with this SHA-256. Raises BfedgeError if the file is no profile, or of
    another model.
    """
    found = read_printed(file)
    if found.sha256 != sha256:
        raise BfedgeError(
            f"`{file}` was measured with another model: SHA-256 {found.sha256[:12]}..., this one has {sha256[:12]}...",
            "name the exported folder or .bfe file that was profiled; of a checkpoint, the file that `bfedge export` "
            "writes without other options",
        )
    hello = found.hello
    threads = f"{hello.workers} thread{'s' * (hello.workers > 1)}"
    runtime = f"{hello.runtime}, kernels {hello.kernels or 'unknown'}, {threads}, {hello.compiler}, {hello.flags}"
    return Measured(
        file=file.name,
        target=found.target,
        processor=hello.cpu,
        where=found.where,
        runtime=runtime,
        emulated=found.emulated,
        note=found.note,
        tile=found.tile,
        clock_hz=found.clock.hz if found.clock else None,
        stages=tuple(MeasuredStage(s.name, s.ticks, s.instructions, s.model_bytes) for s in found.stages),
        ticks=found.ticks,
        instructions=found.instructions,
        against_plan=tuple(Comparison(**msgspec.structs.asdict(row)) for row in found.against_plan),
        energy=tuple(account_of(printed) for printed in found.energy),
    )


def account_of(printed: PrintedAccount) -> Account:
    parts = tuple(EnergyPart(**msgspec.structs.asdict(part)) for part in printed.parts)
    return Account(printed.name, printed.meaning, parts)


def read_printed(file: Path) -> Printed:
    if not is_file(file):
        raise BfedgeError(f"there is no file `{file}`", PRINTED)
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
    except OSError as problem:
        raise BfedgeError(f"cannot read `{file}`: {problem.strerror}") from None
    if len(content) > LARGEST_FILE:
        raise BfedgeError(f"`{file}` is larger than {LARGEST_FILE:,} bytes; a profile is not", PRINTED)
    try:
        values: Any = msgspec.json.decode(content)
    except (msgspec.DecodeError, ValueError, RecursionError) as problem:  # ValueError: no UTF-8, or too many digits
        raise BfedgeError(f"`{file}` is no JSON: {problem}", PRINTED) from None
    try:
        return msgspec.convert(values, Printed)
    except msgspec.ValidationError as problem:
        if isinstance(values, dict) and values.get("verb") == "profile" and MISSING in str(problem):
            raise BfedgeError(f"`{file}` was written by another version of bfedge: {problem}", AGAIN) from None
        raise BfedgeError(f"`{file}` is no profile: {problem}", PRINTED) from None

"""The record of executed instructions, instructions.json: of every kernel, and of a small model on every board.

    python -m tests.instructions            shows what differs from the record
    python -m tests.instructions --update   and writes the record

On x86-64 valgrind's callgrind counts. It knows no AVX-512, so the kernels avx512vnni are not in the record. For all
others QEMU counts, with bfedge's plugin.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from bfedge.device import firmware
from bfedge.device.profile import known_profiles, load_profile
from tests.counting import X86_64, Counts, count_kernels, count_model, count_model_on_x86_64
from tests.fixed_models import DIGITS

RECORD = Path(__file__).with_name("instructions.json")
UPDATE = "python -m tests.instructions --update"
TOLERANCE = 0.03

KERNELS = (
    ("avx2", X86_64),
    ("tables", X86_64),
    ("c", X86_64),
    ("neon", "raspberry-pi-4"),
    ("dotprod", "raspberry-pi-5"),
    ("dsp", "raspberry-pi-zero"),
)
"""Sets of kernels, and where each is counted"""

SHARE_OF_PLAIN_C = {"jetson-nano": 1 / 3, "raspberry-pi-5": 1 / 5, "nano33-ble": 1 / 2}
"""The most instructions that a board's kernels may execute, of those that plain C does: on Cortex-A57, A76 and M4"""


class Recorded(TypedDict):
    compiler: str
    """Another one's counts say nothing about a change of ours"""
    instructions: Counts


@dataclass(frozen=True)
class Subject:
    """What is counted in one go."""

    name: str
    board: str
    count: Callable[[], Counts]

    @property
    def is_on_xtensa(self) -> bool:
        return self.board == "esp32-s3"

    def compiler(self) -> str:
        return firmware.find_xtensa_compiler()[0].version if self.is_on_xtensa else f"zig {version('ziglang')}"

    def missing(self) -> str | None:
        """Why it can't be counted on this machine."""
        emulate = None if self.board == X86_64 else load_profile(self.board).emulate
        needed = [(emulate.program, emulate.package) if emulate else ("valgrind", "valgrind")]
        if self.is_on_xtensa:
            needed.append((firmware.XTENSA_GCC, "gcc-xtensa-lx106"))
        for program, package in needed:
            if shutil.which(program) is None:
                return f"`{program}` is not installed (apt: {package})"
        if self.board == X86_64 and platform.machine() != "x86_64":
            return "callgrind runs what is built for its own processor only"
        if "avx2" in self.name and " avx2 " not in Path("/proc/cpuinfo").read_text():
            return "callgrind has AVX2 only where the processor has it"
        return None


def subjects() -> list[Subject]:
    boards = [profile.name for profile in known_profiles() if profile.emulate is not None]
    return [
        *(Subject(f"kernels {name} on {board}", board, partial(count_kernels, name, board)) for name, board in KERNELS),
        *(Subject(f"digits by {name} on {X86_64}", X86_64, partial(count_on_x86_64, name)) for name in ("avx2", "c")),
        *(Subject(f"digits on {board}", board, partial(count_digits, board)) for board in boards),
    ]


def count_digits(board: str) -> Counts:
    return count_model(DIGITS, board) | (count_model(DIGITS, board, plain=True) if board in SHARE_OF_PLAIN_C else {})


def count_on_x86_64(kernels: str) -> Counts:
    return count_model_on_x86_64(DIGITS, kernels)


def differences(name: str, recorded: Counts, found: Counts) -> list[str]:
    """What is wrong with a record, in words."""
    wrong = []
    for entry in sorted({*recorded, *found}):
        before, now = recorded.get(entry), found.get(entry)
        if before is None:
            wrong.append(f"{name}, {entry}: {now:,} instructions, and nothing in the record")
        elif now is None:
            wrong.append(f"{name}, {entry}: in the record with {before:,} instructions, but no longer counted")
        elif abs(now - before) > TOLERANCE * before:
            wrong.append(f"{name}, {entry}: {now:,} instructions, {change(before, now)} than the record's {before:,}")
    return [f"{line}. If that is meant to be: {UPDATE}" for line in wrong]


def change(before: int, now: int) -> str:
    return f"{abs(now / before - 1):.1%} {'more' if now > before else 'fewer'}"


def read_record() -> dict[str, Recorded]:
    record: dict[str, Recorded] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return record


def changes(name: str, recorded: Counts, found: Counts) -> list[str]:
    """Every count that is not the record's, as rows of a table."""
    rows = []
    for entry in {**recorded, **found}:
        before, now = recorded.get(entry), found.get(entry)
        if before != now:
            ratio = f"{now / before - 1:+.1%}" if before and now else "new" if now else "gone"
            rows.append(row(f"{name}, {entry}", f"{before:,}" if before else "", f"{now:,}" if now else "", ratio))
    return rows


def row(what: str, before: str, now: str, ratio: str) -> str:
    return f"{what:<78} {before:>13} {now:>13} {ratio:>8}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.instructions", description="Counts executed instructions.")
    parser.add_argument("--update", action="store_true", help="write the record")
    update = parser.parse_args().update
    old, new, rows = read_record(), {}, []
    for subject in subjects():
        missing = subject.missing()
        if missing is None:
            new[subject.name] = Recorded(compiler=subject.compiler(), instructions=subject.count())
            recorded = old.get(subject.name, Recorded(compiler="", instructions={}))
            rows += changes(subject.name, recorded["instructions"], new[subject.name]["instructions"])
        else:
            print(f"{subject.name} stays as it is: {missing}", file=sys.stderr)
            if subject.name in old:
                new[subject.name] = old[subject.name]
    for name in old.keys() - new.keys():
        rows += changes(name, old[name]["instructions"], {})
    print("\n".join([row("", "record", "now", "change"), *rows]) if rows else "nothing has changed")
    if update:
        RECORD.write_text(json.dumps(new, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

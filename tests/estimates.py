"""The record of what emulated boards execute, devices/measured.json: what one pass of each of the runtime's inner loops
costs, fitted to counts of random models, and how wrong that is for models that it was not fitted to.

    python -m tests.estimates               shows the errors of a fresh fit beside the record's
    python -m tests.estimates --update      and writes the record
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import msgspec
import numpy as np

from bfedge.device import counts
from bfedge.device.compiler import Compiler, compile_program, runtime_sources
from bfedge.device.counts import Region, count_arguments, read_regions
from bfedge.device.emulator import emulator_command, emulator_version, explain_exit, find_emulator
from bfedge.device.firmware import Firmware, build_firmware, find_xtensa_compiler, open_elf
from bfedge.device.profile import Profile, known_profiles, load_profile, profile_folder
from bfedge.device.session import Session
from bfedge.device.transport import ProcessTransport
from bfedge.export.ports import ARDUINO_APP_OFFSET
from bfedge.files import cache_folder
from bfedge.measure.estimate import RECORD, Costs, Program, Record, recorded, sizes_of, total
from bfedge.measure.operations import KERNELS_IN_PLACE, Operations, operations
from bfedge.measure.work import COLUMN_BLOCK, Stage, experts_used, model_bytes, stages
from bfedge.packed.layout import Encoding
from bfedge.packed.outline import Outline, outline_of
from tests import counting
from tests.instructions import Subject
from tests.samples import FIRMWARE, LINUX, Limits, Sample, fitted_samples, held_out_samples

UPDATE = "python -m tests.estimates --update"
SHF_WRITE, SHF_ALLOC = 1, 2
"""Flags of an ELF section"""

Quantity = Callable[["Counted"], list[int]]
"""By stage"""


@dataclass(frozen=True)
class Counted:
    """One inference on an emulated board."""

    outline: Outline
    kernels: str
    tile: int
    used: tuple[int, ...]
    """Different experts of each tile, summed, by block"""
    regions: tuple[Region, ...]
    """By stage"""
    stack_bytes: int
    """Of the program, by its own word"""

    def done(self) -> list[tuple[str, Operations]]:
        return operations(self.outline, self.kernels, self.tile, self.used)

    def instructions(self) -> list[int]:
        return [region.instructions for region in self.regions]

    def bytes_stored(self) -> list[int]:
        return [region.bytes_stored or 0 for region in self.regions]

    def bytes_loaded(self) -> list[int]:
        """But for the first pass of each product over its weights. The runtime counts that with the rows that pad the
        rearranged weights, some of which are not loaded.
        """
        in_place = self.kernels in KERNELS_IN_PLACE
        read = model_bytes(self.outline, in_place, self.tile, self.used)
        padding = [0 if in_place else never_loaded(s) for s in stages(self.outline, in_place, self.tile)]
        return [
            (region.model_bytes_loaded or 0) + (region.other_bytes_loaded or 0) - stage.model_bytes + unread
            for region, stage, unread in zip(self.regions, read, padding, strict=True)
        ]


def never_loaded(stage: Stage) -> int:
    """Of rearranged int8 weights, the last 16 of 32 rows if they are padding."""
    padded = [p for p in stage.products if p.bytes and p.encoding == Encoding.int8 and 0 < p.rows % 32 <= 16]
    return sum(p.times * 16 * -(-p.columns // COLUMN_BLOCK) * COLUMN_BLOCK for p in padded)


def limits_of(profile: Profile) -> Limits:
    return LINUX if profile.port == "posix" else FIRMWARE


def count_board(board: str, samples: Sequence[Sample]) -> tuple[list[Counted], Program | None]:
    """Runs the samples on an emulated board, with its kernels. Also the memory that its program takes."""
    profile, counted = load_profile(board), list[Counted]()
    with tempfile.TemporaryDirectory(prefix="bfedge-") as folder:
        program, model = Path(folder, "program"), Path(folder, "model.bfe")
        if profile.port != "posix":
            for sample in samples:
                model.write_bytes(sample.packed)
                counting.build_firmware(profile, model, program)
                counted += count_sample(profile, sample, program, model)
            return counted, firmware_memory(profile, samples[0].packed)
        compile_program(counting.target_of(profile), runtime_sources(), program, board)
        # Reading the symbols of a program takes longer than running it.
        with patch.object(counts, "read_symbols", functools.cache(counts.read_symbols)):
            for sample in samples:
                model.write_bytes(sample.packed)
                counted += count_sample(profile, sample, program, model)
        return counted, program_memory(program, counted[0].stack_bytes)


def count_sample(profile: Profile, sample: Sample, program: Path, model: Path) -> Iterator[Counted]:
    """Once for each tile that the board's memory allows."""
    is_linux = profile.port == "posix"
    most = 0 if is_linux else sample.largest_tile()
    tiles = [min(tile or sample.shape.tokens, most) for tile in sample.tiles] if most else sample.tiles
    output = model.with_suffix(".counts")
    output.unlink(missing_ok=True)
    plugin = count_arguments(program, output, count_bytes=True, model=model if is_linux else None)
    command = emulator_command(profile, program, model if is_linux else None, plugin)
    explain = functools.partial(explain_exit, profile)
    with Session(ProcessTransport(command, explain=explain), timeout=counting.SECONDS) as session:
        hello = session.hello()
        for tile in dict.fromkeys(tiles):
            found, summary = session.profile(0, tile)
            assert summary.differing == 0, "what it took computed something else"
            used = tuple(experts_used(selected, tile) for selected in sample.routing)
            regions = read_regions(output)[-len(found) - 1 : -1]  # behind the stages comes the way back from bfe_run
            yield Counted(
                outline_of(sample.packed), hello.kernels or "", tile, used, tuple(regions), hello.stack.bytes or 0
            )


def exported_firmware(profile: Profile, model: bytes, output: Path) -> Firmware:
    """As `bfedge export` links it (bfedge.export.ports)."""
    target = counting.target_of(profile)
    return build_firmware(
        profile.port,
        runtime_sources(),
        model,
        counting.ARENA_BYTES,
        output,
        console="uart",
        board=profile.name,
        compiler=target.compiler,
        target_flags=target.target,
        flash_bytes=profile.bytes_of("flash"),
        ram_bytes=profile.bytes_of("sram"),
        app_offset=ARDUINO_APP_OFFSET,
        objects=cache_folder() / "objects",
    )


def firmware_memory(profile: Profile, model: bytes) -> Program | None:
    if profile.port == "esp_idf":  # what is emulated is not what ESP-IDF builds
        return None
    with tempfile.TemporaryDirectory(prefix="bfedge-") as folder:
        built = exported_firmware(profile, model, Path(folder, "firmware.elf"))
    return Program(
        code_bytes=built.runtime_bytes + built.program_bytes + built.helper_bytes,
        runtime_bytes=built.runtime_bytes,
        data_bytes=built.data_bytes,
        stack_bytes=built.stack_bytes,
        flash_bytes=built.flash_bytes - built.model_bytes,
    )


def program_memory(program: Path, stack_bytes: int) -> Program:
    """Of a Linux program."""
    with open_elf(program) as elf:
        kept = [section for section in elf.iter_sections() if section["sh_flags"] & SHF_ALLOC]
        data = sum(section["sh_size"] for section in kept if section["sh_flags"] & SHF_WRITE)
        code = sum(section["sh_size"] for section in kept) - data
        runtime, file = 0, ""
        symbols = elf.get_section_by_name(".symtab")
        for symbol in symbols.iter_symbols():  # a file's name, and then what is local to it
            kind, is_local = symbol["st_info"]["type"], symbol["st_info"]["bind"] == "STB_LOCAL"
            if kind == "STT_FILE":
                file = symbol.name
            elif kind in ("STT_FUNC", "STT_OBJECT") and (file if is_local else symbol.name).startswith("bfe_"):
                runtime += symbol["st_size"]
    return Program(code, runtime, data, stack_bytes, flash_bytes=None)


def fit(counted: Sequence[Counted], held_out: Sequence[Counted], quantity: Quantity) -> Costs:
    """Costs of the loops, none below zero, for the least sum of squares of the stages' relative errors."""
    from scipy.optimize import nnls

    rows = [done for one in counted for _, done in one.done()]
    amounts = np.array([amount for one in counted for amount in quantity(one)], float)
    loops = sorted({loop for row in rows for loop in row})
    matrix = np.array([[row[loop] for loop in loops] for row in rows]) / amounts[:, None]
    scale = matrix.max(0)
    solution, _ = nnls(matrix / scale, np.ones(len(rows)), maxiter=100 * len(loops))
    costs = {loop: float(f"{cost:.4g}") for loop, cost in zip(loops, solution / scale, strict=True) if cost}
    return with_errors(Costs(costs, 0.0, {}), held_out, quantity)


def with_errors(costs: Costs, held_out: Sequence[Counted], quantity: Quantity) -> Costs:
    whole, by_kind = [], {"embed": 0.0, "attention": 0.0, "experts": 0.0, "logits": 0.0}
    for one in held_out:
        estimated = [(name.split()[-1], total(costs, done)) for name, done in one.done()]
        amounts = quantity(one)
        for (kind, value), amount in zip(estimated, amounts, strict=True):
            by_kind[kind] = max(by_kind[kind], abs(value / amount - 1))
        whole.append(abs(sum(value for _, value in estimated) / sum(amounts) - 1))
    errors = {kind: round(error, 4) for kind, error in by_kind.items()}
    return Costs(costs.loops, math.ceil(max(whole) * 200) / 200, errors)


def sizes_of_all(outlines: Sequence[Outline]) -> dict[str, tuple[int, int]]:
    """The smallest and the largest."""
    found = [sizes_of(outline.shape) for outline in outlines]
    return {name: (min(s[name] for s in found), max(s[name] for s in found)) for name in found[0]}


def compiler_of(profile: Profile) -> Compiler:
    return counting.target_of(profile).compiler if profile.build.zig else find_xtensa_compiler()[0]


def new_record(board: str) -> Record:
    profile = load_profile(board)
    assert profile.emulate is not None
    limits = limits_of(profile)
    fitted, program = count_board(board, fitted_samples(limits))
    held_out, _ = count_board(board, held_out_samples(limits))
    machine = " ".join((profile.emulate.program, *profile.emulate.arguments))
    return Record(
        compiler=compiler_of(profile).version,
        emulator=f"QEMU {emulator_version(find_emulator(profile))} ({machine})",
        kernels=fitted[0].kernels,
        fitted=len(fitted),
        held_out=len(held_out),
        sizes=sizes_of_all([one.outline for one in held_out]),
        program=program,
        instructions=fit(fitted, held_out, Counted.instructions),
        bytes_loaded=fit(fitted, held_out, Counted.bytes_loaded),
        bytes_stored=fit(fitted, held_out, Counted.bytes_stored),
    )


def subjects() -> list[Subject]:
    boards = [profile.name for profile in known_profiles() if profile.emulate is not None]
    return [Subject(board, board, dict) for board in boards]


def row(board: str, record: Record) -> str:
    errors = (record.instructions.error, record.bytes_loaded.error, record.bytes_stored.error)
    worst = ", ".join(f"{kind} {error:.1%}" for kind, error in record.instructions.stage_errors.items())
    return f"{board:<18} {record.kernels:<8} " + " ".join(f"{error:>13.1%}" for error in errors) + f"   {worst}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.estimates", description="Fits estimates of executed work.")
    parser.add_argument("--update", action="store_true", help="write the record")
    update = parser.parse_args().update
    path = profile_folder() / RECORD
    old = recorded() if path.exists() else {}
    new: dict[str, Record] = {}
    print(f"largest errors on models not fitted to\n{'':<27} instructions  bytes loaded  bytes stored   of stages")
    for subject in subjects():
        missing = subject.missing()
        if missing is None:
            new[subject.board] = new_record(subject.board)
            print(row(subject.board, new[subject.board]), flush=True)
        else:
            print(f"{subject.board} stays as it is: {missing}", file=sys.stderr)
            if subject.board in old:
                new[subject.board] = old[subject.board]
    if update:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(new), indent=1) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

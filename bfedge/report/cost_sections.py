"""What the page shows of an inference's cost: energy, and what was measured on boards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bfedge.measure.against_plan import Comparison
from bfedge.measure.energy import Account, EnergyPart
from bfedge.measure.target_plan import TargetPlan
from bfedge.report.board_sections import by_size, tokens_at_once
from bfedge.report.data import Fact, Measured, MeasuredStage, Report
from bfedge.report.words import amount, count, digits, energy, milliseconds

ENERGY = {"expert weights": "c3", "weights": "c0", "activations": "c2", "arithmetic": "c1"}
STAGES = {"attention": "c0", "experts": "c2"}
ROUTING = {
    "even": "No input was at hand: tokens are taken to use all experts alike.",
    "counted": "Weights read were counted by the runtime for a real input.",
}
MARKS = {"": "", "equal": "=", "within": "\N{CHECK MARK}", "differs": "\N{BALLOT X}"}
WEIGHTS_READ = "weights read, "
OTHER = "c9"


def energy_context(report: Report) -> dict[str, Any]:
    boards = [board for board in by_size(report.boards) if board.energy]
    meanings = {account.name: account.meaning for board in boards for account in board.energy}
    found = {part.what for board in boards for account in board.energy for part in account.parts}
    return {
        "energy": [energy_view(board) for board in boards],
        "routing": ROUTING[boards[0].routing] if boards else "",
        "accounts": [Fact(name, meaning) for name, meaning in meanings.items()],
        "energy_legend": [{"name": name, "colour": colour} for name, colour in ENERGY.items() if name in found],
    }


def energy_view(board: TargetPlan) -> dict[str, Any]:
    most = max((account.millijoules or 0 for account in board.energy), default=0) or 1
    missing = sorted({name for account in board.energy for name in account.missing})
    return {
        "title": board.title,
        "rows": [
            {
                "name": account.name,
                "value": energy(account.millijoules),
                "pieces": [
                    {"percent": 100 * (part.millijoules or 0) / most, "colour": ENERGY.get(part.what, OTHER)}
                    for part in account.parts
                    if account.millijoules is not None
                ],
            }
            for account in board.energy
        ],
        "missing": ", ".join(missing),
        "numbers": [
            (
                f"{account.name}: {part.what}, {part.where}",
                amount_of(part),
                "n/a" if part.pj_per_unit is None else f"{part.pj_per_unit:g}",
                energy(part.millijoules),
            )
            for account in board.energy
            for part in account.parts
        ],
        "sources": energy_sources(board.energy),
    }


def amount_of(part: EnergyPart) -> str:
    if part.amount is None:
        return f"n/a {part.unit}"
    number = digits(part.amount) if part.unit == "ms" else count(round(part.amount))
    return f"{number} {part.unit}, {part.origin}"


def energy_sources(accounts: Sequence[Account]) -> list[Fact]:
    sources = {part.where: part.source for account in accounts for part in account.parts if part.source}
    return [Fact(where, source) for where, source in sources.items()]


def time_context(report: Report) -> dict[str, Any]:
    titles = {board.target: board.title for board in report.boards}
    return {
        "profiles": [
            profile_view(measured, titles.get(measured.target, measured.target)) for measured in report.measured
        ],
        "stage_legend": [
            {"name": "attention", "colour": STAGES["attention"]},
            {"name": "experts", "colour": STAGES["experts"]},
            {"name": "embedding and head", "colour": OTHER},
        ],
    }


def profile_view(measured: Measured, title: str) -> dict[str, Any]:
    sizes = [stage_size(stage) for stage in measured.stages]
    most, whole = max(sizes, default=0) or 1, sum(sizes) or 1

    def in_words(ticks: int | None, instructions: int | None) -> str:
        if measured.emulated or ticks is None:
            return amount(instructions)
        return milliseconds(measured.milliseconds(ticks)) if measured.clock_hz else f"{amount(ticks)} ticks"

    unit = " instructions" if measured.emulated else ""
    total = in_words(measured.ticks, measured.instructions)
    return {
        "title": title,
        "emulated": measured.emulated,
        "where": f"{measured.processor}: {measured.where}",
        "total": f"One inference: {total}{unit}" + ("; instructions are not cycles." if measured.emulated else "."),
        "note": f"The emulated machine has {measured.note}." if measured.note else "",
        "rows": [
            {
                "name": stage.name,
                "value": in_words(stage.ticks, stage.instructions),
                "note": f"{100 * value / whole:.0f}%",
                "pieces": [{"percent": 100 * value / most, "colour": STAGES.get(stage.name.rsplit(" ", 1)[-1], OTHER)}],
            }
            for stage, value in zip(measured.stages, sizes, strict=True)
        ],
        "against_plan": list(against_plan(measured.against_plan)),
        "energy": [Fact(account.name, energy(account.millijoules)) for account in measured.energy],
        "head": ["stage", "instructions" if measured.emulated else "ms", "weights read, bytes"],
        "numbers": [(s.name, exact(measured, s), count(s.model_bytes)) for s in measured.stages],
        "facts": [
            Fact("file", measured.file),
            Fact("runtime", measured.runtime),
            Fact("tokens", tokens_at_once(measured.tile)),
        ],
    }


def against_plan(compared: Sequence[Comparison]) -> Iterator[dict[str, Any]]:
    """What stages read is one row, but for stages that differ."""
    read = [row for row in compared if row.what.startswith(WEIGHTS_READ) and row.agrees and row.measured is not None]
    for row in compared:
        if row not in read:
            yield comparison_view(row)
    if read:
        planned, measured = sum(row.planned for row in read), sum(row.measured or 0 for row in read)
        yield comparison_view(Comparison(f"weights read, {len(read)} stages", planned, measured))


def comparison_view(row: Comparison) -> dict[str, Any]:
    if row.measured is None:
        verdict = ""
    elif row.agrees:
        verdict = "within" if row.is_bound else "equal"
    else:
        verdict = "differs"
    planned = f"{'≤ ' if row.is_bound else ''}{count(row.planned)}"
    return {
        "what": row.what,
        "planned": planned,
        "measured": count(row.measured),
        "verdict": verdict,
        "mark": MARKS[verdict],
    }


def exact(measured: Measured, stage: MeasuredStage) -> str:
    if measured.emulated:
        return count(stage.instructions)
    time = measured.milliseconds(stage.ticks)
    return "n/a" if time is None else digits(time)


def stage_size(stage: MeasuredStage) -> int:
    return stage.instructions if stage.instructions is not None else stage.ticks or 0

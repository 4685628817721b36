"""What the page shows of an inference's cost: energy, and what was measured on boards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bfedge.measure.against_plan import Comparison
from bfedge.measure.energy import Account, EnergyPart
from bfedge.measure.target_plan import TargetPlan
from bfedge.report.board_sections import by_size, titles, tokens_at_once
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
    names = titles(report.boards)
    meanings = {account.name: account.meaning for board in boards for account in board.energy}
    found = {part.what for board in boards for account in board.energy for part in account.parts}
    return {
        "energy": [energy_view(board, names[board.target]) for board in boards],
        "routing": ROUTING[boards[0].routing] if boards else "",
        "accounts": [Fact(name, meaning) for name, meaning in meanings.items()],
        "energy_legend": [{"name": name, "colour": colour} for name, colour in ENERGY.items() if name in found],
    }


def energy_view(board: TargetPlan, title: str) -> dict[str, Any]:
    most = max((account.millijoules or 0 for account in board.energy), default=0) or 1
    parts = list(dict.fromkeys(part for account in board.energy for part in account.parts))
    return {
        "title": title,
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
        "missing": why_missing(board.energy),
        "numbers": [
            (
                f"{part.what}, {part.where}",
                amount_of(part),
                "n/a" if part.pj_per_unit is None else f"{part.pj_per_unit:,g}",
                energy(part.millijoules).replace(" ", "\N{NO-BREAK SPACE}"),
            )
            for part in parts
        ],
        "sources": energy_sources(board.energy),
    }


def why_missing(accounts: Sequence[Account]) -> str:
    """Nothing if every account has its sum."""
    missing = dict.fromkeys(name for account in accounts for name in account.missing)
    amounts = {f"{part.unit} of {part.what}" for account in accounts for part in account.parts if part.amount is None}
    unknown, unsourced = ([n for n in missing if (n in amounts) == wanted] for wanted in (True, False))
    reasons = [f"{', '.join(unknown)} were not counted for this processor"] if unknown else []
    reasons += [f"no sourced constant for {', '.join(unsourced)}"] if unsourced else []
    return f"n/a: {'; '.join(reasons)}." if reasons else ""


def amount_of(part: EnergyPart) -> str:
    if part.amount is None:
        return f"n/a {part.unit}"
    number = digits(part.amount) if part.unit == "ms" else count(round(part.amount))
    return f"{number} {part.unit}, {part.origin}"


def energy_sources(accounts: Sequence[Account]) -> list[Fact]:
    sources = {part.where: part.source for account in accounts for part in account.parts if part.source}
    return [Fact(where, source) for where, source in sources.items()]


def time_context(report: Report) -> dict[str, Any]:
    names = titles(report.boards)
    return {
        "profiles": [
            profile_view(measured, names.get(measured.target, measured.target)) for measured in report.measured
        ],
        "stage_legend": [
            {"name": "attention", "colour": STAGES["attention"]},
            {"name": "experts", "colour": STAGES["experts"]},
            {"name": "embedding and head", "colour": OTHER},
        ],
    }


def profile_view(measured: Measured, title: str) -> dict[str, Any]:
    quantity = quantity_of(measured)
    sizes = [quantity.of(stage) for stage in measured.stages] if quantity else []
    most, whole = max(sizes, default=0) or 1, sum(sizes) or 1
    return {
        "title": title,
        "emulated": measured.emulated,
        "where": f"{measured.processor}: {measured.where}",
        "total": total(measured, quantity, whole),
        "note": f"The emulated machine has {measured.note}." if measured.note else "",
        "rows": [
            {
                "name": stage.name,
                "value": quantity.in_words(value) if quantity else "",
                "note": f"{100 * value / whole:.0f}%",
                "pieces": [{"percent": 100 * value / most, "colour": STAGES.get(stage.name.rsplit(" ", 1)[-1], OTHER)}],
            }
            for stage, value in zip(measured.stages if quantity else (), sizes, strict=True)
        ],
        "against_plan": list(against_plan(measured.against_plan)),
        "energy": [Fact(account.name, energy(account.millijoules)) for account in measured.energy],
        "missing": why_missing(measured.energy),
        "head": ["stage", quantity.name if quantity else "time", "weights read, bytes"],
        "numbers": [
            (stage.name, quantity.exact(quantity.of(stage)) if quantity else "n/a", count(stage.model_bytes))
            for stage in measured.stages
        ],
        "facts": [
            Fact("file", measured.file),
            Fact("runtime", measured.runtime),
            Fact("tokens", tokens_at_once(measured.tile)),
        ],
    }


@dataclass(frozen=True)
class Quantity:
    """What the bars and numbers of a profile are of."""

    name: str
    of: Callable[[MeasuredStage], int]
    in_words: Callable[[int], str]
    exact: Callable[[int], str]


def quantity_of(measured: Measured) -> Quantity | None:
    """Instructions in an emulator, else time, or ticks of an unknown length; None if a stage has none."""
    if measured.emulated:
        if any(stage.instructions is None for stage in measured.stages):
            return None
        return Quantity("instructions", lambda stage: stage.instructions or 0, amount, count)
    if any(stage.ticks is None for stage in measured.stages):
        return None
    if not measured.clock_hz:
        return Quantity("ticks", lambda stage: stage.ticks or 0, lambda ticks: amount(ticks, " ticks"), count)
    return Quantity(
        "ms",
        lambda stage: stage.ticks or 0,
        lambda ticks: milliseconds(measured.milliseconds(ticks)),
        lambda ticks: digits(measured.milliseconds(ticks) or 0),
    )


def total(measured: Measured, quantity: Quantity | None, stages: int) -> str:
    """Of a whole inference, and what the stages' sum is."""
    if measured.emulated:
        return f"One inference: {amount(measured.instructions)} instructions, which are not cycles."
    if quantity is None:
        return "The board told no time by stage."
    alone = "n/a" if measured.ticks is None else quantity.in_words(measured.ticks)
    return (
        f"One inference: {alone}. The stages are of another run, which was traced: {quantity.in_words(stages)} in all."
    )


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

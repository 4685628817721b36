"""The table of energy that `bfedge plan` and `bfedge profile` show."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bfedge.cli.output import count, out, table

if TYPE_CHECKING:
    from bfedge.measure.energy import Account, EnergyPart


def energy_as_dicts(accounts: tuple[Account, ...]) -> list[dict[str, Any]]:
    """For --json."""
    return [
        {
            "name": account.name,
            "meaning": account.meaning,
            "millijoules": account.millijoules,
            "missing": list(account.missing),
            "parts": [{**dataclasses.asdict(part), "millijoules": part.millijoules} for part in account.parts],
        }
        for account in accounts
    ]


def show_energy(accounts: tuple[Account, ...]) -> None:
    rows = table("\nenergy of an inference", "\namount", "\n", "\npJ each", "\nmJ")
    for account in accounts:
        rows.add_row(account.name, "", "", "", millijoules(account.millijoules), style="bold")
        for part in account.parts:
            rows.add_row(*energy_row(part))
    out.print(rows)
    out.print("bytes are those of load and store instructions; what a cache holds costs less")
    missing = sorted({name for account in accounts for name in account.missing})
    if missing:
        out.print(f"n/a for want of {', '.join(missing)}")


def energy_row(part: EnergyPart) -> tuple[str, str, str, str, str]:
    if part.amount is None:
        amount, known = f"n/a {part.unit}", ""
    else:
        number = f"{part.amount:,.4g}" if part.unit == "ms" else count(round(part.amount))
        amount, known = f"{number} {part.unit}", part.origin
    pj = "n/a" if part.pj_per_unit is None else f"{part.pj_per_unit:g}"
    return f"  {part.what}, {part.where}", amount, known, pj, millijoules(part.millijoules)


def millijoules(energy: float | None) -> str:
    return "n/a" if energy is None else f"{energy:.4g}"

"""`bfedge doctor`: what is installed, what is missing for which board, and what installs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bfedge.cli.output import json_option, out, print_json, table
from bfedge.errors import BfedgeError

if TYPE_CHECKING:
    from bfedge.device.doctor import BoardReport, Inventory, Tool

TO = {"build": "to build for", "emulate": "to emulate", "flash": "to flash", "talk": "to talk to"}


@click.command("doctor")
@click.argument("target", required=False)
@json_option
def command(target: str | None, as_json: bool) -> None:
    """Show what is installed, what is missing for which board and step, and the command that installs it.

    With TARGET (a board's name, alias or .toml file) for that board alone; exit status 1 if nothing can be built for
    it, neither for the board nor for its emulator.
    """
    from bfedge.device.doctor import report, take_inventory
    from bfedge.device.profile import known_profiles, load_profile

    profiles = [load_profile(target)] if target else known_profiles()
    inventory = take_inventory(profiles)
    reports = [report(profile, inventory) for profile in profiles]
    if as_json:
        print_json("doctor", {"tools": tools_as_dict(inventory), "targets": [as_dict(r) for r in reports]})
    else:
        if not target:
            show_tools(inventory)
        show_boards(reports)
        show_missing(reports)
    if target and not reports[0].buildable:
        build = next(step for step in reports[0].steps if step.name == "build")
        raise BfedgeError(
            f"nothing can be built for {reports[0].profile.name}: {build.lacks} is missing", ways(build.missing[0])
        )


def tools_as_dict(inventory: Inventory) -> dict[str, Any]:
    return {t.name: {"present": t.present, "version": t.version, "install": t.install} for t in inventory.values()}


def as_dict(found: BoardReport) -> dict[str, Any]:
    steps = {
        step.name: {
            "ready": step.ready,
            "uses": list(step.uses),
            "missing": [[tool.name for tool in group] for group in step.missing],
            "install": [[tool.install for tool in group] for group in step.missing],
        }
        for step in found.steps
    }
    return {"name": found.profile.name, "buildable": found.buildable, "steps": steps}


def show_tools(inventory: Inventory) -> None:
    from bfedge.device.doctor import PACKAGES

    tools = table("tool", "version")
    for column in tools.columns:
        column.justify = "left"
    for tool in inventory.values():
        what = "Python package " if tool.name in PACKAGES else ""
        tools.add_row(f"{what}{tool.name}", (tool.version or "installed") if tool.present else "missing")
    out.print(tools)


def show_boards(reports: list[BoardReport]) -> None:
    from bfedge.device.doctor import STEPS

    boards = table("\nboard", *(f"\n{name}" for name in STEPS))
    for column in boards.columns:
        column.justify = "left"
    for found in reports:
        cells = []
        for name in STEPS:
            step = found.step(name)
            cells.append("-" if step is None else ", ".join(step.uses) if step.ready else "missing")
        boards.add_row(found.profile.name, *cells)
    out.print(boards)


def show_missing(reports: list[BoardReport]) -> None:
    """Each command once, with all that it is good for."""
    good_for: dict[str, dict[str, list[str]]] = {}
    for found in reports:
        for step in found.steps:
            for group in step.missing:
                boards = good_for.setdefault(ways(group), {}).setdefault(TO[step.name], [])
                boards.append(found.profile.name)
    for command, steps in good_for.items():
        out.print(f"\n{command}")
        for to, boards in steps.items():
            out.print(f"  {to} {', '.join(boards)}")


def ways(group: tuple[Tool, ...]) -> str:
    """What installs the first of several tools of which one is enough, and the others' names."""
    first = group[0].install
    others = [tool.name for tool in group if tool.install != first]
    return f"{first}   (or {', '.join(others)})" if others else first

"""`bfedge devices`: the boards that bfedge knows, and everything about one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bfedge.cli.output import count, json_option, out, print_json, table

if TYPE_CHECKING:
    from bfedge.device.doctor import BoardReport
    from bfedge.device.profile import Profile, Quantity


@click.command("devices")
@click.argument("board", required=False)
@json_option
def command(board: str | None, as_json: bool) -> None:
    """List the boards, or show everything about BOARD with the sources of its numbers.

    BOARD is a name, an alias, or the path of your own .toml file.
    """
    from bfedge.device.doctor import report, take_inventory
    from bfedge.device.profile import known_profiles, load_profile

    profiles = [load_profile(board)] if board else known_profiles()
    inventory = take_inventory(profiles, versions=False)
    reports = [report(profile, inventory) for profile in profiles]
    if as_json:
        print_json("devices", {"devices": [as_dict(r) for r in reports]})
    elif board:
        show(reports[0])
    else:
        show_all(reports)


def as_dict(found: BoardReport) -> dict[str, Any]:
    import msgspec

    steps = {step.name: {"ready": step.ready, "uses": list(step.uses)} for step in found.steps}
    values: dict[str, Any] = msgspec.to_builtins(found.profile)
    for memory, values_of_memory in zip(found.profile.memories, values["memories"], strict=True):
        values_of_memory["room"] = memory.room
    return {**values, "steps": steps}


def show_all(reports: list[BoardReport]) -> None:
    names = table("board", "also", "CPU", "clock", "flash", "RAM", "build", "emulate")
    for column in names.columns:
        column.justify = "left"
    for found in reports:
        profile = found.profile
        names.add_row(
            profile.name,
            ", ".join(profile.aliases),
            profile.cpu.name,
            clock(profile.cpu.clock_hz),
            memories(profile, "flash"),
            memories(profile, "sram", "psram", "dram"),
            state(found, "build"),
            state(found, "emulate"),
        )
    out.print(names)
    out.print(
        "\n`bfedge devices BOARD` shows one with its sources; `bfedge doctor` says how to install what is missing."
    )


def state(found: BoardReport, step_name: str) -> str:
    """What a step would be done with, or "missing"; a dash for a step that the board doesn't have."""
    step = found.step(step_name)
    if step is None:
        return "-"
    return step.uses[-1 if step_name == "emulate" else 0] if step.ready else "missing"  # the compiler, or QEMU


def clock(hz: Quantity | None) -> str:
    return f"{hz.value / 1e6:,.0f} MHz" if hz else "-"


def memories(profile: Profile, *kinds: str) -> str:
    return " + ".join(size(int(m.bytes.value)) for m in profile.memories if m.kind in kinds) or "-"


def size(number: int) -> str:
    """In the largest unit that divides it."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number % unit == 0:
            return f"{number // unit:,} {name}"
    return f"{number:,} bytes"


def show(found: BoardReport) -> None:
    profile = found.profile
    out.print(f"{profile.name}: {profile.title}", style="bold")
    if profile.aliases:
        out.print(f"also called {', '.join(profile.aliases)}")
    cores = f", {profile.cpu.cores} cores" if profile.cpu.cores > 1 else ""
    out.print(f"{profile.cpu.name}, {profile.cpu.machine}{cores}; runs the port {profile.port}")
    numbers = table("\nnumber", "\nvalue", "\nsource")
    numbers.columns[2].justify = "left"

    def row(name: str, quantity: Quantity | None, unit: str) -> None:
        if quantity:
            value = count(quantity.value) if isinstance(quantity.value, int) else f"{quantity.value:.10g}"
            numbers.add_row(name, f"{value} {unit}".rstrip(), quantity.source)

    row("clock", profile.cpu.clock_hz, "Hz")
    row("measured rate", profile.cpu.instructions_per_s, "instructions/s")
    row("power while computing", profile.cpu.active_power_w, "W")
    row("energy of arithmetic", profile.cpu.energy_pj_per_multiply_add, "pJ/multiply-add")
    for memory in profile.memories:
        row(memory.name, memory.bytes, "bytes")
        row("  share for a model", memory.usable, "of it")
        row("  energy", memory.energy_pj_per_bit, "pJ/bit")
        row("  bandwidth", memory.bandwidth_bytes_per_s, "bytes/s")
    if numbers.rows:
        out.print(numbers)
    room = table("\nmemory", "\nholds", "\nroom for a model")
    for memory in profile.memories:
        room.add_row(memory.name, " and ".join(memory.holds), f"{count(memory.room)} bytes")
    if room.rows:
        out.print(room)
    steps = table("\nstep", "\nwith", "\ncommand or flags")
    for column in steps.columns:
        column.justify = "left"
    for step in found.steps:
        steps.add_row(
            step.name, ", ".join(step.uses) if step.ready else f"{step.lacks}: missing", flags(profile, step.name)
        )
    out.print(steps)


def flags(profile: Profile, step_name: str) -> str:
    """What of the profile goes into a step."""
    if step_name == "emulate" and profile.emulate:
        return " ".join((profile.emulate.program, *profile.emulate.arguments))
    if step_name == "build":
        zig = " ".join(("zig cc", *profile.build.zig, *profile.build.zig_cpu)) if profile.build.zig else ""
        gcc = " ".join((profile.build.gcc, *profile.build.gcc_flags)) if profile.build.gcc_flags else ""
        return "; ".join(filter(None, (zig, gcc)))
    return ""

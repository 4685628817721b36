"""Writes a report as one HTML file that loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import bfedge
from bfedge.measure.against_plan import Comparison
from bfedge.measure.verify import Check
from bfedge.report import words
from bfedge.report.board_sections import boards_context
from bfedge.report.cost_sections import energy_context, time_context
from bfedge.report.data import Measured, Report
from bfedge.report.model_sections import experts_context, memory_context, model_context


@dataclass(frozen=True)
class Section:
    id: str
    """Also its template's name"""
    short: str
    title: str
    note: str
    figures: tuple[str, ...]
    """Ids"""


SECTIONS = (
    Section("model", "Model", "What it is", "", ("file", "work")),
    Section(
        "boards",
        "Boards",
        "What fits where",
        "Bytes that the packed file and the runtime take of each memory, exact, against the room that a board has for "
        "them. The number of experts is the largest that fits with everything else equal. Instructions are estimated "
        "from counts in emulators, and are not cycles; a time needs a rate that was measured on the board.",
        ("fit",),
    ),
    Section("memory", "Memory", "Memory and experts", "", ("memory", "compression", "workspace")),
    Section(
        "energy",
        "Energy",
        "Energy of an inference",
        "Bytes moved times a memory's energy per bit, counted in three ways; only constants with a source count. "
        "Caches make the second and third upper bounds.",
        ("energy-figure",),
    ),
    Section("time", "Measured", "Measured and emulated on boards", "", ("stages",)),
    Section("experts", "Experts", "Experts and routing", "", ("routing", "shares", "similarity")),
    Section(
        "verify",
        "Verified",
        "Does it compute what it should?",
        "The C runtime is compared with the reference on the machine that wrote this page, bit for bit. "
        "`bfedge verify --checkpoint` compares torch and ONNX besides, and boards where one is at hand.",
        ("checks",),
    ),
    Section("provenance", "Versions", "Versions and hashes", "", ()),
)


def render(report: Report) -> str:
    """The page. The same report gives the same text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bfedge.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    environment.filters.update(count=words.count, size=words.size, amount=words.amount, prose=prose)
    script = read("scheme.js")
    return environment.get_template("page.html.j2").render(
        report=report,
        version=bfedge.__version__,
        style=trusted(read("style.css")),
        dark=trusted(read("dark.css")),
        script=trusted(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        sections=SECTIONS,
        summary=summary(report),
        pills=pills(report),
        tiles=tiles(report),
        **model_context(report),
        **boards_context(report),
        **memory_context(report),
        **energy_context(report),
        **time_context(report),
        **experts_context(report),
        checks=[*report.checks, *(plan_check(measured) for measured in report.measured if compared(measured))],
    )


def read(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def shown(value: Any) -> Any:
    """Whatever a template writes: names come from files."""
    if not isinstance(value, str):
        return value
    text = words.printable(value)
    return trusted(text) if hasattr(value, "__html__") else text


def trusted(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def compared(measured: Measured) -> list[Comparison]:
    """What the board could tell."""
    return [row for row in measured.against_plan if row.measured is not None]


def plan_check(measured: Measured) -> Check:
    differing = [row.what for row in measured.against_plan if not row.agrees]
    where = f"{measured.target}{', emulated' if measured.emulated else ''}"
    if differing:
        return Check(f"plan against {where}", False, f"{measured.file}: differs in {', '.join(differing[:3])}")
    return Check(f"plan against {where}", True, f"{measured.file}: {len(compared(measured))} numbers as planned")


def prose(text: str) -> Any:
    """Our own messages: what stands between backticks is code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def summary(report: Report) -> str:
    shape = report.shape
    return (
        f"A ButterflyViT of {shape.layers} layer{'s' * (shape.layers > 1)} with {words.count(shape.experts)} butterfly "
        f"experts each, of which every token takes {shape.top_k}: one ternary matrix a layer, and for each expert "
        "the angles of two rotations."
    )


def pills(report: Report) -> list[dict[str, str]]:
    found = []
    if report.checks:
        passed = all(check.passed for check in report.checks)
        found.append(
            {"text": "C runtime = reference, on this machine", "style": "good"}
            if passed
            else {"text": "not verified", "style": "bad"}
        )
    if report.boards:
        fitting = sum(board.fits for board in report.boards)
        style = "good" if fitting == len(report.boards) else "warm" if fitting else "bad"
        found.append({"text": f"fits {fitting} of {len(report.boards)} boards", "style": style})
    if report.measured:
        found.append(plan_pill(report.measured))
    return found


def plan_pill(profiles: Sequence[Measured]) -> dict[str, str]:
    emulated, on_boards = any(p.emulated for p in profiles), any(not p.emulated for p in profiles)
    how = " and ".join(["measured"] * on_boards + ["emulated"] * emulated)
    rows = [row for profile in profiles for row in compared(profile)]
    differing = sum(not row.agrees for row in rows)
    if differing:
        return {"text": f"plan differs from {'measurement' if on_boards else 'emulation'}: {differing}", "style": "bad"}
    if not all(compared(profile) for profile in profiles):
        return {"text": f"{how}, not compared with the plan", "style": "warm"}
    return {"text": f"{how} as planned", "style": "good"}


def tiles(report: Report) -> list[dict[str, str]]:
    plan = report.plan
    smallest, largest = words.size(plan.workspace_bytes_smallest), words.size(plan.workspace_bytes)
    compression = plan.paper.standard_experts / plan.paper.packed_experts
    found = [
        ("Whole file", words.size(plan.file_bytes), f"{words.count(plan.file_bytes)} bytes"),
        ("Workspace", smallest, f"one token at a time; fastest: {largest}"),
        ("Experts", words.times(compression), f"less than in FP32: {words.size(plan.paper.packed_experts)}"),
        ("Multiply-adds", words.amount(sum(plan.multiply_adds.values())), "an inference"),
    ]
    if report.accuracy:
        share, images = report.accuracy.split(", ", 1)
        found.insert(0, ("Accuracy", share, images))
    for measured in report.measured:
        time = measured.milliseconds(measured.ticks)
        if time is not None:
            found.append(("Time", words.milliseconds(time), f"measured on {measured.target}"))
            break
    return [{"name": name, "value": value, "note": note} for name, value, note in found]


def figures(report: Report) -> list[dict[str, Any]]:
    """Every figure that a page can have, and why it has not."""
    return [
        {
            "id": figure,
            "section": section.id,
            "present": figure not in report.left_out,
            "why": report.left_out.get(figure),
        }
        for section in SECTIONS
        for figure in section.figures
    ]

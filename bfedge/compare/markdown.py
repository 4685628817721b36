"""The comparison as Markdown: tables, and how they came about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bfedge.compare.sections import Section
from bfedge.compare.study import Subject
from bfedge.compare.training_record import as_toml, public_values, train_command
from bfedge.config import config_to_dict
from bfedge.errors import BfedgeError
from bfedge.files import check_place, is_file, write_atomically
from bfedge.report.words import printable

BEGIN, END = "<!-- bfedge compare: begin -->", "<!-- bfedge compare: end -->"
FRAME = "# Comparison\n\n"


def demand_place(path: Path) -> None:
    """Raises BfedgeError for a file that somebody else wrote: before the measurements, not after them."""
    if path.suffix != ".md":
        raise BfedgeError(f"`{path}`: results are Markdown, and their file ends in .md")
    check_place(path)
    if is_file(path):
        around(path)


def around(path: Path) -> tuple[str, str]:
    """What stands in a file before and behind the results."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as problem:
        raise BfedgeError(f"cannot read `{path}`: {getattr(problem, 'strerror', None) or 'it is no text'}") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not begin or not end:
        raise BfedgeError(
            f"`{path}` exists, and has no place for results",
            f"give another name, or put the lines `{BEGIN}` and `{END}` where they belong",
        )
    return before, behind


def write_markdown(path: Path, results: str) -> None:
    """Into the place that the file has for results, all around it kept; or into a new file."""
    before, behind = around(path) if is_file(path) else (FRAME, "\n")
    text = printable(f"{before}{BEGIN}\n{results.strip()}\n{END}{behind}")
    write_atomically(path, lambda name: Path(name).write_text(text, encoding="utf-8"))


def markdown(sections: Sequence[Section], subjects: Sequence[Subject], origin: dict[str, Any], plot: str | None) -> str:
    """`origin` says how the results came about; `plot` is the learning curves' file, as seen from the text's."""
    parts = [provenance(subjects, origin)]
    for section in sections:
        parts.append(f"## {section.title}\n\n{section.text}\n\n{markdown_table(section)}")
        if plot and section.title == "Learning curve":
            parts.append(f"![learning curves]({plot})")
    return "\n\n".join(parts)


def markdown_table(section: Section) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rule = ["---", *["---:" if section.figures else "---"] * (len(section.columns) - 1)]
    return "\n".join([line(section.columns), line(rule), *map(line, section.rows)])


def provenance(subjects: Sequence[Subject], origin: dict[str, Any]) -> str:
    lines = ["## What was run", "", "```sh"]
    recipes = [(s, public_values(s.training)) for s in subjects if s.training]
    base: dict[str, Any] = recipes[0][1] if recipes else {}
    for subject, values in recipes:
        lines.append(train_command(subject.path.name, values, base, config_to_dict(subject.config)))
    lines += [origin["command"], "```", ""]
    lines += [f"- {line}" for line in facts(origin)]
    if base:
        lines += ["", f"recipe.toml, as {recipes[0][0].name} was trained:", "", "```toml", as_toml(base).strip(), "```"]
    return "\n".join(lines)


def facts(origin: dict[str, Any]) -> list[str]:
    machine, versions = origin["machine"], origin["versions"]
    found = []
    if origin["test_images"] is not None:
        found.append(
            f"data: {origin['data']}, {origin['test_images']:,} test images; everything but accuracies from "
            f"{origin['images_of_statistics']:,} of them"
        )
    return [
        *found,
        f"this comparison ran on: {origin['gpu'] or 'no GPU'}; {machine['processor']}, {machine['cpus']} CPUs, "
        f"{machine['system']}; threads of torch: {origin['threads']}; load {machine['load']} before, "
        f"{machine['load_at_the_end']} after",
        "versions: " + ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "a checkpoint does not say what machine trained it",
    ]

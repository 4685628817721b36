"""Words go to stderr, results to stdout; with `--json` the result is one JSON object with a schema number."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import track as rich_track
from rich.table import Table
from rich.text import Text

from bfedge.report.words import printable

JSON_SCHEMA = 1

Command = TypeVar("Command", bound=Callable[..., Any])


class SafeConsole(Console):
    """Names of files and classes can't speak to the terminal, and their brackets are no markup."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


# What is not a terminal has no width to wrap tables at.
out = SafeConsole(highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 500)
words = SafeConsole(stderr=True, highlight=False, soft_wrap=True, markup=False)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def print_json(verb: str, result: dict[str, Any]) -> None:
    """JSON has no NaN and no infinity: they are null."""
    json.dump(finite({"schema": JSON_SCHEMA, "verb": verb, **result}), sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table: first column left, the others right."""
    result = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        result.add_column(column, justify="left" if index == 0 else "right")
    return result


def track(items: Iterable[Any], title: str) -> Iterable[Any]:
    """A progress bar on a terminal, nothing elsewhere."""
    return rich_track(items, escape(printable(title)), console=words, transient=True, disable=not words.is_terminal)


def count(number: int) -> str:
    return f"{number:,}"


def counted(number: int, what: str) -> str:
    """`1 layer`, `1,024 layers`."""
    return f"{count(number)} {what}{'s' * (number != 1)}"


def needs(extra: str, problem: ImportError) -> Exception:
    """The error for a missing optional package."""
    from bfedge.errors import BfedgeError

    return BfedgeError(f"this needs the package `{problem.name}`", f'`pip install "bfedge[{extra}]"` installs it')

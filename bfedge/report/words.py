"""Numbers as people read them. None reads n/a."""

from __future__ import annotations

import re

UNKNOWN = "n/a"
TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"

DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the text around them"""
UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Names as a page can show them: without characters that turn our own words around, and with \\xff for a byte of a
    file's name that is no UTF-8.
    """

    def seen(found: re.Match[str]) -> str:
        number = ord(found.group())
        return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else "\N{REPLACEMENT CHARACTER}"

    return UNPRINTABLE.sub(seen, DIRECTIONS.sub("", text))


def count(number: float | None) -> str:
    return UNKNOWN if number is None else f"{round(number):,}"


def size(number: float | None) -> str:
    """Bytes in the unit that leaves at most four digits before the point."""
    if number is None:
        return UNKNOWN
    value, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 and (unit != "B" or abs(value) < 1000):
            break
        value, unit = value / 1024, larger
    return f"{digits(value) if unit != 'B' else round(value)} {unit}"


def amount(number: float | None, unit: str = "") -> str:
    """With k, M or G."""
    if number is None:
        return UNKNOWN
    value, prefix = float(number), ""
    for larger in ("k", "M", "G", "T"):
        if abs(value) < 999.5:
            break
        value, prefix = value / 1000, larger
    shown = f"{value:g}" if not prefix and value == int(value) else digits(value)
    return f"{shown} {prefix}{unit}".strip()


def energy(millijoules: float | None) -> str:
    return small(millijoules, ("mJ", "µJ", "nJ", "pJ"))


def milliseconds(number: float | None) -> str:
    if number is not None and number >= 1000:
        return f"{digits(number / 1000)} s"
    return small(number, ("ms", "µs", "ns"))


def small(number: float | None, units: tuple[str, ...]) -> str:
    """In the first of the units, each a thousandth of the one before, in which it is not below 0.1."""
    if number is None:
        return UNKNOWN
    value = float(number)
    for unit in units[:-1]:
        if value >= 0.1 or value == 0:
            return f"{digits(value)} {unit}"
        value *= 1000
    return f"{digits(value)} {units[-1]}"


def times(ratio: float | None) -> str:
    return UNKNOWN if ratio is None else f"{digits(ratio)}{TIMES}"


def cosine(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    shown = f"{value:.2f}"
    return "0.00" if shown == "-0.00" else shown.replace("-", MINUS)


def percent(share: float | None) -> str:
    if share is None:
        return UNKNOWN
    return f"{share:.1%}" if share >= 0.001 or share == 0 else "< 0.1%"


def digits(value: float) -> str:
    """Three significant ones, all of those before the point."""
    decimals = 3 if abs(value) < 0.9995 else 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    if 0 < abs(value) < 0.09995:
        return f"{value:.3g}"
    return f"{value:,.{decimals if value else 0}f}"

"""A claim of a paper beside what comes out when it is computed again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Literal

VIT = "ButterflyViT"
MOE = "ButterflyMoE"


@dataclass(frozen=True)
class Claim:
    paper: str
    where: str
    """Table, equation or section"""
    what: str
    paper_says: str
    """As printed, with its unit; its first number is the figure, `none` is 0"""
    recomputed: float | int | None
    """In the printed unit; None if it can't be computed here"""
    why: str = ""
    """How it comes about, and for a contradiction what it contradicts"""
    must_match: bool = True
    """False for figures that contradict others of the same paper or that no reading gives, and if `ours`"""
    relation: Literal["equal", "above", "below"] = "equal"
    between: tuple[int, int] | None = None
    """The range that the words stand for, both ends included; `relation` does not count then"""
    ours: bool = False
    """The difference is one of our models, files or boards; it says nothing against the paper"""

    @property
    def figure(self) -> str:
        """The digits as printed."""
        found = re.search(r"\d[\d,]*(\.\d+)?", self.paper_says)
        return found.group().replace(",", "") if found else "0"

    @property
    def matches(self) -> bool:
        """Equal means that the printed digits are those of the recomputed value, rounded or cut off."""
        if self.recomputed is None:
            return False
        if self.between:
            return self.between[0] <= self.recomputed <= self.between[1]
        if self.relation == "equal":
            return cut_off(self.figure, self.recomputed) or rounded(self.figure, self.recomputed)
        above = self.recomputed > float(self.figure)
        return above if self.relation == "above" else self.recomputed < float(self.figure)

    @property
    def contradiction(self) -> bool:
        return self.recomputed is not None and not (self.must_match or self.ours or self.matches)

    @property
    def difference(self) -> float | None:
        """Recomputed less printed; for a range or a bound the distance from it, 0 inside."""
        if self.recomputed is None:
            return None
        if self.between:
            low, high = self.between
            return self.recomputed - min(max(self.recomputed, low), high)
        if self.relation != "equal" and self.matches:
            return 0.0
        return self.recomputed - float(self.figure)

    @property
    def recomputed_text(self) -> str:
        """With one digit more than printed, so that it shows whether the paper rounded."""
        return "n/a" if self.recomputed is None else self.digits(self.recomputed)

    @property
    def difference_text(self) -> str:
        difference = self.difference
        if difference is None:
            return "n/a"
        text = self.digits(difference)
        return "0" if not text.strip("0.-") else text if text.startswith("-") else f"+{text}"

    @property
    def note(self) -> str:
        """`why`, and how the digits were printed where that matters."""
        only_cut = (
            self.recomputed is not None
            and self.relation == "equal"
            and not self.between
            and cut_off(self.figure, self.recomputed)
            and not rounded(self.figure, self.recomputed)
        )
        return "; ".join(part for part in (self.why, "digits cut off" if only_cut else "") if part)

    def digits(self, value: float | int) -> str:
        if isinstance(self.recomputed, int):
            return f"{round(value):,}"
        decimals = len(self.figure.partition(".")[2]) + 1
        return f"{value:,.{decimals}f}"


def cut_off(figure: str, value: float) -> bool:
    return printed(figure, value, ROUND_DOWN)


def rounded(figure: str, value: float) -> bool:
    return printed(figure, value, ROUND_HALF_UP)


def printed(figure: str, value: float, rounding: str) -> bool:
    """Whether a value, written with as many decimals as the figure has, gives its digits."""
    expected = Decimal(figure)
    return Decimal(value).quantize(expected, rounding) == expected

"""How flashing tells what it does."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""What is being done (`writing model.bfe`), how far it is, and how far it will be, in bytes"""

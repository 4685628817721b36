"""The version of the C runtime that an export carries."""

from __future__ import annotations

import re
from pathlib import Path

from bfedge.errors import BfedgeError


def runtime_version(header: Path) -> str:
    """For example "0.1.0", from the runtime's bfedge.h. Raises BfedgeError if the header has none."""
    text = header.read_text()
    parts = [re.search(rf"#define BFE_VERSION_{part} (\d+)", text) for part in ("MAJOR", "MINOR", "PATCH")]
    if not all(parts):
        raise BfedgeError(f"`{header}` does not say its version")
    return ".".join(part[1] for part in parts if part)

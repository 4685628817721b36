"""The runtime's sources for tests whose subject is not the speed of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from bfedge.device.compiler import runtime_sources


def copy_without_x86_kernels(folder: Path) -> Path:
    """As on a processor that has plain C only: on a PC the others take most of the time to compile."""
    copy = Path(shutil.copytree(runtime_sources(), folder / "runtime"))
    switch = "#define BFE_HAS_X86_KERNELS 1"
    headers = [header for header in (copy / "src").rglob("*.h") if switch in header.read_text()]
    assert len(headers) == 1
    headers[0].write_text(headers[0].read_text().replace(switch, ""))
    return copy

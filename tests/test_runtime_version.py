"""The version that exports state is that of the C runtime in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bfedge.device.compiler import runtime_sources
from bfedge.errors import BfedgeError
from bfedge.export.runtime_version import runtime_version


def test_it_is_read_from_the_header(tmp_path: Path) -> None:
    assert runtime_version(runtime_sources() / "include" / "bfedge.h").count(".") == 2
    header = tmp_path / "bfedge.h"
    header.write_text("#define BFE_VERSION_PATCH 3\n#define BFE_VERSION_MAJOR 1\n#define BFE_VERSION_MINOR 2\n")
    assert runtime_version(header) == "1.2.3"


def test_a_header_without_a_version_is_an_error(tmp_path: Path) -> None:
    header = tmp_path / "bfedge.h"
    header.write_text("#define BFE_VERSION_MAJOR 1\n#define BFE_VERSION_MINOR 2\n")
    with pytest.raises(BfedgeError, match=f"`{header}` does not say its version"):
        runtime_version(header)

"""FORMAT.md's dump is what the code writes."""

from __future__ import annotations

import re
from pathlib import Path

from bfedge.packed.layout import Kind
from bfedge.packed.writer import pack
from tests.tiny_model import tiny_model

FORMAT = (Path(__file__).parent.parent / "FORMAT.md").read_text()


def test_every_byte_of_the_dump() -> None:
    data = pack(tiny_model())
    dump = re.search(r"```hex\n(.*?)```", FORMAT, re.S)
    assert dump
    shown = 0
    for line in dump[1].splitlines():
        match = re.match(r"([0-9a-f]{8})  ((?:[0-9a-f]{2} ?)+)", line)
        if match:
            offset, values = int(match[1], 16), bytes.fromhex(match[2])
            assert data[offset : offset + len(values)] == values, line
            shown += len(values)
    assert shown > 200


def test_the_section_table_lists_every_kind() -> None:
    for kind in Kind:
        assert re.search(rf"^\| {kind.value} \| {kind.name} \|", FORMAT, re.M), kind

"""`bfedge inspect`: sections, sizes, configuration and hash of a packed file."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import click

from bfedge.cli.models import ModelArgument
from bfedge.cli.output import count, json_option, out, print_json, table


@click.command("inspect")
@click.argument("file", type=ModelArgument())
@json_option
def command(file: Path, as_json: bool) -> None:
    """Show what a packed file (.bfe), or a model that comes with bfedge, contains: configuration, sections, sizes
    and hash.

    The whole file is checked first.
    """
    from bfedge.packed.validate import read_checked

    data, checked = read_checked(file)
    digest = hashlib.sha256(data).hexdigest()
    shape = {**dataclasses.asdict(checked.shape), "tokens": checked.shape.tokens}
    features = [f.name for f in type(checked.features) if f in checked.features and f.name]
    if as_json:
        sections = [
            {
                "kind": s.kind,
                "name": s.name,
                "block": None if s.block == 0xFFFF else s.block,
                "encoding": encoding_name(s.encoding),
                "rows": s.rows,
                "columns": s.columns,
                "offset": s.offset,
                "bytes": s.bytes,
            }
            for s in checked.sections
        ]
        print_json(
            "inspect",
            {
                "file": str(file),
                "bytes": len(data),
                "sha256": digest,
                "crc32": f"{checked.crc:08x}",
                "format": list(checked.version),
                "features": features,
                "config": shape,
                "sections": sections,
            },
        )
        return
    out.print(f"{file}  {count(len(data))} bytes, format {checked.version[0]}.{checked.version[1]}")
    out.print(f"sha256  {digest}\ncrc32   {checked.crc:08x}, as the header says\nneeds   {', '.join(features)}\n")
    config = table("configuration", "")
    for name, value in shape.items():
        config.add_row(name, str(value))
    out.print(config)
    sections_table = table("\nsection", "\nencoding", "\nshape", "\noffset", "\nbytes")
    for s in checked.sections:
        dimensions = f"{s.rows} x {s.columns}" if s.rows > 1 else str(s.columns)
        sections_table.add_row(s.name, encoding_name(s.encoding), dimensions, count(s.offset), count(s.bytes))
    out.print(sections_table)


def encoding_name(encoding: int) -> str:
    from bfedge.packed.layout import Encoding

    return Encoding(encoding).name if encoding in Encoding.__members__.values() else str(encoding)

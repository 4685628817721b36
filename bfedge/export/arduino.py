"""An Arduino library, which is a PlatformIO library too: the C runtime, the device program and one packed model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bfedge.device.host import IN_PLACE, HostModel
from bfedge.device.profile import Profile
from bfedge.export.runtime_version import runtime_version

NAME = "bfedge"
SENTENCE = "Runs packed ButterflyViT image classifiers, with the same bits on every board."
PARAGRAPH = "It holds one model, the runtime in portable C, and examples that check the board's bits."
URL = "https://bfedge.invalid"  # the format demands one; the project has no page
BYTES_A_LINE = 16


def write_library(folder: Path, runtime: Path, packed: bytes, profile: Profile, tile: int = 0) -> None:
    """Writes the library to `folder`, which must not exist: an Arduino library's folder bears its name, `bfedge`.

    `runtime` is runtime_c or a copy of it, `packed` a valid .bfe file, `profile` the board that `hello` will name, and
    `tile` the number of tokens that go through the experts together (0: all), for which memory is set aside.

    Arduino's builder compiles every source below src/ with src/ as the only include folder, and takes no flags from a
    library. So the files of runtime_c lie side by side there, as their includes expect.
    """
    source = folder / "src"
    shutil.copytree(runtime / "ports" / "arduino", folder)
    shutil.copytree(runtime / "src", source, dirs_exist_ok=True)
    shutil.copy(runtime / "include" / "bfedge.h", source)
    for file in sorted((runtime / "app").glob("*.[ch]")):
        shutil.copy(file, source)
    name_the_board(source / "bfedge_device.c", profile.name)

    model = HostModel(packed, kernels=IN_PLACE)
    (source / "bfedge_model.h").write_text(model_header(model, packed, tile))
    (source / "bfedge_model.c").write_text(model_source(packed))
    version = runtime_version(source / "bfedge.h")
    (folder / "library.properties").write_text(library_properties(version))
    (folder / "library.json").write_text(json.dumps(library_json(folder, version), indent=2) + "\n")


def name_the_board(program: Path, board: str) -> None:
    """Elsewhere the builder defines these on the command line."""
    defines = f'#define BFD_BOARD "{board}"\n#define BFD_FLAGS "chosen by the Arduino core"\n\n'
    program.write_text(defines + program.read_text())


def library_properties(version: str) -> str:
    """Arduino's library specification, format 1.5, revision 2.2."""
    fields = {
        "name": NAME,
        "version": version,
        "author": "The bfedge authors",
        "maintainer": "The bfedge authors",
        "sentence": SENTENCE,
        "paragraph": PARAGRAPH,
        "category": "Data Processing",
        "url": URL,
        "architectures": "*",
        "includes": "bfedge.h,bfedge_model.h",
    }
    return "".join(f"{name}={value}\n" for name, value in fields.items())


def library_json(folder: Path, version: str) -> dict[str, object]:
    """PlatformIO's manifest. It takes flags; the sources don't rely on them."""
    sketches = sorted((folder / "examples").glob("*/*.ino"))
    return {
        "name": NAME,
        "version": version,
        "description": f"{SENTENCE} {PARAGRAPH}",
        "keywords": ["machine learning", "vision", "inference", "transformer"],
        "frameworks": ["arduino"],
        "platforms": "*",
        "headers": ["bfedge.h", "bfedge_model.h"],
        "build": {"srcDir": "src", "includeDir": "src", "flags": ["-ffp-contract=off"]},
        "examples": [
            {"name": sketch.stem, "base": f"examples/{sketch.stem}", "files": [sketch.name]} for sketch in sketches
        ],
    }


def model_header(model: HostModel, packed: bytes, tile: int) -> str:
    return f"""/* The model of this library. Written by bfedge. */
#ifndef BFEDGE_MODEL_H
#define BFEDGE_MODEL_H

#include <stdint.h>

#define BFEDGE_MODEL_BYTES {len(packed)}
#define BFEDGE_CLASSES {model.model.config.classes}

/* For bfe_options: memory is set aside for this many tokens at once, 0 for all of them. */
#define BFEDGE_TILE_TOKENS {tile}

/* What bfe_run needs, and what the device program does, which keeps image and logits there too. */
#define BFEDGE_WORKSPACE_BYTES {model.workspace_bytes(tile)}
#define BFEDGE_ARENA_BYTES {model.arena_bytes(tile)}

#ifdef __cplusplus
extern "C" {{
#endif

/* The packed file, aligned to BFE_ALIGNMENT. */
extern const uint8_t bfedge_model[BFEDGE_MODEL_BYTES];

#ifdef __cplusplus
}}
#endif

#endif
"""


def model_source(packed: bytes) -> str:
    """The file as a C array: the same text for the same bytes."""
    rows = (packed[at : at + BYTES_A_LINE] for at in range(0, len(packed), BYTES_A_LINE))
    lines = "\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in row) + "," for row in rows)
    return f"""/* Written by bfedge. */
#include "bfedge_model.h"
#include "bfedge.h"

__attribute__((aligned(BFE_ALIGNMENT))) const uint8_t bfedge_model[BFEDGE_MODEL_BYTES] = {{
{lines}
}};
"""

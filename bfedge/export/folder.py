"""Export: a folder with everything to run a model on a target, and to check it."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import bfedge
from bfedge.device.compiler import runtime_sources
from bfedge.device.exported import MANIFEST, MANIFEST_SCHEMA, sha256
from bfedge.device.fit import fit, needs_of
from bfedge.device.host import HostModel, kernels_on
from bfedge.device.profile import Profile
from bfedge.export.ports import built_later, write_port
from bfedge.files import folder_written_whole
from bfedge.lowered.model import LoweredViT
from bfedge.packed.golden import golden_vectors
from bfedge.packed.layout import FORMAT_MAJOR, FORMAT_MINOR
from bfedge.packed.outline import outline_of
from bfedge.packed.writer import pack


@dataclass(frozen=True)
class Source:
    """Where the model came from, for the manifest."""

    file: Path
    golden_from: str
    """In words: what the golden inputs are"""


def export_folder(
    model: LoweredViT,
    golden_images: NDArray[np.uint8],
    source: Source,
    out: Path,
    profile: Profile,
    tile: int | None = None,
    cc: str | None = None,
) -> dict[str, Any]:
    """Writes the folder `out` whole or not at all and returns its manifest.

    On every target model.bfe (with golden vectors), golden.npz, runtime/ (the C sources) and manifest.json; on
    Linux also model.onnx and the built device program; else what the port's own export writes: firmware, projects,
    libraries. `tile` is the number of tokens that go through the experts together, None the largest that fits.

    Raises BfedgeError before anything is written if the model does not fit.
    """
    golden = golden_vectors(model, golden_images)
    packed = pack(model, golden)
    fitted = fit(profile, needs_of(outline_of(packed)), tile)
    runtime = HostModel(packed, kernels=kernels_on(profile))
    with folder_written_whole(out, files_of_earlier_export(out)) as folder:
        (folder / "model.bfe").write_bytes(packed)
        np.savez(folder / "golden.npz", inputs=golden.inputs, outputs=golden.outputs)
        ignore = shutil.ignore_patterns("tests", "build*", "__pycache__")
        shutil.copytree(runtime_sources(), folder / "runtime", ignore=ignore)
        built = write_port(folder, profile, model, packed, fitted, cc)
        manifest = {
            "schema": MANIFEST_SCHEMA,
            "target": profile.name,
            "profile": msgspec.to_builtins(profile),
            "tile": fitted.tile,
            "arena_bytes": runtime.arena_bytes(fitted.tile),
            "prepared_bytes": runtime.prepared_bytes,
            "source": {"file": source.file.name, "sha256": sha256(source.file)},
            "golden": {"cases": len(golden.inputs), "inputs": source.golden_from},
            "format": [FORMAT_MAJOR, FORMAT_MINOR],
            "versions": {
                "bfedge": bfedge.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                **built.pop("versions", {}),
            },
            **built,
            "files": {
                str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256(file)}
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            },
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def files_of_earlier_export(folder: Path) -> set[str]:
    """The files that the folder's manifest lists, and the manifest; none if it is not one of ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        later = {str(file.relative_to(folder)) for file in built_later(folder)}
        return {*manifest["files"], MANIFEST, *later} if isinstance(manifest["schema"], int) else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()

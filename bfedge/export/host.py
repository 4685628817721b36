"""Export for this machine: a folder with everything to run the model and to check it."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bfedge
from bfedge.device.compiler import compile_runtime, find_compiler, runtime_sources
from bfedge.errors import BfedgeError
from bfedge.files import folder_written_whole
from bfedge.lowered.model import LoweredViT
from bfedge.packed.golden import golden_vectors
from bfedge.packed.layout import FORMAT_MAJOR, FORMAT_MINOR
from bfedge.packed.writer import pack

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 1
PROGRAM = "bfedge-host"


@dataclass(frozen=True)
class Source:
    """Where the model came from, for the manifest."""

    checkpoint: Path
    golden_from: str
    """In words: what the golden inputs are"""


def export_host(
    model: LoweredViT, golden_images: NDArray[np.uint8], source: Source, out: Path, cc: str | None = None
) -> dict[str, Any]:
    """Writes the folder `out` whole or not at all and returns its manifest.

    model.bfe (with golden vectors), model.onnx, golden.npz, runtime/ (the C sources), bfedge-host (the built
    program) and manifest.json.
    """
    try:
        import onnx
        import onnxruntime

        from bfedge.export.onnx_graph import to_onnx
    except ImportError as problem:
        raise BfedgeError(
            f"export needs the package `{problem.name}`", '`pip install "bfedge[onnx]"` installs it'
        ) from None

    compiler = find_compiler(cc)
    golden = golden_vectors(model, golden_images)
    packed = pack(model, golden)
    graph = to_onnx(model).SerializeToString(deterministic=True)
    with folder_written_whole(out, files_of_earlier_export(out)) as folder:
        (folder / "model.bfe").write_bytes(packed)
        (folder / "model.onnx").write_bytes(graph)
        np.savez(folder / "golden.npz", inputs=golden.inputs, outputs=golden.outputs)
        ignore = shutil.ignore_patterns("tests", "build*", "__pycache__")
        shutil.copytree(runtime_sources(), folder / "runtime", ignore=ignore)
        command = compile_runtime(compiler, folder / "runtime", folder / PROGRAM)
        manifest = {
            "schema": MANIFEST_SCHEMA,
            "target": "host",
            "machine": f"{platform.system()} {platform.machine()}",
            "checkpoint": {"file": source.checkpoint.name, "sha256": sha256(source.checkpoint)},
            "golden": {"cases": len(golden.inputs), "inputs": source.golden_from},
            "format": [FORMAT_MAJOR, FORMAT_MINOR],
            "versions": {
                "bfedge": bfedge.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "onnx": onnx.__version__,
                "onnxruntime": onnxruntime.__version__,
            },
            "compiler": {"version": compiler.version, "flags": [f for f in command if f.startswith("-") and f != "-o"]},
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
        return {*manifest["files"], MANIFEST} if manifest["schema"] == MANIFEST_SCHEMA else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

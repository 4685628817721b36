"""What an export holds besides the model and the C sources: it depends on the port that runs on the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bfedge.device.compiler import compile_program, find_target_compiler
from bfedge.device.fit import Fit
from bfedge.device.profile import Profile
from bfedge.errors import BfedgeError
from bfedge.lowered.model import LoweredViT

PROGRAM = "bfedge-device"
FIRMWARE = "firmware"
PROJECT = "project"


def write_port(
    folder: Path, profile: Profile, model: LoweredViT, packed: bytes, fitted: Fit, cc: str | None, build: bool
) -> dict[str, Any]:
    """Writes the files of the profile's port into an export that has model.bfe and runtime/ already. Returns what
    the manifest says of it.
    """
    if profile.port == "posix":
        return write_posix(folder, profile, model, cc)
    if profile.port == "nrf52840":
        return write_nrf52840(folder, profile, packed, fitted, cc)
    return write_esp_idf(folder, profile, packed, fitted, build)


def write_posix(folder: Path, profile: Profile, model: LoweredViT, cc: str | None) -> dict[str, Any]:
    """The device program, and the ONNX graph for other runtimes."""
    try:
        import onnx
        import onnxruntime

        from bfedge.export.onnx_graph import to_onnx
    except ImportError as problem:
        raise BfedgeError(
            f"export needs the package `{problem.name}`", '`pip install "bfedge[onnx]"` installs it'
        ) from None
    compiler, flags = find_target_compiler(profile, cc)
    (folder / "model.onnx").write_bytes(to_onnx(model).SerializeToString(deterministic=True))
    flags = compile_program(compiler, folder / "runtime", folder / PROGRAM, profile.name, flags)
    return {
        "compiler": {"version": compiler.version, "flags": list(flags)},
        "versions": {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    }

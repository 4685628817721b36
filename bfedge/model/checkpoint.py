"""Checkpoints: a plain configuration and a state dict, as .pt or .safetensors.

A .pt file is opened with `weights_only=True` and nothing else: a pickle that would run code is refused. Shapes,
types and storage sizes are compared with what the configuration demands before a value is used.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bfedge.config import config_from_dict, config_to_dict
from bfedge.errors import BfedgeError
from bfedge.files import is_file, write_atomically
from bfedge.model.vit import ViT

FORMAT = "bfedge-checkpoint"
FORMAT_VERSION = 1
RETRAIN = "`bfedge train` writes checkpoints that this reads"


@dataclass
class Checkpoint:
    model: ViT
    labels: tuple[str, ...] = ()
    data: str = ""
    """The data set it was trained on, as given to `bfedge train`"""
    training: dict[str, Any] = field(default_factory=dict)
    """State of an unfinished training (epoch, optimiser, random numbers); only in .pt files"""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes to a temporary file beside `path`, then renames: readers see the old file or the new one."""
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "config": config_to_dict(checkpoint.model.config),
        "labels": list(checkpoint.labels),
        "data": checkpoint.data,
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.model.state_dict().items()}
    try:
        if path.suffix == ".safetensors":
            metadata = {"bfedge": json.dumps(header)}
            write_atomically(path, lambda temporary: save_file(state, temporary, metadata))
            return
        if path.suffix == ".pt":
            contents = {**header, "state_dict": state, "training": checkpoint.training}
            write_atomically(path, lambda temporary: torch.save(contents, temporary))
            return
    except (RuntimeError, SafetensorError) as problem:  # what the two raise when a write fails
        raise BfedgeError(f"cannot write `{path}`: {str(problem).splitlines()[0]}", "is the disk full?") from None
    raise BfedgeError(f"`{path}`: a checkpoint ends in .pt or .safetensors")


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises BfedgeError for anything but a whole checkpoint whose tensors fit its configuration and are finite."""
    if not is_file(path):
        raise BfedgeError(f"there is no checkpoint `{path}`", "`bfedge train --out model.pt` writes one")
    header, state = read_safetensors(path) if path.suffix == ".safetensors" else read_pt(path)
    if header.get("format") != FORMAT or not isinstance(header.get("config"), dict):
        raise BfedgeError(f"`{path}` is not a bfedge checkpoint", RETRAIN)
    version = header.get("version")
    if type(version) is not int or version != FORMAT_VERSION:
        shown = version if version is None or isinstance(version, (int, str)) else f"of type {type(version).__name__}"
        raise BfedgeError(f"`{path}` has checkpoint version {shown}; this bfedge reads {FORMAT_VERSION}")
    try:
        config = config_from_dict(header["config"])
    except BfedgeError as problem:
        raise BfedgeError(f"`{path}`: {problem.message}", problem.hint) from None
    with torch.device("meta"):
        expected = ViT(config).state_dict()
    check_state(path, state, expected)
    model = ViT(config)
    model.load_state_dict(state)
    labels = header.get("labels", [])
    if not isinstance(labels, list) or len(labels) not in (0, config.classes) or not all(map(usable_label, labels)):
        raise BfedgeError(f"`{path}`: labels do not fit the {config.classes} classes")
    training = header.get("training", {})
    return Checkpoint(model, tuple(labels), str(header.get("data", "")), training if isinstance(training, dict) else {})


def usable_label(label: object) -> bool:
    """The packed file joins labels as UTF-8 lines."""
    return isinstance(label, str) and "\n" not in label and not any("\ud800" <= c <= "\udfff" for c in label)


def read_pt(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's version, which says nothing to a user
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # torch raises many kinds
        if re.search(r"GLOBAL|Unsupported class|Trying to|Can only", str(problem)):
            raise BfedgeError(
                f"`{path}` holds more than plain tensors and values, and may run code when it is opened; refused",
                "convert it to .safetensors where it is trusted",
            ) from None
        raise BfedgeError(f"`{path}` is damaged, truncated or not a checkpoint", RETRAIN) from None
    if not isinstance(contents, dict) or not isinstance(contents.get("state_dict"), dict):
        raise BfedgeError(f"`{path}` is not a bfedge checkpoint", RETRAIN)
    return contents, contents["state_dict"]


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("bfedge", "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError, OSError, RecursionError) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise BfedgeError(f"`{path}` is damaged, truncated or not a checkpoint ({reason})", RETRAIN) from None
    return (header if isinstance(header, dict) else {}), state


def check_state(path: Path, state: dict[str, Any], expected: dict[str, Tensor]) -> None:
    """Names, shapes and types, then the bytes behind each tensor (a stride can claim more than the file holds),
    then values.
    """
    missing, extra = sorted(expected.keys() - state.keys()), sorted(map(str, state.keys() - expected.keys()))
    if missing or extra:
        parts = [f"lacks {preview(missing)}"] * bool(missing) + [f"has unknown {preview(extra)}"] * bool(extra)
        raise BfedgeError(f"`{path}` does not fit its own configuration: it {' and '.join(parts)}", RETRAIN)
    for name, want in expected.items():
        tensor = state[name]
        if (
            not isinstance(tensor, Tensor)
            or (tensor.dtype, tensor.layout) != (want.dtype, torch.strided)
            or tensor.device.type != "cpu"
        ):
            raise BfedgeError(f"`{path}`: `{name}` is not a {str(want.dtype)[6:]} tensor")
        if tensor.shape != want.shape:
            raise BfedgeError(
                f"`{path}` does not fit its own configuration: `{name}` has shape {list(tensor.shape)}, "
                f"the configuration demands {list(want.shape)}"
            )
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise BfedgeError(f"`{path}`: `{name}` claims more values than the file holds")
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise BfedgeError(
                f"`{path}`: `{name}` has {bad} values that are not finite", "training diverged; train again"
            )


def preview(names: list[str]) -> str:
    return ", ".join(f"`{n}`" for n in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

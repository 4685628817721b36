"""Runs `bfedge`, and reads what it said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SMALL = dict(image_height=4, image_width=4, channels=1, patch_size=2, d_model=12, d_ff=20, heads=2, layers=1)
SMALL |= dict(classes=3, experts=4, top_k=2, rotation_layers=2, pooling="class", projection_weights="int8")
TINY_TRAINING = ["--epochs", "1", "--set", "model.d_model=8", "--set", "model.d_ff=8", "--set", "model.layers=1"]
TINY_TRAINING += ["--set", "model.heads=1", "--set", "model.experts=2", "--set", "model.patch_size=4"]


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


def program(*arguments: object, python: tuple[str, ...] = (), **environment: str) -> Result:
    """`bfedge ARGUMENTS` in a process of its own."""
    command = [sys.executable, *python, "-c", "from bfedge.cli.main import main; main()", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    return Result(result.returncode, result.stdout, result.stderr)


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def complaint(result: Result, message: str, hint: bool | None = None) -> None:
    """Exit status 1, one `error:` line and at most one `hint:` line on stderr, nothing on stdout."""
    assert result.status == 1, result
    assert result.out == ""
    lines = result.err.splitlines()
    assert lines, result
    assert lines[0].startswith("error: "), result.err
    assert re.search(message, lines[0]), result.err
    assert all(line.startswith("hint: ") for line in lines[1:]), result.err
    assert len(lines) <= 2
    if hint is not None:
        assert (len(lines) == 2) == hint, result.err


def parsed(result: Result, verb: str) -> dict[str, Any]:
    assert result.status in (0, 1), result.err
    value = json.loads(result.out)
    assert (value["schema"], value["verb"]) == (1, verb)
    return value


def script(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    path.chmod(0o755)
    return path

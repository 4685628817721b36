"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bfedge.errors import BfedgeError


def write_atomically(path: Path, write: Callable[[str], object]) -> None:
    """Lets `write` fill a temporary file in the same folder and renames it to `path`; on failure nothing is
    left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as problem:
        raise BfedgeError(f"cannot write `{path}`: {problem.strerror}") from None
    try:
        write(temporary)
        os.chmod(temporary, 0o666 & ~current_umask())
        os.replace(temporary, path)
    except OSError as problem:
        raise BfedgeError(f"cannot write `{path}`: {problem.strerror or problem}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path, marker: str) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` at the end; on failure nothing changes.

    An existing `path` is replaced only if it is empty or holds `marker`, that is, if an earlier run wrote it.
    """
    if path.exists() and not path.is_dir():
        raise BfedgeError(f"`{path}` exists and is not a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise BfedgeError(f"`{path}` holds files that bfedge did not write", "give another folder, or empty this one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as problem:
        raise BfedgeError(f"cannot write `{path}`: {problem.strerror}") from None
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~current_umask())
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as problem:
        raise BfedgeError(f"cannot write `{path}`: {problem.strerror or problem}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

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
    left behind. A link stays one, and what is no file (a device, a pipe) is written to.
    """
    try:
        target = Path(os.path.realpath(path))
        is_stream = target.exists() and not (target.is_file() or target.is_dir())
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=None if is_stream else target.parent)
        os.close(handle)
    except (OSError, ValueError) as problem:
        raise BfedgeError(f"cannot write `{path}`: {getattr(problem, 'strerror', problem)}") from None
    try:
        write(temporary)
        if is_stream:
            with open(temporary, "rb") as source, open(target, "wb") as stream:
                shutil.copyfileobj(source, stream)
            return
        os.chmod(temporary, 0o666 & ~current_umask())
        os.replace(temporary, target)
    except OSError as problem:
        raise BfedgeError(f"cannot write `{path}`: {problem.strerror or problem}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path, written: set[str]) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` at the end; on failure nothing changes.

    An existing `path` is replaced only if every file in it is one that an earlier run wrote: `written` names them.
    """
    shown, path = path, path.absolute().resolve()
    if path == Path.cwd():
        raise BfedgeError(f"`{shown}` is the current folder and cannot be replaced", "give the name of a folder in it")
    try:
        if path.exists() and not path.is_dir():
            raise BfedgeError(f"`{shown}` exists and is not a folder")
        files = (f for f in path.rglob("*") if not f.is_dir() or f.is_symlink())
        extra = next((f for f in files if str(f.relative_to(path)) not in written), None)
    except OSError as problem:
        raise BfedgeError(f"cannot write `{shown}`: {problem.strerror}") from None
    if extra:
        raise BfedgeError(
            f"`{shown}` holds files that bfedge did not write, `{extra.relative_to(path)}` for one",
            "give another folder, or empty this one",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as problem:
        raise BfedgeError(f"cannot write `{path}`: {problem.strerror}") from None
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~current_umask())
        replace_folder(temporary, path)
    except OSError as problem:
        raise BfedgeError(f"cannot write `{path}`: {problem.strerror or problem}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Renames `new` to `path`; what was there is kept until that has worked."""
    if not path.exists():
        os.replace(new, path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)) / "old"
    os.replace(path, aside)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(aside, path)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)


def cache_folder() -> Path:
    """Where bfedge keeps what it can make again: in the user's cache, or where none can be written in a temporary
    folder of the user's.
    """
    usual = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bfedge")
    if is_writable(usual):
        return usual
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir(), f"bfedge-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != user:  # somebody else's: nothing in it can be trusted
        return Path(tempfile.mkdtemp(prefix="bfedge-"))
    return folder


def is_writable(folder: Path) -> bool:
    """Whether files can be written in a folder, which is made if it is not there."""
    if not folder.is_absolute():
        return False  # there is no home folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def check_place(path: Path) -> None:
    """Raises BfedgeError if no file can be written at `path`, before hours are spent on what belongs there. Makes
    nothing.
    """
    folder = path.parent
    try:
        while not folder.exists():
            folder = folder.parent
        if path.is_dir():
            raise BfedgeError(f"cannot write `{path}`: it is a folder")
    except (OSError, ValueError) as problem:
        raise BfedgeError(f"cannot write `{path}`: {getattr(problem, 'strerror', None) or problem}") from None
    if not folder.is_dir():
        raise BfedgeError(f"cannot write `{path}`: `{folder}` is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BfedgeError(f"cannot write `{path}`: nothing may be written into `{folder}`")


def is_file(path: Path) -> bool:
    """Like Path.is_file, and False for a name that the system cannot even look up (too long, say)."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

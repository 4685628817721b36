"""Builds of the C runtime that several tests share, and the check of what verbs print as JSON in a test's process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Generator, Iterator
from importlib import util
from pathlib import Path

import pytest

from bfedge.device.compiler import (
    Compiler,
    TargetCompiler,
    compile_library,
    compile_program,
    find_compiler,
    runtime_sources,
)
from tests.schemas import checked_json


@pytest.fixture(scope="session", autouse=True)
def checked_output() -> Iterator[None]:
    """Verbs that print JSON in this process have it checked against their schemas."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bfedge.cli.output.json", checked_json)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Matrices of tiny models gain nothing from a second thread of torch, and lose much where the cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """A test fails if it, or a fixture before it, printed what breaks a schema."""
    try:
        result = yield
    finally:
        found = checked_json.take_violations()
    if found:
        pytest.fail("\n".join(found), pytrace=False)
    return result


def compilers() -> list[Compiler]:
    """gcc and clang, or zig's clang where there is no other."""
    found = [find_compiler(name) for name in ("gcc", "clang") if shutil.which(name)]
    if not shutil.which("clang") and util.find_spec("ziglang"):
        found.append(find_compiler(f"{sys.executable} -m ziglang cc"))
    return found


@pytest.fixture(scope="session")
def runtime_builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The runtime as shared libraries, by compiler and optimisation."""
    folder = tmp_path_factory.mktemp("runtime")
    builds = {}
    for number, compiler in enumerate(compilers()):
        for level in ("-O0", "-O3"):
            library = folder / f"libbfedge-{number}{level}.so"
            compile_library(compiler, runtime_sources(), library, (level,))
            builds[f"{compiler.version} {level}"] = library
    return builds


@pytest.fixture(scope="session")
def sanitized_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The device program under the address and undefined-behaviour sanitizers, which end it at the first finding."""
    program = tmp_path_factory.mktemp("sanitized") / "bfedge-device"
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    compile_program(TargetCompiler(find_compiler("gcc")), runtime_sources(), program, "host", flags)
    return program

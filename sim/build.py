"""Builds the simulator: Amaranth to Verilog to a native library, cached by content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from golden.config import AccelConfig
from golden.registers import COUNTERS
from sim.cache import cache_dir, lock, sources_digest, write_atomically
from sim.toolchain import package_version, require_headers, verilator_env, verilator_root

HARNESS = Path(__file__).with_name("harness.cpp")
VERILATOR_FLAGS = [
    "--cc",
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--noassert",
    "-Wno-fatal",
    "-Wno-WIDTH",
    "--output-split",
    "20000",
]
CXX_FLAGS = ["-O3", "-march=native", "-fPIC", "-fno-plt"]

# What the harness looks at inside, for `RtlMachine.profile`: the instruction that is under way, and
# the counters.
INSIDE = """\
`verilator_config
public_flat_rd -module "rf8.sequencer" -var "pc"
public_flat_rd -module "rf8.control" -var "counter_*"
"""

Progress = Callable[[str], None]


class BuildFailed(RuntimeError):
    """A tool failed; the message has its first error line and the path of its log."""


def verilog_text(config: AccelConfig, progress: Progress = lambda _: None) -> str:
    """Verilog of the accelerator, from the cache where the sources have not changed."""
    digest = hashlib.sha256(sources_digest() + repr(config).encode())
    path = cache_dir() / "verilog" / f"{config.name}-{digest.hexdigest()[:20]}.v"
    if not path.exists():
        progress(f"generating Verilog of config {config.name}")
        from hw.top import Accelerator
        from hw.verilog import convert

        write_atomically(path, convert(Accelerator(config), name="rf8"))
    return path.read_text()


def build_library(
    config: AccelConfig, *, trace: bool = False, progress: Progress = lambda _: None
) -> Path:
    """The shared library of the simulator of ``config``.

    Raises
    ------
    ToolMissing
        Where a tool is not installed.
    BuildFailed
        Where one fails.
    """
    env = verilator_env()
    text = verilog_text(config, progress)
    flags = VERILATOR_FLAGS + (["--trace-fst"] if trace else [])
    digest = hashlib.sha256()
    for part in (text, INSIDE, HARNESS.read_text(), repr(flags), repr(CXX_FLAGS)):
        digest.update(part.encode())
    digest.update(package_version("verilator").encode())
    digest.update(subprocess.check_output(["g++", "--version"]) + _processor().encode())
    library = cache_dir() / "sim" / f"{config.name}-{digest.hexdigest()[:20]}.so"
    with lock(library.with_suffix(".lock")):
        if not library.exists():
            progress(f"building the simulator of config {config.name} (about a minute, kept)")
            _build(text, flags, library, trace, env)
    return library


def _build(text: str, flags: list[str], library: Path, trace: bool, env: dict[str, str]) -> None:
    if trace:
        require_headers({"zlib.h": "zlib1g-dev", "lz4.h": "liblz4-dev"})
    root = verilator_root()
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=library.parent))
    log = library.with_suffix(".log")
    try:
        (folder / "rf8.v").write_text(text)
        (folder / "inside.vlt").write_text(INSIDE)
        counters = " ".join(f"X({name})" for name in COUNTERS)
        (folder / "obj").mkdir()
        (folder / "obj" / "counters.h").write_text(f"#define RF8_COUNTERS(X) {counters}\n")
        verilate = ["verilator", *flags, "--prefix", "Vrf8", "--top-module", "rf8"]
        verilate += [
            "inside.vlt",
            "rf8.v",
            "--Mdir",
            "obj",
            "--build",
            "-j",
            str(os.cpu_count() or 1),
        ]
        # The package's make rules name a precompiled header in a way that g++ does not take, and
        # call a `python` that need not exist.
        verilate += ["-MAKEFLAGS", f"CFG_CXXFLAGS_PCH_I=-include PYTHON3={sys.executable}"]
        verilate += ["-CFLAGS", " ".join(CXX_FLAGS)]
        _tool(verilate, folder, env, log)
        include = [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}", "-Iobj"]
        link = ["g++", "-shared", "-std=c++17", *CXX_FLAGS, f"-DVM_TRACE={int(trace)}"]
        link += ["-DVM_TRACE_FST=1"] if trace else []
        link += [*include, str(HARNESS), "-Wl,--whole-archive", "obj/libVrf8.a"]
        link += ["-Wl,--no-whole-archive", "obj/libverilated.a", "-lpthread"]
        link += ["-lz", "-llz4"] if trace else []
        _tool([*link, "-o", "rf8.so"], folder, env, log)
        os.replace(folder / "rf8.so", library)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tool(command: list[str], folder: Path, env: dict[str, str], log: Path) -> None:
    with log.open("w") as out:
        code = subprocess.run(command, cwd=folder, env=env, stdout=out, stderr=out).returncode
    if code:
        lines = log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if "rror" in line] or lines[-1:] or ["no output"]
        raise BuildFailed(f"{command[0]} failed: {errors[0].strip()} (log: {log})")


def _processor() -> str:
    """The processor's name: -march=native code must not travel to another one."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("flags"):
                return line
    return ""

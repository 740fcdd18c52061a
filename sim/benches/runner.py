"""Builds testbenches with Verilator and runs them with cocotb.

A build is kept under ``build/benches`` as long as its Verilog, the flags and Verilator stay the
same. Verilator's own run-time library takes longer to compile than most blocks, so it is compiled
once and linked to all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from sim.cache import lock, sources_digest, write_atomically
from sim.toolchain import is_installed, package_version, verilator_env

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
BUILD = ROOT / "build" / "benches"


def _bench_name(path: Path) -> str:
    """``matrix/lane`` for ``matrix/tb_lane.py``: the path of what it tests below ``hw``."""
    return str(path.relative_to(FOLDER).with_name(path.stem.removeprefix("tb_")))


BENCHES = tuple(sorted(map(_bench_name, FOLDER.rglob("tb_*.py"))))
"""Names of all benches."""

FLAGS = [
    "-Wno-fatal",
    "-Wno-WIDTH",
    "--noassert",
    # Benches see ports only; all the rest is left to the optimiser.
    "--no-public-flat-rw",
]
PORTS_VISIBLE = '`verilator_config\npublic_flat_rw -module "{top}" -var "*"\n'
MAKE_VARIABLES = {
    # The package's make rules name a precompiled header in a way that g++ does not take.
    "CFG_CXXFLAGS_PCH_I": "-include",
    "PYTHON3": sys.executable,
    "OPT_FAST": "-O1",
    "OPT_SLOW": "-O0",
}
NO_RUNTIME = {"VM_GLOBAL_FAST": "", "VM_GLOBAL_SLOW": ""}


@dataclass(frozen=True)
class Result:
    """How a bench went. ``failure`` is its failing assertion, or None; ``log`` and ``waveform`` are
    paths in the checkout."""

    name: str
    configurations: str
    checks: int
    cycles: int
    seconds: float
    build_seconds: float
    failure: str | None
    log: str
    waveform: str | None

    @property
    def passed(self) -> bool:
        return self.failure is None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def select(names: list[str]) -> list[str]:
    """The benches of ``names``: whole names, or their ends as far as they are unique.

    Raises
    ------
    ValueError
        For a name that is of no bench, or the end of several.
    """
    found = []
    for name in names:
        ends = [bench for bench in BENCHES if f"/{bench}".endswith(f"/{name}")]
        if name not in BENCHES and len(ends) != 1:
            what = "which of them" if ends else "no such bench; there are"
            raise ValueError(f"{name!r}: {what}: {', '.join(ends or BENCHES)}")
        found.append(name if name in BENCHES else ends[0])
    return list(dict.fromkeys(found))


def run_bench(name: str, seed: int = 1, waves: bool = False) -> Result:
    """Build and run one bench; failures of any kind are in the result.

    ``waves``: write a waveform of all that happens; needs a slower build of its own.
    """
    module = _module(name)
    bench = importlib.import_module(module)
    folder = BUILD / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log, report = folder / "run.log", folder / "checks.jsonl"
    started = built = time.monotonic()
    try:
        model = _build(_verilog(name, bench.parts), name.replace("/", "."), waves)
        built = time.monotonic()
        waveform = folder / f"waves.{_trace_format()}" if waves else None
        failure = _simulate(model, module, folder, log, report, seed, waveform)
    except Exception as error:  # whatever it is: the other benches are to run
        failure = "; ".join(f"{type(error).__name__}: {error}".splitlines()[:2])
    lines = report.read_text().splitlines() if report.exists() else []
    tests = [json.loads(line) for line in lines]
    return Result(
        name=name,
        configurations=bench.CONFIGURATIONS,
        checks=sum(test["checks"] for test in tests),
        cycles=sum(test["cycles"] for test in tests),
        seconds=round(time.monotonic() - built, 1),
        build_seconds=round(built - started, 1),
        failure=failure or (None if tests else "no test ran"),
        log=str(log.relative_to(ROOT)),
        waveform=next((str(path.relative_to(ROOT)) for path in folder.glob("waves.*")), None),
    )


def run_benches(
    names: list[str],
    seed: int,
    jobs: int,
    progress: Callable[[Result], None],
    waves: bool = False,
) -> list[Result]:
    """Run benches, ``jobs`` of them at a time; results in the order of ``names``."""
    if not waves:
        _runtime()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_bench, name, seed, waves) for name in names]
        results = []
        for future in futures:
            results.append(future.result())
            progress(results[-1])
    return results


def _module(name: str) -> str:
    """The Python module of a bench."""
    folder, _, leaf = name.rpartition("/")
    return ".".join(["sim.benches", *folder.split("/"), f"tb_{leaf}"]).replace("..", ".")


def bench_digest(name: str) -> str:
    """Of all that the Verilog of a bench follows from: hardware, its tools, and the bench's own
    sources, of which helpers beside the benches may be hardware, too."""
    own = [path for path in FOLDER.rglob("*.py") if not path.stem.startswith("tb_")]
    own.append(ROOT / (_module(name).replace(".", "/") + ".py"))
    return _digest(sources_digest().hex(), *(path.read_text() for path in sorted(own)))


def _verilog(name: str, parts: Callable[[], dict[str, Any]]) -> str:
    """The design of a bench; made again only after a change of what it follows from."""
    stem = name.replace("/", ".")
    path = BUILD / "verilog" / f"{stem}-{bench_digest(name)}.v"
    if not path.exists():
        from hw.verilog import convert
        from sim.benches.harness import Bundle

        text = convert(Bundle(parts()), name="top")
        for old in path.parent.glob(f"{stem}-*.v"):
            old.unlink(missing_ok=True)
        write_atomically(path, text)
    return path.read_text()


def _digest(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in (
        *texts,
        repr(FLAGS),
        repr(MAKE_VARIABLES),
        PORTS_VISIBLE,
        package_version("verilator"),
    ):
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def _trace_format() -> str:
    """FST, or else VCD, which is larger but needs no headers."""
    return "fst" if is_installed("zlib.h") and is_installed("lz4.h") else "vcd"


def _build(text: str, name: str, waves: bool) -> Path:
    """The folder of the compiled model of ``text``, whose top module is ``top``."""
    if waves:
        name, flags = f"{name}.waves", [f"--trace-{_trace_format()}"]
        variables = {}  # the run-time library has to be one with tracing
    else:
        flags, variables = ["-LDFLAGS", str(_runtime())], NO_RUNTIME
    target = BUILD / "models" / f"{name}-{_digest(text, *flags)}"
    with lock(target.with_suffix(".lock")):
        if not (target / "top").exists():
            for old in target.parent.glob(f"{name}-*/"):
                shutil.rmtree(old)
            _compile(text, target, flags, variables, waves)
    return target


def _runtime() -> Path:
    """Verilator's run-time library, compiled as Verilator's make rules compile it for a design."""
    folder = BUILD / "models" / f"runtime-{_digest()}"
    library = folder / "libverilated.a"
    with lock(folder.with_suffix(".lock")):
        if not library.exists():
            _compile("module top(input clk); endmodule\n", folder, [], {})
            objects = [path.name for path in folder.glob("verilated*.o")]
            subprocess.run(["ar", "rcs", library.name, *objects], cwd=folder, check=True)
    return library


def _compile(
    text: str, folder: Path, flags: list[str], variables: dict[str, str], waves: bool = False
) -> None:
    from cocotb_tools import runner as cocotb_runner

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "top.v").write_text(text)
    (folder / "ports.vlt").write_text(PORTS_VISIBLE.format(top="top"))
    variables = MAKE_VARIABLES | variables
    cocotb_runner.MAX_PARALLEL_BUILD_JOBS = 1  # it is benches that run side by side
    make = " ".join(f"{name}={value}" for name, value in variables.items())
    log = folder / "build.log"
    with _environment(verilator_env() | {"MAKEFLAGS": make}):
        runner = cocotb_runner.get_runner("verilator")
        try:
            runner.build(
                sources=[folder / "ports.vlt", folder / "top.v"],
                hdl_toplevel="top",
                build_dir=folder,
                build_args=FLAGS + flags,
                log_file=log,
                always=True,
                waves=waves,
            )
        except RuntimeError:
            lines = log.read_text(errors="replace").splitlines()
            errors = [line for line in lines if "rror" in line] or lines[-1:] or ["no output"]
            raise RuntimeError(f"build failed: {errors[0].strip()} (log: {log})") from None


def _simulate(
    model: Path,
    module: str,
    folder: Path,
    log: Path,
    report: Path,
    seed: int,
    waveform: Path | None,
) -> str | None:
    """Run the tests of ``module``; the first failure, or None."""
    from cocotb_tools.runner import get_runner

    results = folder / "results.xml"
    settings = {
        "RF8_BENCH_SEED": str(seed),
        "RF8_BENCH_REPORT": str(report),
        "COCOTB_LOG_LEVEL": "WARNING",
        "PYTHONWARNINGS": "ignore",  # cocotbext-axi uses names that cocotb 2 deprecates
        "NO_COLOR": "1",
    }
    with _environment({**os.environ, **settings}):
        runner = get_runner("verilator")
        try:
            runner.test(
                test_module=module,
                hdl_toplevel="top",
                hdl_toplevel_lang="verilog",
                build_dir=model,
                test_dir=folder,
                results_xml=str(results),
                log_file=log,
                seed=seed,
                test_args=["--trace", "--trace-file", str(waveform)] if waveform else [],
            )
        except RuntimeError as error:
            if not results.exists():
                return f"the simulation crashed: {error}"
    if not results.exists():
        return "the simulation ended without results"
    for case in ElementTree.parse(results).iter("testcase"):
        for kind in ("failure", "error"):
            found = case.find(kind)
            if found is not None:
                lines = (found.get("message") or found.text or kind).strip().splitlines()
                return lines[0] if lines else f"{case.get('name')}: {kind}"
    return None


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """cocotb's runner takes its environment from ours."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

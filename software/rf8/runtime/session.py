"""Sessions: run a compiled model on one machine, or on several that must agree."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from golden import isa
from golden.arith import Int64
from golden.config import INSTRUCTION_BYTES, RESULT_FRAC
from golden.interface import Machine, MachineFactory, RunResult
from golden.isa import ErrorCode
from golden.machine import Engine, GoldenMachine
from rf8.errors import DataError, MachineStopped, Mismatch, UsageError
from rf8.program.image import Entry, Program
from sim.stages import Report

if TYPE_CHECKING:
    from sim.rtl import MemoryModel

Backend = Literal["golden", "rtl", "both"]


@dataclass
class Stats:
    """What a session has done so far.

    ``counters``: `golden.registers.COUNTERS` of the first machine that counts cycles, summed over
    runs; empty without one. ``tokens``: positions computed; ``runs``: programs run.
    ``saturated``: values that left the range of 32 bits and saturated, likewise, of the first
    machine that counts them (golden and simulated ones do): 0 unless the model is out of range.
    ``compared``: bytes that programs write (logits, keys, values), compared between machines after
    each run; ``differences``: bytes that differed.
    """

    tokens: int = 0
    runs: int = 0
    compared: int = 0
    differences: int = 0
    saturated: int = 0
    seconds: float = 0.0
    counters: Counter[str] = field(default_factory=Counter)

    @property
    def cycles_per_token(self) -> float:
        """Clock cycles for one token."""
        return self.counters["cycles"] / max(self.tokens, 1)

    @property
    def bandwidth_use(self) -> float:
        """Weight beats read over clock cycles: 1.0 is the memory roofline of a decode step."""
        return self.counters["read_weights"] / max(self.counters["cycles"], 1)

    def as_dict(self) -> dict[str, object]:
        """JSON-ready values."""
        return {
            "tokens": self.tokens,
            "runs": self.runs,
            "seconds": round(self.seconds, 3),
            "cycles_per_token": round(self.cycles_per_token, 1),
            "bandwidth_use": round(self.bandwidth_use, 4),
            "bytes_compared": self.compared,
            "differences": self.differences,
            "saturated": self.saturated,
            "counters": dict(self.counters),
        }


class Session:
    """A compiled model that runs, with its key-value cache.

    The accelerator does the whole model, from tokens to logits; the host only chooses tokens.

    Parameters
    ----------
    program: the image
    backend: "golden" (bit-exact model), "rtl" (simulated hardware) or "both"
    memory: how the simulated external memory behaves
    waveform: an FST file to write; "rtl" and "both" only
    engine: of the golden machine, "torch" or "numpy": the same bits
    machines: further ones, by name; they run after those of the backend
    progress: is called with each `sim.stages.Stage` of a build as it begins

    Where there are several machines, the memories of all are compared with that of the first after
    each run.

    Raises
    ------
    UsageError
        For an unknown backend, a waveform without RTL, or two machines of one name.
    """

    def __init__(
        self,
        program: Program,
        backend: Backend = "golden",
        *,
        memory: MemoryModel | None = None,
        waveform: str | Path | None = None,
        engine: Engine = "torch",
        machines: Mapping[str, MachineFactory] = MappingProxyType({}),
        progress: Report = lambda _: None,
    ) -> None:
        if backend not in get_args(Backend):
            known = ", ".join(get_args(Backend))
            raise UsageError(f"no backend {backend!r}; there are: {known}")
        if waveform is not None and backend == "golden":
            raise UsageError("a waveform needs the RTL: use --backend rtl or both")
        self.program, self.backend = program, backend
        self.stats = Stats()
        made: dict[str, MachineFactory] = {}
        if backend != "rtl":
            made["golden"] = partial(GoldenMachine, engine=engine, constant=program.constant)
        if backend != "golden":
            from sim.rtl import RtlMachine

            path = None if waveform is None else Path(waveform)
            made["rtl"] = partial(RtlMachine, model=memory, waveform=path, progress=progress)
        for name in made.keys() & machines.keys():
            raise UsageError(f"there is a machine {name!r} already: give yours another name")
        self.machines: dict[str, Machine] = {}
        try:
            for name, make in (made | dict(machines)).items():
                self.machines[name] = make(memory_image(program), program.config)
        except BaseException:
            self.close()
            raise
        self._held: list[int] = []  # tokens whose keys and values are in the cache

    def reset(self) -> None:
        """Forget all tokens."""
        self._held.clear()

    def close(self) -> None:
        """Close the machines: free the simulator and finish the waveform."""
        with contextlib.ExitStack() as stack:  # all of them, even where one fails
            for machine in self.machines.values():
                stack.callback(machine.close)

    def check_memory(self) -> None:
        """Compare the memories of all machines whole, weights and programs too.

        Raises
        ------
        Mismatch
            At the first byte that differs.
        """
        (first, expected), *others = self.machines.items()
        for name, machine in others:
            if not np.array_equal(expected.memory, machine.memory):
                different = np.flatnonzero(expected.memory != machine.memory)
                self.stats.differences += different.size
                raise Mismatch(
                    f"{different.size} bytes of memory differ, first at {different[0]:#x}, between "
                    f"{first} and {name}"
                )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def position(self) -> int:
        """Tokens in the cache."""
        return len(self._held)

    def forward(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits [T, vocab] of a sequence from its start.

        Raises
        ------
        UsageError
            Where an id is no token, or there are none or too many of them.
        """
        self.reset()
        logits: NDArray[np.float32] = (self.append(ids) * 2.0**-RESULT_FRAC).astype(np.float32)
        return logits

    def append(self, ids: Sequence[int], *, last_only: bool = False) -> Int64:
        """Compute the next tokens and return their logits as Q16 integers, [T, vocab].

        With ``last_only`` the head runs for the last token alone, [1, vocab]. After an error the
        session holds the tokens that it held before.
        """
        if self.program.argmax:
            raise UsageError(
                "the image was compiled with --argmax: it gives tokens and no logits; compile the "
                "model without"
            )
        return self._counted(ids, last_only)

    def next_token(self, ids: Sequence[int]) -> int:
        """Compute the next tokens and return the likeliest to follow: of equally likely ones the
        first. With an image compiled for argmax the machine finds it."""
        found = self._counted(ids, True)
        if not self.program.argmax:
            return int(found[-1].argmax())
        part = int(found[-1, :, 0].argmax())
        return self.program.argmax[part] + int(found[-1, part, 1])

    def _counted(self, ids: Sequence[int], last_only: bool) -> Int64:
        """What `_append` gives; after an error all is as before."""
        self.check_ids(ids)
        started, before = time.perf_counter(), self.position
        try:
            logits = self._append(list(ids), last_only)
        except BaseException:
            del self._held[before:]  # the session can go on from where it was
            raise
        self.stats.seconds += time.perf_counter() - started
        return logits

    def _append(self, ids: list[int], last_only: bool) -> Int64:
        cols = self.program.config.cols
        logits = []
        at = 0
        while at < len(ids):
            # All columns of the array, or one: programs exist for these two.
            count = cols if len(ids) - at >= cols else 1
            part = ids[at : at + count]
            at += count
            head = not last_only or at == len(ids)
            entry = self.program.entry(count, head)
            self._run(entry, self.position, part)
            self._held += part
            self.stats.tokens += count
            if head:
                logits.append(self._logits(count))
        return np.concatenate(logits)[-1:] if last_only else np.concatenate(logits)

    def run_at(self, position: int, ids: list[int], head: bool) -> dict[str, int]:
        """Run one program for tokens at ``position``, whatever the cache holds before it; for
        measuring. Gives the counters that `stats` sums up. Tokens held from there on are lost."""
        already = Counter(self.stats.counters)
        del self._held[position:]
        self._run(self.program.entry(len(ids), head), position, ids)
        return {name: n - already[name] for name, n in self.stats.counters.items()}

    def _logits(self, columns: int) -> Int64:
        """Of each column; with argmax, value and number of the largest in each part."""
        place, vocab = self.program.logits, self.program.vocab
        memory = next(iter(self.machines.values())).memory
        starts = [place.address + column * place.stride for column in range(columns)]
        bus, parts = self.program.config.bus_bytes, len(self.program.argmax)
        size = parts * bus if parts else 4 * vocab
        found = np.stack([memory[at : at + size].view("<i4").astype(np.int64) for at in starts])
        return found.reshape(columns, parts, -1)[:, :, :2] if parts else found

    def stream(
        self,
        ids: Sequence[int],
        max_new_tokens: int,
        *,
        choose: Callable[[Int64], int] | None = None,
        on_logits: Callable[[Int64], object] | None = None,
        resume: bool = False,
    ) -> Iterator[int]:
        """Continuation of ``ids``, token by token, up to one of the program's end tokens.

        ``choose`` takes Q16 logits [vocab] and gives the next token; the likeliest by default.
        ``on_logits`` gets the Q16 logits of every position as they are computed, [T, vocab]; the
        head then runs for all positions of the prompt, not for the last alone. ``resume``: where
        the cache holds the first tokens of ``ids``, only the others are computed.
        """
        self.check_length(len(ids), max_new_tokens)
        shared = 0
        # The last token is computed in any case: its logits are not held.
        while resume and shared < min(self.position, len(ids) - 1):
            if self._held[shared] != ids[shared]:
                break
            shared += 1
        del self._held[shared:]
        pending = list(ids[shared:])
        for _ in range(max_new_tokens):
            if choose is None and on_logits is None:
                token = self.next_token(pending)
            else:
                logits = self.append(pending, last_only=on_logits is None)
                if on_logits is not None:
                    on_logits(logits)
                token = int(logits[-1].argmax()) if choose is None else choose(logits[-1])
            yield token
            if token in self.program.eos:
                return
            pending = [token]

    def generate(self, ids: Sequence[int], max_new_tokens: int) -> list[int]:
        """``ids`` and their greedy continuation."""
        return [*ids, *self.stream(ids, max_new_tokens)]

    def check_length(self, prompt: int, new: int) -> None:
        """Raise `UsageError` where a prompt and its continuation do not fit the context."""
        context = self.program.context
        if new < 0:
            raise UsageError(f"max-new-tokens is {new}, must be 0 or more")
        if prompt > context:
            raise UsageError(f"the prompt has {prompt} tokens, the context {context}: shorten it")
        # The last new token is not fed back.
        if prompt + new - 1 > context:
            raise UsageError(
                f"{prompt} prompt tokens and {new} new ones exceed the context of {context}: at "
                f"most {context - prompt + 1} new ones fit"
            )

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise `UsageError` unless ``ids`` can be appended."""
        vocab = self.program.vocab
        if not len(ids):
            raise UsageError("the prompt is empty: give at least one token")
        for token in ids:
            if not 0 <= token < vocab:
                raise UsageError(f"token {token} is not in the vocabulary, 0 to {vocab - 1}")
        if self.position + len(ids) > self.program.context:
            raise UsageError(
                f"{self.position + len(ids)} tokens exceed the context of {self.program.context}"
            )

    def _run(self, entry: Entry, position: int, tokens: list[int]) -> None:
        ends = {
            name: machine.run(entry.address, position, tokens)
            for name, machine in self.machines.items()
        }
        counts = [end.counters for end in ends.values() if "cycles" in end.counters]
        self.stats.counters.update(counts[0] if counts else {})
        (first, end), *rest = ends.items()
        for name, other in rest:
            if (other.error, other.error_address) != (end.error, end.error_address):
                raise Mismatch(
                    f"{first} ended with {end.error.name} at {end.error_address:#x}, "
                    f"{name} with {other.error.name} at {other.error_address:#x}"
                )
        self._check_stop(end.error, end.error_address)
        self.stats.runs += 1
        (first, expected), *others = self.machines.items()
        for name, machine in others:
            self._compare(first, expected, name, machine)
        self._count_saturated(ends)

    def _count_saturated(self, ends: Mapping[str, RunResult]) -> None:
        """Machines that have this counter must agree on it."""
        key = "saturated"
        counts = [(name, end.counters[key]) for name, end in ends.items() if key in end.counters]
        for name, count in counts[1:]:
            first, expected = counts[0]
            if count != expected:
                raise Mismatch(f"{key}: {first} counted {expected} values, {name} {count}")
        self.stats.saturated += counts[0][1] if counts else 0

    def _check_stop(self, error: ErrorCode, address: int) -> None:
        if error is ErrorCode.NONE:
            return
        start, text = self.program.sections["program"]
        where = f"{address:#x}"
        if start <= address < start + text.size:
            data = text[address - start : address - start + INSTRUCTION_BYTES].tobytes()
            where += f" in {self.program.place(address)[1]}"
            try:
                where += f": {isa.decode(data)}"
            except isa.IllegalInstruction as broken:
                where += f": {broken}"
        raise MachineStopped(f"{error.name} at {where}")

    def _compare(self, first: str, reference: Machine, name: str, machine: Machine) -> None:
        """Compare all memory that programs write; stop at the first difference."""
        for region in self.program.regions:
            part = slice(region.address, region.address + region.size)
            expected, found = reference.memory[part], machine.memory[part]
            self.stats.compared += region.size
            if np.array_equal(expected, found):
                continue
            different = np.flatnonzero(expected != found)
            self.stats.differences += different.size
            index = int(different[0])
            cycle = machine.written_at(region.address + index)
            when = f"not written by {name}" if cycle is None else f"written in cycle {cycle}"
            raise Mismatch(
                f"{region.name}, byte {index} at {region.address + index:#x}: expected "
                f"{expected[index]}, found {found[index]} ({when}); {different.size} bytes differ "
                f"between {first} and {name}"
            )


def memory_image(program: Program) -> NDArray[np.uint8]:
    """What memory holds before the first run."""
    memory = np.zeros(program.memory_bytes, np.uint8)
    for name, (address, data) in program.sections.items():
        if address + data.size > memory.size:
            raise DataError(f"section {name} ends past the memory of {memory.size} bytes")
        memory[address : address + data.size] = data
    return memory

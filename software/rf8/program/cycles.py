"""Cycle model: how long a program runs, from the image and the machine, without running RTL.

It follows the machine's parts as far as time goes: the instruction fetch, the sequencer, each unit,
the read channel with the weights that are read ahead, and the buffer of STORE. External memory
answers in order, ``latency`` cycles after a request, with a beat each cycle. Values do not matter,
but for the sums of softmax, whose length a division has to find: they are taken as in the middle
of what they can be.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from golden import isa
from golden.config import INSTRUCTION_BYTES, AccelConfig
from golden.isa import HEADED, READS_OTHER, After, Function, Instruction, Opcode, Output
from golden.layers import EXP_FRAC, INVERSE_FRAC
from golden.positions import lengths, resolve
from golden.stream import stream_beats, tile_slices
from golden.vector import SUM_BITS
from rf8.program.image import Entry, Program

_INDEXED = isa.INDEXED

# Cycles between events in the hardware; the tests of this module hold them against its parts.
_QUEUE = 2  # through the queue of instructions
_REQUEST = 3  # from a stream's descriptor, or the start of a LOAD, to its first request
_DECODED = 3  # from a beat of a LOAD with lanes to the element it becomes
_SLICE = 3  # from a beat to its slice
_MATMUL_START = 4  # from a start to the first slice
_WRITTEN = 12  # from the last row that leaves the array until all is written
_ERRORS = 5  # from the last slice until the next MATMUL is looked at
_SHORT, _MEAN, _ROOT = 6, 61, 171  # from a segment's sums to its registers
_SPACING = 8  # between segments at whose ends something short is computed
PROGRAM_AHEAD = 16  # instructions that are read ahead
LOADS_AHEAD = 8  # LOADs on their way
STORE_WORDS, STORES, STORE_BURSTS = 512, 64, 16  # in the buffer of STORE
_LANES = 19  # of the vector unit, from a word's address to its results


@dataclass
class Cost:
    """What an instruction takes: the cycles from when it is next to when the one after it is.

    ``waits``: cycles of these in which its unit did not work, by cause: "fetch" (the instruction
    was not there yet), "memory" (answers, or data of a LOAD), "weights" (no slice), "drain"
    (results had to leave the array first). ``slices``: of weights, ``depth`` of them in a tile;
    ``beats``: on the bus.
    """

    part: str
    address: int
    instruction: Instruction
    cycles: int = 0
    slices: int = 0
    depth: int = 0
    beats: int = 0
    waits: dict[str, int] = field(default_factory=dict)

    def wait(self, cause: str, cycles: int) -> None:
        """So many more cycles were lost to ``cause``."""
        if cycles:
            self.waits[cause] = self.waits.get(cause, 0) + cycles


def predict(program: Program, entry: Entry, position: int, latency: int) -> list[Cost]:
    """The instructions of ``entry`` for tokens from ``position`` on, in order, with their cycles.

    ``latency``: of the memory, from a request to its first beat, in cycles.
    """
    machine = _Machine(program.config, latency)
    costs = []
    for address, instruction in program.instructions(entry.address):
        cost = Cost(program.place(address)[1], address, instruction)
        machine.run(instruction, cost, position)
        costs.append(cost)
    return costs


class _Reads:
    """The read channel, and the FIFO of weights.

    Bursts of weights are asked for in order, as soon as their stream is known and the FIFO has room
    for them; LOADs come between.
    """

    def __init__(self, config: AccelConfig, latency: int) -> None:
        self.config, self.latency = config, latency
        self.free = 0  # the cycle in which the channel is done with all that was asked for
        self.asked = 0  # the cycle of the latest request
        self.room = config.fifo_beats
        self.streams: deque[tuple[int, int, int]] = deque()  # known at, address in beats, beats
        self.arrivals: deque[tuple[int, int]] = deque()  # cycle of the first beat, beats
        self.taken: deque[tuple[int, int]] = deque()  # cycle, beats that left the FIFO
        self.room_at = 0

    def burst(self, address: int, beats: int) -> int:
        """Beats of the first burst of a run."""
        longest = self.config.burst_beats
        return min(beats, longest - address % longest)

    def bursts(self, address: int, beats: int) -> list[int]:
        """Beats of all its bursts."""
        sizes = []
        while beats:
            sizes.append(self.burst(address, beats))
            address, beats = address + sizes[-1], beats - sizes[-1]
        return sizes

    def request(self, cycle: int, beats: int) -> int:
        """Ask for a burst; the cycle of its first beat."""
        first = max(cycle + self.latency, self.free)
        self.free = first + beats
        return first

    def advance(self, until: float) -> bool:
        """Ask for the next burst of weights, if that can be before ``until``."""
        if not self.streams:
            return False
        known, address, beats = self.streams[0]
        size = self.burst(address, beats)
        while self.room < size and self.taken:
            last, beats_left = self.taken.popleft()
            freed = min(beats_left, size - self.room)
            self.room_at = max(self.room_at, last - (beats_left - freed))
            self.room += freed
            if freed < beats_left:
                self.taken.appendleft((last, beats_left - freed))
        if self.room < size:
            return False
        cycle = max(known, self.asked + 1, self.room_at + 1)
        if cycle >= until:
            return False
        self.asked = cycle
        self.room -= size
        self.arrivals.append((self.request(cycle, size), size))
        if size == beats:
            self.streams.popleft()
        else:
            self.streams[0] = (known, address + size, beats - size)
        return True

    def take(self, at: int, most: int) -> tuple[int, int]:
        """Beats of one burst leave the FIFO from ``at`` on or when they come, one each cycle: the
        cycle of the last, and how many."""
        if not self.arrivals and not self.advance(float("inf")):
            raise AssertionError("no stream is known")
        first, beats = self.arrivals.popleft()
        size = min(beats, most)
        if size < beats:
            self.arrivals.appendleft((first + size, beats - size))
        last = max(first + _SLICE, at) + size - 1
        self.taken.append((last - 2, size))  # two registers hold the next ones
        return last, size


class _Machine:
    """Time goes on instruction by instruction: ``now`` is when the sequencer looks for the next."""

    def __init__(self, config: AccelConfig, latency: int) -> None:
        self.config, self.latency = config, latency
        self.reads = _Reads(config, latency)
        self.now = 0
        slots = max(1, INSTRUCTION_BYTES // config.bus_bytes)
        self.slot = slots + 1
        self.fetched = latency + 4  # when the fetch turns to the next instruction
        # The program is read ahead, two bursts at the start and another when one is used up.
        slots_ahead = PROGRAM_AHEAD * config.slot_bytes // config.bus_bytes
        self.burst = min(config.burst_beats, slots_ahead)
        self.reads.free = self.fetched + max(2 * self.burst, slots_ahead)
        self.used = 0
        self.places: deque[int] = deque()  # when entries of the queue were taken
        self.fence = False
        self.fenced = 0  # when what a FENCE waited for was answered
        self.before: Instruction | None = None
        self.last: Cost | None = None
        # Of MATMUL: when the last tile has left the array, and when its results are there.
        self.drained = self.results = 0
        # Of STORE: when the buffer has given all to the bus, and the words in it.
        self.sent = self.answered = 0
        self.buffered: deque[tuple[int, int]] = deque()
        self.answers: deque[int] = deque(maxlen=STORE_BURSTS)
        self.loaded = 0  # when all words of LOADs are there
        self.loads: deque[int] = deque(maxlen=LOADS_AHEAD)  # the same, of the latest

    def run(self, raw: Instruction, cost: Cost, position: int) -> None:
        # Which tokens they are is not known: as if their numbers were those of the positions.
        tokens = range(position, position + self.config.cols)
        resolved = resolve(raw, position, tokens, self.config)
        i = resolved.instruction
        if not self._follows(raw):
            # The instruction before takes as long as its results or data do.
            end = max(self.now, self.results, self.loaded)
            if self.last is not None:
                self.last.cycles += end - self.now
                if self.last.instruction.opcode is Opcode.LOAD:
                    self.last.wait("memory", end - self.now)
            self.now = end
        self.last = cost
        begin = self.now
        there = self._fetch(i, resolved.index)
        start = max(begin, there)
        cost.wait("memory", max(0, min(start, self.fenced) - begin))
        cost.wait("fetch", start - max(begin, min(start, self.fenced)))
        match i.opcode:
            case Opcode.MATMUL:
                self.now = self._matmul(i, start, cost)
            case Opcode.LOAD:
                self.now = self._load(i, start, cost)
            case Opcode.STORE:
                self.now = self._store(i, start, cost)
            case Opcode.VECTOR:
                self.now = start + 2 + _vector(i, position, self.config)
            case Opcode.FENCE:
                self.now = start + 1
            case Opcode.HALT:
                cost.wait("memory", max(0, self.answered - start))
                self.now = max(start, self.answered) + 2
        self.before = raw
        cost.cycles = self.now - begin

    def _follows(self, i: Instruction) -> bool:
        """Whether an instruction may begin while the one before it is under way."""
        before = self.before
        if before is None or before.opcode is not i.opcode:
            return False
        if i.opcode is Opcode.LOAD:
            return not (i.flags | before.flags) & _INDEXED
        if i.opcode is not Opcode.MATMUL or before.column != i.column:
            return False
        words = -(-before.count * self.config.rows // self.config.results_per_word)
        end = i.src + isa.block_words(i.k, self.config)
        return end <= before.dst or before.dst + words <= i.src

    def _fetch(self, i: Instruction, index: int) -> int:
        """When the instruction is there."""
        if self.fence:
            self.fence = False
            self.fenced = self.answered + 1
            self.fetched = max(self.fetched, self.now, self.fenced)
        dispatched = self.fetched + self.slot + _check(i, index)
        if len(self.places) == self.config.queue:
            dispatched = max(dispatched, self.places.popleft() + 1)
        self.fetched = dispatched + (i.opcode is Opcode.MATMUL)
        self.fence = i.opcode is Opcode.FENCE
        self.used += self.config.slot_bytes // self.config.bus_bytes
        if self.used >= self.burst:
            self.used -= self.burst
            self.reads.request(self.fetched, self.burst)
        there = dispatched + _QUEUE
        self.places.append(max(self.now, there))
        if i.opcode is Opcode.MATMUL:
            beats = stream_beats(i, self.config)
            address = i.address // self.config.bus_bytes
            self.reads.streams.append((dispatched + _REQUEST, address, beats))
        return there

    def _matmul(self, i: Instruction, start: int, cost: Cost) -> int:
        config, reads = self.config, self.reads
        assert config.slices_per_beat == 1  # as in all machines that whole models run on
        slices = tile_slices(i.k, i.flags, config)
        cost.depth, cost.slices, cost.beats = i.k, i.count * i.k, stream_beats(i, config)
        at = start + 2 + _MATMUL_START
        rows, bins = config.rows, config.bins
        total, done = i.count * slices, 0
        hold = bins - 1  # cycles in which the lanes' bins are read; one falls on a header
        while done < total:
            # To the end of a tile, or of a burst.
            left = min(slices - done % slices, total - done)
            last, size = reads.take(at, left)
            expected = at + size - 1
            cost.wait("weights", last - expected)
            done += size
            if done % slices == 0:
                # A tile is complete: its last slice waits until the one before has left.
                if done > slices or self.drained > last:
                    gaps = hold if i.k >= rows * bins else 0
                    wait = max(0, self.drained - last) + gaps
                    cost.wait("drain", wait)
                    last += wait
                self.drained = last + _drain(config)
            at = last + 1
        self.results = self.drained + _WRITTEN
        return at - 1 + _ERRORS

    def _load(self, i: Instruction, start: int, cost: Cost) -> int:
        reads = self.reads
        lanes = bool(i.flags & _INDEXED)
        ready = max(start, self.answered)
        if len(self.loads) == LOADS_AHEAD:
            ready = max(ready, self.loads[0])
        cost.wait("memory", ready - start)
        start = ready
        request = start + 1 + _REQUEST
        for size in reads.bursts(i.address // self.config.bus_bytes, i.count):
            while reads.advance(request):
                pass
            arrived = reads.request(max(request, reads.asked + 1), size)
            reads.asked = max(request, reads.asked + 1)
            self.loaded = arrived + size + 1 + (_DECODED if lanes else 0)
            request += 1
        self.loads.append(self.loaded)
        cost.beats = i.count
        return start + 5

    def _store(self, i: Instruction, start: int, cost: Cost) -> int:
        config = self.config
        words = isa.moved_words(i, config)
        read = start + 2
        free = STORE_WORDS - sum(n for _, n in self.buffered)
        while (free < words or len(self.buffered) == STORES) and self.buffered:
            read, freed = max(read, self.buffered[0][0]), self.buffered.popleft()[1]
            free += freed
        self.sent = max(self.sent, read + 9) + 3
        for size in self.reads.bursts(i.address // config.bus_bytes, i.count):
            if len(self.answers) == STORE_BURSTS:
                self.sent = max(self.sent, self.answers[0])
            self.sent += size + 4
            self.answers.append(self.sent + self.latency + 3)
        while self.buffered and self.buffered[0][0] <= read:
            self.buffered.popleft()
        self.buffered.append((self.sent, words))
        self.answered = self.answers[-1]
        cost.wait("memory", read - start - 2)
        cost.beats = i.count
        # What is more than the buffer holds has to wait for the bus.
        late = self.sent - STORE_WORDS if words > STORE_WORDS else 0
        return max(read + words + 1, late)


def _check(i: Instruction, index: int) -> int:
    """Cycles in which an instruction is checked; ``index``: of `golden.positions.Resolved`."""
    if i.opcode is Opcode.MATMUL:
        return 8 + i.count.bit_length()
    if i.opcode is Opcode.VECTOR:
        return 8 + 3 * (i.segments - 1).bit_length()
    return 6 + index.bit_length() if i.flags & _INDEXED else 4


def _drain(config: AccelConfig) -> int:
    """Cycles from the last slice of a tile until its last row leaves the array, and the last slice
    of the next tile may come."""
    return 4 + config.bins * config.rows + (4 if config.bins > 1 else 0)


def _vector(i: Instruction, position: int, config: AccelConfig) -> int:
    """Cycles from the start of a VECTOR to its end."""
    length = int(lengths(i, position)[-1])
    rotate = i.function == Function.ROTATE
    reads = 4 if rotate else 1 + (i.function in READS_OTHER)
    words = isa.vector_words(length, config)
    headed = i.output in (*HEADED, Output.TOP)
    drain = _LANES + 2 + isa.exact_log2(config.results_per_word) + 1
    after = _after(After(i.after), length)
    alone = i.after in (After.MEAN, After.ROOT, After.RECIPROCAL) or (i.after and headed)
    pairs = 2 if rotate and i.k >= config.results_per_word else 1
    leave, free, busy = 2, 0, list[int]()
    for _ in range(i.segments * i.column):
        load = leave + 1
        while load in busy:
            load += 1
        hold = max(load + 3 + reads * (words - pairs), free)
        leave = hold + reads * pairs - 1
        end = leave + drain - 2 * (reads == 2)  # the first of two words goes ahead
        finished = end + after + headed
        busy = [end, finished]
        if alone:
            free = finished + 2
        elif i.after:
            free = leave + _SPACING
    return finished + 1


def _after(after: After, length: int) -> int:
    """Cycles from the sums to the registers."""
    if after is After.RECIPROCAL:
        size = EXP_FRAC + max(1, length).bit_length()
        return SUM_BITS - size + INVERSE_FRAC + 7
    return {After.NONE: 0, After.MEAN: _MEAN, After.ROOT: _ROOT}.get(after, _SHORT)

"""The simulator: errors, recovery, waveforms, and the settings of its memory."""

import numpy as np
import pytest

from golden import isa, machine
from golden.config import CONFIGS
from golden.isa import ErrorCode, Flag, Instruction, Opcode
from sim import build, toolchain
from sim.rtl import MemoryModel, RtlMachine, SimulationHung

TINY = CONFIGS["tiny"]
HALT = Instruction(opcode=Opcode.HALT)
SIZE = 1 << 16


def memory_with(*instructions, at=0):
    memory = np.zeros(SIZE, np.uint8)
    text = isa.encode_program([*instructions, HALT], TINY)
    memory[at : at + len(text)] = np.frombuffer(text, np.uint8)
    return memory


LOAD = Instruction(opcode=Opcode.LOAD, address=0x1000, count=20)
PRODUCT = Instruction(opcode=Opcode.MATMUL, column=1, address=0x2000, count=3, k=9, dst=8)
STORE = Instruction(opcode=Opcode.STORE, address=0x3000, count=12, src=8)


def weights(memory):
    """Valid codes and activations that are not all zero."""
    random = np.random.default_rng(3)
    memory[0x1000:0x1100] = random.integers(0, 256, 256)
    memory[0x1000] = 0xF0
    memory[0x2000:0x2400] = random.integers(0, 14, 0x400) * 8
    return memory


def test_errors_match_golden_and_the_next_run_works():
    cases = {
        "illegal": [Instruction(opcode=Opcode.LOAD, address=2, count=1)],
        "late illegal": [LOAD, PRODUCT, Instruction(opcode=Opcode.STORE, column=7, count=1)],
        "read outside": [LOAD, Instruction(opcode=Opcode.LOAD, address=SIZE - 8, count=9)],
        "weights outside": [LOAD, Instruction(**{**vars(PRODUCT), "address": SIZE - 16})],
        "write outside": [Instruction(opcode=Opcode.STORE, address=SIZE - 8, count=9)],
    }
    memory = weights(memory_with())
    with RtlMachine(memory, TINY, MemoryModel(stalls=0.2)) as rtl:
        for name, program in cases.items():
            memory[:0x1000] = memory_with(*program)[:0x1000]
            expected = machine.run(memory.copy(), 0, TINY)
            found = rtl.run(0, limit=100_000)
            assert (found.error, found.error_address) == (
                expected.error,
                expected.error_address,
            ), name
            assert found.error is not ErrorCode.NONE
            memory[:0x1000] = memory_with(LOAD, PRODUCT, STORE)[:0x1000]
            golden = memory.copy()
            assert machine.run(golden, 0, TINY).error is ErrorCode.NONE
            assert rtl.run(0, limit=100_000).error is ErrorCode.NONE
            assert (memory == golden).all(), name


def test_counters_and_write_log():
    memory = weights(memory_with(LOAD, PRODUCT, STORE))
    golden = machine.run(memory.copy(), 0, TINY).counters
    with RtlMachine(memory, TINY) as rtl:
        result = rtl.run(0)
        counters = result.counters
        assert counters["read_weights"] == golden["read_weights"]
        assert counters["written"] == golden["written"] == 12
        assert counters["slices"] == golden["slices"] == 27
        assert counters["column_slices"] == golden["column_slices"]
        assert counters["saturated"] == golden["saturated"]
        units = ("matmul", "load", "store", "vector")
        assert sum(counters[n] for n in units) <= counters["cycles"]
        cycles = [rtl.written_at(0x3000 + 4 * word) for word in range(12)]
        assert None not in cycles and sorted(cycles) == cycles
        assert rtl.written_at(0x2FFF) is None


def test_positions_and_tokens():
    """A column of bytes comes in by its token and goes out by its position, one byte of a beat."""
    load = Instruction(
        opcode=Opcode.LOAD, flags=Flag.TOKEN, column=1, shift=2, address=0x4000, count=9, k=9,
        immediate=60,
    )  # fmt: skip
    store = Instruction(
        opcode=Opcode.STORE, flags=Flag.INDEX, column=1, shift=2, address=0x8000, count=9, k=9,
        immediate=10,
    )  # fmt: skip
    memory = memory_with(load, store)
    memory[0x4000:0xA000] = np.random.default_rng(4).integers(0, 256, 0x6000)
    golden = machine.GoldenMachine(memory.copy(), TINY)
    with RtlMachine(memory, TINY) as rtl:
        for position, tokens in ((3, [7, 42]), (8, [42, 59]), (0, [1])):
            assert golden.run(0, position, tokens).error is ErrorCode.NONE
            assert rtl.run(0, position, tokens).error is ErrorCode.NONE
            assert (memory == golden.memory).all()
        assert rtl.run(0, 9, [0, 0]).error is ErrorCode.POSITION  # the store's limit
        found = rtl.run(0, 0, [0, 60])
        assert (found.error, found.error_address) == (ErrorCode.POSITION, 0)


@pytest.mark.parametrize("stalls", [0.0, 0.5])
@pytest.mark.parametrize("bandwidth", [1.0, 0.25])
@pytest.mark.parametrize("latency", [0, 200])
def test_memory_settings_change_cycles_only(latency, bandwidth, stalls):
    memory = weights(memory_with(LOAD, PRODUCT, STORE))
    golden = memory.copy()
    machine.run(golden, 0, TINY)
    model = MemoryModel(latency=latency, bandwidth=bandwidth, stalls=stalls, seed=9)
    with RtlMachine(memory, TINY, model) as rtl:
        first = rtl.run(0)
        assert (memory == golden).all()
        read = first.counters["read_weights"] + first.counters["read_other"]
        assert first.counters["cycles"] >= read / bandwidth + latency


def test_hang_is_reported_and_reset_recovers():
    memory = weights(memory_with(LOAD, PRODUCT, STORE))
    golden = memory.copy()
    machine.run(golden, 0, TINY)
    with RtlMachine(memory, TINY, MemoryModel(latency=1000)) as rtl:
        with pytest.raises(SimulationHung, match="no end after 50 cycles"):
            rtl.run(0, limit=50)
        rtl.reset()
        assert rtl.run(0).error is ErrorCode.NONE
        assert (memory == golden).all()


def test_watchdog():
    memory = weights(memory_with(LOAD, PRODUCT, STORE))
    with RtlMachine(memory, TINY, MemoryModel(latency=500), watchdog=100) as rtl:
        assert rtl.run(0, limit=5000).error is ErrorCode.WATCHDOG


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"latency": -1}, "memory latency is -1"),
        ({"bandwidth": 0.0}, "memory bandwidth is 0.0"),
        ({"stalls": 1.0}, "memory stalls is 1.0"),
    ],
)
def test_impossible_memories(setting, message):
    with pytest.raises(ValueError, match=message):
        MemoryModel(**setting)


@pytest.mark.needs("zlib.h", "lz4.h")
def test_waveform(tmp_path):
    path = tmp_path / "run.fst"
    memory = weights(memory_with(LOAD, PRODUCT, STORE))
    with RtlMachine(memory, TINY, waveform=path) as rtl:
        rtl.run(0)
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(("header", "package"), [("zlib.h", "zlib1g-dev"), ("lz4.h", "liblz4-dev")])
def test_missing_header_is_named(monkeypatch, tmp_path, header, package):
    monkeypatch.setenv("RF8_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "verilog_text", lambda *_: "module rf8(input x); endmodule")
    monkeypatch.setattr(toolchain, "is_installed", lambda tool: tool != header)
    with pytest.raises(
        toolchain.ToolMissing, match=f"^{header} is missing: apt-get install {package}$"
    ):
        RtlMachine(memory_with(), TINY, waveform=tmp_path / "run.fst")

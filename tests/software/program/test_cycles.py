"""Predicted cycles against the RTL, layer by layer, and what users get wrong."""

import pytest
import tiny_models
from amaranth.hdl import Fragment
from amaranth.sim import Simulator

import rf8
from golden import isa
from golden.config import CONFIGS
from golden.isa import FIELDS, After, Flag, Instruction, Opcode
from golden.layers import EXP_FRAC
from golden.positions import resolve
from hw.control.check import Checker
from hw.control.prefetch import SLOTS
from hw.lib.queue import StreamQueue
from hw.matrix.array import Array
from hw.matrix.matmul import ERROR_LATENCY, Matmul
from hw.matrix.writeback import Writeback
from hw.memory import store
from hw.memory.axi import Bursts, ReadManager
from hw.memory.load import CodeValue, Load
from hw.memory.weight_fetch import WeightFetch
from hw.vector import finish, unit
from hw.vector.lane.lane import VectorLane
from hw.vector.scalar.unit import ScalarUnit
from rf8.checkpoint.huggingface import from_transformers
from rf8.errors import UsageError
from rf8.program import cycles
from rf8.program.cycles import predict
from rf8.runtime.profile import explain, layer_of, plot, profile

MACHINES = {"tiny": CONFIGS["tiny"], "eight rows": tiny_models.EIGHT}


@pytest.fixture(scope="module")
def programs(checkpoint):
    """Name of machine and model -> program."""
    models = {
        "gpt2": rf8.load_model(checkpoint),
        "llama": from_transformers(tiny_models.llama(), "llama"),
    }
    return {
        (name, model): rf8.compile(rf8.quantize(source, span=config.span), config=config)
        for name, config in MACHINES.items()
        for model, source in models.items()
    }


@pytest.mark.parametrize("latency", [10, 60, 200])
@pytest.mark.parametrize("model", ["gpt2", "llama"])
@pytest.mark.parametrize("machine", MACHINES)
def test_prediction_is_what_the_rtl_takes(programs, machine, model, latency):
    program = programs[machine, model]
    for columns, head in ((1, True), (program.config.cols, False)):
        found = profile(program, columns, head, latency=latency)
        whole = found.total
        assert whole.measured is not None
        off = {layer.name: layer.predicted / layer.measured - 1 for layer in found.layers}
        print(machine, model, latency, columns, f"{whole.predicted / whole.measured - 1:+.2%}", off)
        assert abs(whole.predicted / whole.measured - 1) <= 0.01
        for layer in found.layers:
            if layer.tiles:  # what is none of the layers takes a few hundred cycles
                assert abs(off[layer.name]) <= 0.02, layer
        # All of the machine's cycles but those before the first instruction and after the last.
        assert 0 <= whole.counters["cycles"] - whole.measured <= 8


def test_limits_are_those_of_the_hardware():
    assert Load.most == cycles.LOADS_AHEAD
    assert cycles.PROGRAM_AHEAD == SLOTS
    assert cycles.STORE_WORDS == store.BUFFER_WORDS
    assert (cycles.STORES, cycles.STORE_BURSTS) == (store.BUFFER_STORES, store.BUFFER_BURSTS)


def test_latencies_are_those_of_the_hardware():
    assert StreamQueue.latency == cycles._QUEUE
    assert Bursts.latency + ReadManager.latency == cycles._REQUEST
    assert 1 + CodeValue.latency == cycles._DECODED  # the byte's lane is chosen first
    assert WeightFetch.latency == cycles._SLICE
    # Then the results are known to be written, then done, and the sequencer looks on.
    assert Writeback.latency + 3 == cycles._WRITTEN
    assert finish.SPACING == cycles._SPACING
    assert unit.ELEMENTS_AT + VectorLane.latency == cycles._LANES


@pytest.mark.parametrize("align", [2, 4])
def test_rows_leave_the_array_when_the_model_says(align):
    for machine in (CONFIGS["tiny"], tiny_models.EIGHT):
        config = machine.replace(align=align)
        array = Array(config)
        last_row = array.latency + config.rows - 1
        # The model counts a slice in the cycle after the one in which the array takes it; with
        # bins it lets rows leave a cycle early, for what it takes too long elsewhere.
        assert last_row - 1 - (config.bins > 1) == cycles._drain(config)
        Fragment.get(array, None)  # else it counts as forgotten


def simulate(component, bench):
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


async def cycles_until(ctx, signal):
    """Clock edges until ``signal`` is high."""
    for number in range(1000):
        if ctx.get(signal):
            return number
        await ctx.tick()
    raise AssertionError("nothing came")


def test_slices_come_and_errors_show_when_the_model_says():
    """One MATMUL of a tile of three slices, weights always there."""
    control = Matmul(CONFIGS["sim"])
    found = {}

    async def bench(ctx):
        ctx.set(control.run.operands.k, 3)
        ctx.set(control.run.operands.count, 1)
        ctx.set(control.slices.next_valid, 1)
        await ctx.tick().repeat(3)
        ctx.set(control.run.start, 1)
        await ctx.tick()
        ctx.set(control.run.start, 0)
        found["header"] = 1 + await cycles_until(ctx, control.headers.valid)
        found["last"] = await cycles_until(ctx, control.headers.take)
        found["streamed"] = await cycles_until(ctx, control.streamed)

    simulate(control, bench)
    assert found == {
        "header": cycles._MATMUL_START,
        "last": 3,
        # The sequencer looks at the next one a cycle later, as the model does after a slice.
        "streamed": cycles._ERRORS,
    }
    assert ERROR_LATENCY + 1 == cycles._ERRORS


@pytest.mark.parametrize("after", [a for a in After if a is not After.NONE])
def test_registers_are_set_when_the_model_says(after):
    scalar = ScalarUnit(CONFIGS["tiny"])
    found = []
    # RECIPROCAL takes as long as the total is short: the model takes it for the length in ones.
    lengths = (1, 2, 3, 40, 1000)

    async def bench(ctx):
        ctx.set(scalar.operands.after, after)
        ctx.set(scalar.count, 7)
        for length in lengths:
            await ctx.tick().repeat(4)
            ctx.set(scalar.load, 1)
            await ctx.tick()
            ctx.set(scalar.load, 0)
            ctx.set(scalar.sum, length << EXP_FRAC)
            ctx.set(scalar.start, 1)
            await ctx.tick()
            ctx.set(scalar.start, 0)
            found.append(1 + await cycles_until(ctx, scalar.done))

    simulate(scalar, bench)
    assert found == [cycles._after(after, length) for length in lengths]


def checked():
    """Instructions of which the check takes its shortest and its longest, and a position."""
    for count in (1, 2, 3, 8, 100):
        yield Instruction(opcode=Opcode.MATMUL, column=2, count=count, k=5, dst=1000), 0
    for segments in range(1, 17):
        yield Instruction(
            opcode=Opcode.VECTOR, column=1, count=16, k=32, segments=segments, src_stride=1
        ), 0  # fmt: skip
    for position in (0, 63, 64, 128, 4096):
        for shift in (0, 6):
            yield Instruction(
                opcode=Opcode.STORE, flags=Flag.INDEX, shift=shift, count=3, k=2, immediate=9999
            ), position  # fmt: skip
    yield Instruction(opcode=Opcode.LOAD, count=5), 9
    yield Instruction(opcode=Opcode.FENCE), 9


def test_instructions_are_checked_as_long_as_the_model_says():
    config = CONFIGS["sim"]
    checker = Checker(config)

    async def bench(ctx):
        for i, position in checked():
            isa.check(i, config)
            ctx.set(checker.position, position)
            ctx.set(checker.start, 1)
            await ctx.tick()
            ctx.set(checker.start, 0)
            ctx.set(checker.operands, {name: int(getattr(i, name)) for name in FIELDS})
            took = 1 + await cycles_until(ctx, checker.done)
            index = resolve(i, position, [0] * config.cols, config).index
            assert took == cycles._check(i, index), (i, position)
            await ctx.tick()

    simulate(checker, bench)


def test_costs_follow_the_program(programs):
    program = programs["tiny", "gpt2"]
    entry = program.entry(1, True)
    costs = predict(program, entry, 3, 60)
    assert [c.address for c in costs] == [a for a, _ in program.instructions(entry.address)]
    assert all(cost.cycles > 0 for cost in costs)
    slow = predict(program, entry, 3, 600)
    assert sum(c.cycles for c in slow) > sum(c.cycles for c in costs)
    far = predict(program, entry, 20, 60)
    assert sum(c.slices for c in far) > sum(c.slices for c in costs)


@pytest.mark.parametrize(
    ("part", "layer"),
    [
        ("h.0.attn: keys", "h.0"),
        ("h.11", "h.11"),
        ("layers.3.mlp.gate", "layers.3"),
        ("model.layers.3.mlp.gate", "model.layers.3"),
        ("lm_head", "lm_head"),
        ("rotary positions", "rotary positions"),
    ],
)
def test_layers(part, layer):
    assert layer_of(part) == layer


def test_explanation(programs, tmp_path):
    program = programs["eight rows", "llama"]
    found = explain(program, position=2)
    whole = found.total
    assert whole.measured is None and whole.predicted == sum(x.predicted for x in found.layers)
    assert 0 < found.mac_use(whole) < found.bus_use(whole) < 1
    data = found.as_dict()
    assert data["position"] == 2 and data["total"]["tiles"] == whole.tiles
    plot(found, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": 3}, "columns is 3, must be one of: 1, 2"),
        ({"position": 24}, "position is 24, must be 0 to 23"),
        ({"position": -1}, "position is -1, must be 0 to 23"),
        ({"latency": -1}, "latency is -1, must be 0 or more"),
    ],
)
def test_impossible_wishes(programs, options, words):
    with pytest.raises(UsageError, match=words):
        explain(programs["tiny", "gpt2"], **options)

"""A whole lane with its tables, against `golden.vector`, function by function."""

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from hardware import simulate
from vector_control import control_of, settings_of

from golden.arith import saturate
from golden.config import get_config
from golden.isa import Flag, Function, Instruction, Opcode
from golden.vector import SINE_BITS, SUM_BITS, _compute, scaled, wrapped, y_bits
from hw.vector.decoder import CONTROL
from hw.vector.lane.lane import SETTINGS, VectorLane
from hw.vector.tables import VectorTables
from sim.benches.vectors import hard_elements

SEED = 231
CONFIG = get_config("tiny").replace(span=12)
PORTS = {"a": In(32), "b": In(32), "control": In(CONTROL), "settings": In(SETTINGS)}
PORTS |= {"step": In(1), "second": In(1), "keep": In(1), "y": Out(SUM_BITS)}
PORTS |= {"saturated": Out(1)}


class Bench(wiring.Component):
    """A lane with its own tables."""

    def __init__(self):
        super().__init__(PORTS)

    def elaborate(self, platform):
        m = Module()
        m.submodules.lane = lane = VectorLane(CONFIG)
        m.submodules.tables = tables = VectorTables(1)
        m.d.comb += [
            tables.address[0].eq(lane.address),
            lane.entry.eq(tables.entry[0]),
            lane.extra.eq(tables.extra[0]),
            self.y.eq(lane.y),
            self.saturated.eq(lane.saturated),
        ]
        for name in ("a", "b", "control", "settings", "step", "second", "keep"):
            m.d.comb += getattr(lane, name).eq(getattr(self, name))
        return m


def random_instruction(rng, function):
    rotate = function is Function.ROTATE
    products = (Function.SCALE, Function.MULTIPLY, Function.ROTATE)
    shift = rng.integers(-40, 4) if function in products else rng.integers(-20, 12)
    flags = int(rng.integers(2)) * Flag.AMOUNT | int(rng.integers(2)) * Flag.IMMEDIATE
    return Instruction(
        opcode=Opcode.VECTOR, function=function, k=4 if rotate else int(rng.integers(2, 33)),
        shift=int(rng.choice([shift, shift, rng.integers(-128, 128)])), flags=int(flags),
        immediate=int(rng.integers(-(1 << 31), 1 << 31)),
    )  # fmt: skip


def expected(i, a, b, registers, top, place):
    """y of all elements before it saturates; of ROTATE, of each two one."""
    exponent = i.shift + (registers["amount"] if i.flags & Flag.AMOUNT else 0)
    if i.function == Function.ROTATE:
        products = a * wrapped(b, SINE_BITS)
        return scaled(products[::2] + products[1::2], exponent)
    factor = np.int64(i.immediate if i.flags & Flag.IMMEDIATE else registers["factor"])
    y = _compute(i, a, b, factor, exponent, np.int64(top), np.int64(place), CONFIG)
    return np.broadcast_to(y, a.shape)


async def check(ctx, dut, rng, function):
    """Elements of one instruction, one each cycle."""
    latency, rotate, count = VectorLane.latency, function is Function.ROTATE, 60
    i = random_instruction(rng, function)
    registers = {
        "factor": int(rng.integers(-(1 << 31), 1 << 31) >> rng.integers(32)),
        "amount": int(rng.integers(-12, 12)),
    }
    top, place = int(rng.integers(1 << 24)), int(rng.integers(1 << 25))
    a, b = (hard_elements(rng, count).astype(np.int64) for _ in range(2))
    if function is Function.EXP2:
        a = top - np.abs(a) // 16
    keep = rng.random(count) < 0.9
    ctx.set(dut.control, control_of(i, CONFIG))
    ctx.set(dut.settings, settings_of(i, registers, top, place))
    found, flags = [], []
    for n in range(count + latency):
        at = min(n, count - 1)
        ctx.set(dut.a, int(a[at]))
        ctx.set(dut.b, int(b[at]))
        product = n - VectorLane.product_at
        ctx.set(dut.step, 0 <= product < count)
        ctx.set(dut.second, int(rotate and product % 2 == 1))
        last = n - (latency - 1)
        ctx.set(dut.keep, bool(0 <= last < count and keep[last]))
        found.append(ctx.get(dut.y))
        flags.append(ctx.get(dut.saturated))
        await ctx.tick()
    y = wrapped(np.array(found[latency:], np.int64), SUM_BITS)
    if rotate:
        y, keep = y[1::2], keep[1::2]
    exact, bits = expected(i, a, b, registers, top, place), y_bits(i)
    want = exact if bits is None else saturate(exact, bits)
    saturated = (want != exact) & keep & (bits == 32)
    want = np.where(keep, wrapped(want, SUM_BITS), 0)
    flags = flags[latency:][1::2] if rotate else flags[latency:]
    assert flags == saturated.tolist(), (i, registers)
    wrong = np.flatnonzero(y != want)
    assert not len(wrong), (i, registers, wrong, a[wrong], b[wrong], y[wrong], want[wrong])


def test_every_function():
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    dut = Bench()

    async def bench(ctx):
        for function in [*Function] * 4:
            await check(ctx, dut, rng, function)

    simulate(dut, bench, limit=8000)

"""What a VECTOR instruction asks of the unit's parts, said once more in plain Python."""

from golden.isa import HEADED, READS_OTHER, After, Flag, Function, Output
from hw.vector.decoder import CURVES, LEFT_BITS, STEP_BITS
from hw.vector.lane.table_argument import SINE_FIRST

TABLED = (*CURVES, Function.EXP2, Function.TANH, Function.SINE)
SCALED = (
    *(Function.SHIFT, Function.SHIFT_EACH, Function.SCALE, Function.MULTIPLY),
    *(Function.ADD, Function.SUBTRACT, Function.ROTATE),
)


def control_of(i, config):
    """`hw.vector.decoder.CONTROL` of an instruction, by name."""
    f = Function(i.function)
    mantissas = i.output in (Output.BLOCK, Output.MANTISSAS)
    wrap = f in (Function.SQUARE, Function.ANGLE)
    bits = 32 if f is Function.ROTATE or wrap else i.k
    times = {Function.MULTIPLY: 1, Function.ROTATE: 1, Function.SQUARE: 2, Function.RESIDUE: 3}
    header = i.output in HEADED or i.output == Output.TOP
    return {
        **{function.name.lower(): int(function is f) for function in Function},
        "activation": int(f in CURVES),
        "table": int(f in TABLED),
        "row": CURVES.index(f) if f in CURVES else len(CURVES),
        "two": int(f in READS_OTHER),
        "adds_a": int(f in (*CURVES, Function.RELU, Function.RESIDUE)),
        "times": 3 if f in TABLED else times.get(f, 0),
        "wrap": int(wrap),
        "scaled": int(f in SCALED),
        # Bit n: y's bits n and n + 1 are the same.
        "bound": 0 if wrap else sum(1 << n for n in range(bits - 1, 32)),
        "writes": int(i.output not in (Output.NONE, Output.TOP)),
        "bytes": int(i.output == Output.CODES or (mantissas and config.act_bits == 8)),
        "halves": int(mantissas and config.act_bits == 16),
        "header": int(header),
        "pair": int(i.output == Output.TOP),
        "finish": int(header or i.after != After.NONE),
        "length": int(bool(i.flags & Flag.LENGTH)),
        "amount": int(bool(i.flags & Flag.AMOUNT)),
        "immediate": int(bool(i.flags & Flag.IMMEDIATE)),
        "window": int(bool(i.flags & Flag.WINDOW)),
    }


def settings_of(i, registers, top, place):
    """`hw.vector.lane.lane.SETTINGS` of a segment, by name."""
    f = Function(i.function)
    factor = i.immediate if i.flags & Flag.IMMEDIATE else registers["factor"]
    power = i.shift + (registers["amount"] if i.flags & Flag.AMOUNT else 0)
    if f not in SCALED:
        power = -STEP_BITS if f in TABLED else 0
    constant = {Function.SCALE: factor, Function.ANGLE: place, Function.RELU: 0}
    return {
        "base": {Function.EXP2: top, Function.SINE: 1 << SINE_FIRST - 1}.get(f, 0),
        "distance": LEFT_BITS - power,
        "constant": constant.get(f, 1),
        "minus": -factor,
    }

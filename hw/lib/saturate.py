"""Saturation to fewer bits."""

from amaranth.hdl import Cat, Mux


def saturate(value, bits: int):
    """``value`` clamped to a two's-complement number of ``bits`` bits."""
    if len(value) <= bits:
        return value
    high, sign = value[bits - 1 : -1], value[-1]
    fits = (high == sign.replicate(len(high))).bool()
    return Mux(fits, value[:bits], limit(sign, bits)).as_signed()


def limit(sign, bits: int):
    """The largest number of ``bits`` bits, or the smallest where ``sign`` is set."""
    return Cat((~sign).replicate(bits - 1), sign)

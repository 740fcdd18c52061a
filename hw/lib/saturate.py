"""Saturation to fewer bits."""

from amaranth.hdl import Cat, Mux


def saturate(value, bits: int):
    """``value`` clamped to a two's-complement number of ``bits`` bits."""
    if len(value) <= bits:
        return value
    return Mux(fits(value, bits), value[:bits], limit(value[-1], bits)).as_signed()


def fits(value, bits: int):
    """High when ``value``, which is wider, is a two's-complement number of ``bits`` bits."""
    high, sign = value[bits - 1 : -1], value[-1]
    return (high == sign.replicate(len(high))).bool()


def limit(sign, bits: int):
    """The largest number of ``bits`` bits, or the smallest where ``sign`` is set."""
    return Cat((~sign).replicate(bits - 1), sign)

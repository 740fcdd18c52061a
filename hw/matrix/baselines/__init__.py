"""Lanes of other number formats, for comparison: same array, same exactness, same care."""

from .int8 import Int8
from .two_term import Apot2, Float


def kind_of(name, *, rows, cols, act_bits, max_k, style="booth", align=None):
    """What `hw.matrix.array.Array` takes as ``kind`` for a format of `golden.baselines`.

    ``style``: of INT8. ``align``: of the others, 0 to 5.
    """
    sizes = {"rows": rows, "cols": cols, "act_bits": act_bits, "max_k": max_k}
    if name == "int8":
        return Int8(**sizes, style=style)
    if name == "apot2":
        return Apot2(**sizes, align=align)
    return Float(name, **sizes, align=align)

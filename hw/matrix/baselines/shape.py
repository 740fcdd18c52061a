"""The sizes of a baseline's array: what `golden.config.AccelConfig` is to RF8's."""

from dataclasses import dataclass

from golden.config import signed_bits
from golden.forms import Forms


@dataclass(frozen=True, kw_only=True)
class Shape:
    """An array whose dot products have up to ``max_k`` terms.

    ``largest_term``: largest magnitude of one term in a bin, for an activation of 1; ``largest``:
    of a weight. ``forms``, ``exponents``: of formats whose significands have two-term forms.
    """

    rows: int
    cols: int
    act_bits: int
    max_k: int
    largest: int
    largest_term: int
    bins: int = 1
    align: int = 0
    forms: Forms | None = None
    exponents: int = 1

    @property
    def bin_bits(self) -> int:
        """Width of an accumulator."""
        return signed_bits(self.max_k * self.largest_term << (self.act_bits - 1))

    @property
    def acc_bits(self) -> int:
        """Width of a whole dot product."""
        return signed_bits(self.max_k * self.largest << (self.act_bits - 1))

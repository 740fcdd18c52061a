"""Two-term forms of significands: how a lane makes every product with one addition.

A lane multiplies an activation x by a significand as ``(base*x +- term*x) << shift``. ``base`` and
``term`` are each one of two multiples of x, which a column makes once for all its lanes; the shift
costs nothing, as it is added to the weight's exponent. So a lane needs two choices of two, and an
adder. RF8's own terms (arXiv 2506.00486, section on RF8) would need a choice of four beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from golden.format import SIGNIFICANDS


@dataclass(frozen=True)
class Form:
    """One significand: index of its base, index of its term (None: no term), sign, shift."""

    base: int
    term: int | None
    subtract: bool
    shift: int


@dataclass(frozen=True)
class Forms:
    """Forms of all significands of a format, by code.

    ``base``, ``term``: the multiples of x to choose from.
    """

    base: tuple[int, int]
    term: tuple[int, int]
    codes: tuple[Form, ...]

    @property
    def bare(self) -> bool:
        """Whether some form has no term."""
        return any(form.term is None for form in self.codes)

    @property
    def spread(self) -> int:
        """Largest shift: by how much exponents grow."""
        return max(form.shift for form in self.codes)

    def multiple(self, form: Form) -> int:
        """The sum before the shift."""
        term = 0 if form.term is None else self.term[form.term]
        return self.base[form.base] + (-term if form.subtract else term)

    def largest_in_bin(self, exponents: int, align: int) -> int:
        """Largest magnitude of a product within its bin, for an activation of 1.

        ``exponents``: how many there are; a bin takes ``2**align`` of them, spread included.
        """
        return max(
            self.multiple(form) << (exponent + form.shift & (1 << align) - 1)
            for form in self.codes
            for exponent in range(exponents)
        )

    @property
    def largest(self) -> int:
        """Largest sum before the shift."""
        return max(self.multiple(form) for form in self.codes)


def find_forms(
    significands: Sequence[int],
    base: tuple[int, int],
    term: tuple[int, int],
    *,
    bare: bool = False,
    padding: int = 0,
) -> Forms:
    """The forms with the smallest shifts.

    ``bare`` allows forms without a term, which lanes then must be able to leave out; ``padding``
    repeats the last form for codes that are not used.

    Raises
    ------
    ValueError
        Where a significand has none.
    """
    choices = [
        Form(b, t, subtract, 0)
        for b in range(2)
        for t in ((None, 0, 1) if bare else (0, 1))
        for subtract in ((False,) if t is None else (False, True))
    ]
    probe = Forms(base, term, ())
    codes = []
    for value in significands:
        found = [
            Form(c.base, c.term, c.subtract, shift)
            for shift in range(value.bit_length())
            for c in choices
            if probe.multiple(c) << shift == value
        ]
        if not found:
            raise ValueError(f"significand {value} is no {base} +- {term}, shifted")
        codes.append(min(found, key=lambda form: form.shift))
    return Forms(base, term, tuple(codes + codes[-1:] * padding))


SHIFTED = find_forms(SIGNIFICANDS, (8, 16), (1, 4), padding=1)
"""RF8 with shifts of x only; exponents grow by up to 2. For lanes that choose a bin."""

SHARED = find_forms(SIGNIFICANDS, (17, 27), (1, 3), bare=True, padding=1)
"""RF8 with multiples that a column adds up once; exponents stay. For lanes that shift all the way,
where two more exponents would cost more than the column's adders."""

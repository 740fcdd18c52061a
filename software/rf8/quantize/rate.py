"""Steps and prices: how finely each matrix of a model is rounded, from one price of a bit.

At high rates a uniform grid of step s costs ``s^2 / 12`` a weight, and half the step is one bit
more. What an error costs the loss differs from matrix to matrix: by the worth of its outputs
(`rf8.quantize.survey`) and by the pivots of its columns, whose geometric mean counts, as each error
is made good for in the columns after it. The bits of a model are spent best where the next one buys
the same everywhere, which makes

    step^2 = price / (PRICE * worth * pivot^2)

with one price, in nats of the loss per bit, for all. A row's grid is a power of two. Any other step
comes from a factor that the operation before a layer takes (`rf8.quantize.fold`); where it takes
none, or another matrix's, the nearest power it is. Steps that differ from column to column or from
row to row were tried and gain nothing (docs/decisions/0015).
"""

from __future__ import annotations

import numpy as np

import golden.code
from rf8.checkpoint.model import Float, Model, RF8Tensor
from rf8.errors import DataError
from rf8.graph.ir import Graph, Linear
from rf8.quantize.compensated import PRICE, Grid
from rf8.quantize.fold import Scales, absorbers
from rf8.quantize.levels import (
    RATED,
    about_bits,
    at_bits,
    linear_weights,
    nearest,
    row_biases,
    sampled,
)
from rf8.quantize.survey import Survey


class Grids:
    """The grid of each matrix of a model: none, without a rate."""

    method = "compensated"

    def of(self, name: str) -> Grid | None:
        """The grid of a matrix."""
        return None

    def note(self, done: dict[str, float]) -> None:
        """Take note of matrices that are rounded, and of their bits."""


class Rate:
    """The steps of a model's linear layers at a price of a bit.

    ``price``: in nats of a token's loss. ``scales``: what `rf8.quantize.fold.fold` is to multiply
    vectors by.
    """

    def __init__(self, model: Model, survey: Survey, span: int, price: float) -> None:
        self.span = span
        self.scales: dict[int, Scales] = {}
        self._worth = survey.worth
        unit = 2.0 ** golden.code.unit_exponent(span)  # a step at bias 0
        self._powers: dict[str, float] = {}
        self._factors: dict[str, float] = {}  # what folding divides a matrix by
        shifts: dict[str, float] = {}  # by how many powers rows are multiplied for what comes later
        taking = dict(absorbers(model.graph))
        for vector, weights in reversed(_readers(model.graph).items()):
            pivot = float(np.exp(np.log(survey.pivots[vector]).mean()))
            wanted, beside = {}, 0.0
            for name in weights:
                worth = float(survey.worth[name].mean())
                if not worth > 0:
                    raise DataError(f"{name}: the calibration text leaves it without effect")
                power = 0.5 * np.log2(price / PRICE / worth) - np.log2(pivot * unit)
                wanted[name] = power + shifts.get(name, 0.0)
            if vector in taking:
                # The largest matrix gets its step exactly.
                largest = max(weights, key=lambda name: model.float_tensor(name).size)
                beside = float(wanted[largest] - np.rint(wanted[largest]))
                self.scales[vector] = np.full(model.graph.ops[vector].width, 2.0**beside)
                for name, places in taking[vector].places.items():
                    share = len(np.unique(places)) / len(model.float_tensor(name))
                    shifts[name] = beside * share
            for name, power in wanted.items():
                self._powers[name] = float(np.rint(power - beside))
                self._factors[name] = 2.0 ** (beside - shifts.get(name, 0.0))

    @property
    def names(self) -> list[str]:
        """Of the matrices that have a grid."""
        return list(self._powers)

    def grid(self, name: str, coarser: float = 0.0) -> Grid:
        """The grid of a matrix, folded. ``coarser``: 0, or a mean step of ``2**coarser`` times
        that, by rows of two powers; the finer one is for those whose outputs are worth most."""
        return Grid(row_biases(self._powers[name] + coarser, self._worth[name]), PRICE)

    def room(self, weights: Float, name: str) -> float:
        """How many powers of two the deviation of a matrix is above its step."""
        deviation = float(np.sqrt(np.square(weights, dtype=np.float64).mean()))
        unit = 2.0 ** golden.code.unit_exponent(self.span)
        factor = self._factors[name]
        return float(np.log2(max(deviation, 1e-30) / factor / unit)) - self._powers[name]

    def bits(self, model: Model, name: str) -> float:
        """About how many bits a matrix of the float model will have, by some of its rows."""
        weights = model.float_tensor(name)
        chosen = sampled(weights)
        bias = self.grid(name).bias[chosen]
        codes = nearest(weights[chosen] / self._factors[name], bias, self.span)
        return about_bits(RF8Tensor(codes, bias), self.span) * weights.size


def find_rate(model: Model, survey: Survey, span: int, bits: float) -> Rate:
    """The rate at which linear layers have so many bits a weight, about.

    Raises
    ------
    DataError
        Where there is none.
    """
    sizes = {name: model.float_tensor(name).size for name in linear_weights(model.graph)}
    # At a price of 1, the mean of log2(deviation / step): that of a Gaussian has 2 bits more.
    first = Rate(model, survey, span, 1.0)
    rooms = {n: first.room(model.float_tensor(n), n) for n in sizes}
    start = sum(rooms[n] * size for n, size in sizes.items()) / sum(sizes.values()) + 2

    def at(coarser: float) -> Rate:
        return Rate(model, survey, span, 4.0**coarser)

    def mean(coarser: float) -> float:
        rate = at(coarser)
        return sum(rate.bits(model, name) for name in sizes) / sum(sizes.values())

    return at(at_bits(mean, bits, start - bits))


def _readers(graph: Graph) -> dict[int, list[str]]:
    """Vector -> the matrices that linear layers multiply it by."""
    found: dict[int, list[str]] = {}
    for op in graph.ops:
        if isinstance(op, Linear):
            found.setdefault(op.x, []).extend(weight for weight, _, _ in op.parts)
    return found


class RatedGrids(Grids):
    """Those of a rate, mended on the way where ``bits`` a weight are wanted: a matrix that is
    rounded has not quite the bits that were foretold.
    """

    method = RATED[0]

    def __init__(self, rate: Rate, model: Model, bits: float | None = None) -> None:
        self._rate, self._wanted = rate, bits
        self._sizes = {name: model.float_tensor(name).size for name in rate.names}
        self._foretold = {name: rate.bits(model, name) for name in rate.names}
        self._done: dict[str, float] = {}

    def of(self, name: str) -> Grid | None:
        """The grid of a matrix."""
        coarser = 0.0
        if self._wanted is not None and self._done:
            left = [n for n in self._sizes if n not in self._done]
            expected = sum(self._foretold[n] for n in left)
            room = self._wanted * sum(self._sizes.values()) - sum(self._done.values())
            coarser = (expected - room) / sum(self._sizes[n] for n in left)
        return self._rate.grid(name, float(np.clip(coarser, -0.5, 0.5)))

    def note(self, done: dict[str, float]) -> None:
        """Take note of matrices that are rounded, and of their bits."""
        self._done |= done

"""Error-compensated rounding of one matrix to RF8.

A linear layer ``y = W x`` is rounded so that its output on calibration data changes least, not its
weights: with ``H = sum x x^T`` over the calibration tokens, the codes Q make

    tr((T - Q) H (T - Q)^T)                                                               (1)

small, where the target T is W or, see `shifted_target`, a matrix that also makes good for what
earlier layers lost. Two steps: columns are rounded one after the other, each passing its error on
to those not yet rounded (the idea of GPTQ, arXiv 2210.17323), then coordinate descent revisits
every weight with all others fixed until nothing is gained. The grid of a row, its bias, is the one
that `golden.format.row_bias` gives for W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import golden.code
from golden.format import INTEGERS, in_span
from golden.format_torch import decode, encode, row_bias
from rf8.quantize.levels import nearest

DAMPING = 0.01  # of the mean diagonal of H, added to it: keeps the inverse well-behaved
SWEEPS = 2  # of coordinate descent; docs/decisions/0004 has what they gain
ROUNDS = 2  # of rounding with a rate: each has the code that the one before made


@dataclass(frozen=True)
class Grid:
    """Where rounding with a rate puts the weights of a matrix: on the levels of `golden.code`.

    ``bias``: row biases, int8 [N], so that a step is ``2**bias`` times the span's unit. ``price``:
    of a bit, in units of squared step times squared pivot, the pivot being the geometric mean of
    those of the columns.
    """

    bias: NDArray[np.int8]
    price: float


PRICE = 0.1155
"""The price of a bit that fits a grid's step s: a uniform grid costs s^2 / 12 a weight and a bit
halves its steps, so that a bit more saves ln 2 / 6 s^2."""


def round_to_rf8(values: Tensor, bias: Tensor, span: int = 16) -> Tensor:
    """The RF8 values nearest to ``values`` [N, K] under row biases int [N, 1]."""
    return decode(encode(values, bias, nonfinite="saturate", span=span), bias)


@torch.no_grad()
def compensate(
    weight: Tensor,
    hessian: Tensor,
    *,
    target: Tensor | None = None,
    span: int = 16,
    grid: Grid | None = None,
) -> tuple[Tensor, Tensor]:
    """Round ``weight`` to RF8 so that (1) is small or, with a grid, (1) plus the price of its bits.

    Parameters
    ----------
    weight
        float32 [N, K]; decides the biases.
    hessian
        H, float32 or float64 [K, K], symmetric and positive semidefinite, not zero.
    target
        T, float32 [N, K]; ``weight`` if None.
    span
        As for `golden.format.encode`.
    grid
        To round to levels of the span with a rate; None: to all of its codes, under the biases
        that `golden.format.row_bias` gives.

    Returns
    -------
    Codes uint8 [N, K] and row biases int8 [N].

    Raises
    ------
    ValueError
        A Hessian that is not finite or is zero, or a weight that cannot be encoded.
    """
    mean = hessian.diagonal().double().mean()
    if not (torch.isfinite(hessian).all() and mean > 0):
        raise ValueError("compensate: the calibration data give no finite, non-zero Hessian")
    biases = row_bias(weight) if grid is None else torch.from_numpy(grid.bias)
    factor, damped, order = triangular(hessian)
    wanted = (weight if target is None else target).float()[:, order].contiguous().numpy()
    codes = np.arange(128, dtype=np.uint8)
    codes = codes[in_span(codes, span)] if grid is None else golden.code.levels(span)
    rounding = _Rounding(codes, biases.numpy(), damped.float().numpy(), factor.float().numpy())
    if grid is None:
        rounding.pass_errors_on(wanted)
    else:
        codes = nearest(wanted, grid.bias, span)
        for _ in range(ROUNDS):
            rounding.set_price(grid.price, codes, span)
            rounding.pass_errors_on(wanted)
            codes = rounding.codes()
        rounding.set_price(grid.price, codes, span)
    for _ in range(SWEEPS):
        rounding.descend(wanted)
    result = torch.empty(weight.shape, dtype=torch.uint8)
    result[:, order] = torch.from_numpy(rounding.codes())
    return result, biases


def triangular(hessian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The upper Cholesky factor of the inverse of the damped Hessian, that Hessian, both float64
    with their columns in order, and the order: largest inputs first, so that the rest makes good
    for their errors. One over the factor's diagonal are the pivots of the columns in order."""
    order = torch.argsort(hessian.diagonal(), descending=True)
    damped = hessian[order][:, order].double()
    damped.diagonal().add_(DAMPING * damped.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True), damped, order


class _Rounding:
    """A matrix being rounded, by the compiled loops of `rf8.quantize.kernels`.

    ``grid``: the codes that there are, ascending, without sign.
    """

    def __init__(
        self,
        grid: NDArray[np.uint8],
        bias: NDArray[np.int8],
        hessian: NDArray[np.float32],
        factor: NDArray[np.float32],
    ) -> None:
        self._grid, self._hessian, self._factor = grid, hessian, factor
        self._values = (INTEGERS[grid] / 16).astype(np.float32)
        self._scale = np.ldexp(np.float32(1), bias.astype(np.int32))
        self._bits = np.zeros(len(grid), np.float32)
        self._prices = np.zeros(len(bias), np.float32)
        self._ranks = np.zeros((len(bias), len(factor)), np.int16)

    def set_price(self, price: float, codes: NDArray[np.uint8], span: int) -> None:
        """From now on bits cost something, as many as the best code for ``codes`` has."""
        table = golden.code.fit(golden.code.histogram(codes, span))
        # What has no codeword would need a longer code than all that have one.
        self._bits[:] = golden.code.MAX_LENGTH + 2
        self._bits[: table.size] = table.bits
        step = self._scale * self._values[1]
        pivot = np.exp(-np.log(self._factor.diagonal()).mean())
        self._prices = (price * (step * pivot) ** 2).astype(np.float32)

    def pass_errors_on(self, wanted: NDArray[np.float32]) -> None:
        """Round column by column."""
        from rf8.quantize import kernels

        kernels.pass_errors_on(
            wanted, self._factor, self._scale, self._values, self._bits, self._prices, self._ranks
        )

    def descend(self, wanted: NDArray[np.float32]) -> None:
        """A sweep of coordinate descent."""
        from rf8.quantize import kernels

        gradient = (wanted - self._rounded()) @ self._hessian
        kernels.descend(
            gradient, self._hessian, self._scale, self._values, self._bits, self._prices,
            self._ranks,
        )  # fmt: skip

    def _rounded(self) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self._values[np.abs(self._ranks)] * self._scale[:, None]
        return np.where(self._ranks < 0, -values, values)

    def codes(self) -> NDArray[np.uint8]:
        """The codes, [N, K]."""
        found: NDArray[np.uint8] = self._grid[np.abs(self._ranks)]
        return found | np.where(self._ranks < 0, np.uint8(0x80), np.uint8(0))


@torch.no_grad()
def shifted_target(
    weight: Tensor, hessian: Tensor, cross: Tensor, residual: Tensor | None = None
) -> Tensor:
    """The matrix that, on the inputs x of the rounded model, best gives what ``weight`` gives on
    the inputs z of the float model.

    ``T = W + (W (C - H) + R) (H + mu I)^-1`` minimises ``sum |W z + r - T x|^2`` plus a pull
    towards W of strength mu, the mean diagonal of H. The pull keeps some ten thousand tokens from
    being learnt by heart; a tenth of it fits them better and other text worse.

    weight: W, [N, K]. hessian: ``H = sum x x^T``. cross: ``C = sum z x^T``, both [K, K].
    residual: ``R = sum r x^T`` [N, K], with r what the rounded model's residual stream lacks where
    this layer adds to it; None where it does not.
    """
    shift = weight.double() @ (cross - hessian).double()
    if residual is not None:
        shift += residual.double()
    pulled = hessian.double().clone()
    pulled.diagonal().add_(pulled.diagonal().mean())
    # Symmetric, so that solving from the left is solving from the right.
    change: Tensor = torch.linalg.solve(pulled, shift.T).T
    return weight + change.float()

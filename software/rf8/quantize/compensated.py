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

import torch
from torch import Tensor

from golden.format_torch import decode, encode, row_bias

BLOCK = 64  # columns whose errors are passed on one by one; beyond them by one matrix product
ROWS = 8192  # rows at a time, as the output head of a model has many

DAMPING = 0.01  # of the mean diagonal of H, added to it: keeps the inverse well-behaved
SWEEPS = 2  # of coordinate descent; docs/decisions/0004 has what they gain


def round_to_rf8(values: Tensor, bias: Tensor, span: int = 16) -> Tensor:
    """The RF8 values nearest to ``values`` [N, K] under row biases int [N, 1]."""
    return decode(encode(values, bias, nonfinite="saturate", span=span), bias)


@torch.no_grad()
def compensate(
    weight: Tensor, hessian: Tensor, *, target: Tensor | None = None, span: int = 16
) -> tuple[Tensor, Tensor]:
    """Round ``weight`` to RF8 so that (1) is small.

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
    biases = row_bias(weight)
    # Columns with the largest inputs first: the rest then makes good for their errors.
    order = torch.argsort(hessian.diagonal(), descending=True)
    damped = hessian[order][:, order].double()
    damped.diagonal().add_(DAMPING * mean)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    damped = damped.float()
    source = weight if target is None else target
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    for first in range(0, len(weight), ROWS):
        rows = slice(first, first + ROWS)
        bias = biases[rows, None].int()
        wanted = source[rows][:, order].float()
        rounded = _pass_errors_on(wanted, factor, bias, span)
        for _ in range(SWEEPS):
            _descend(wanted, rounded, damped, bias, span)
        codes[rows, order] = encode(rounded, bias, span=span)
    return codes, biases


def _pass_errors_on(wanted: Tensor, factor: Tensor, bias: Tensor, span: int) -> Tensor:
    """Round [N, K] column by column; ``factor`` is the upper Cholesky factor of H's inverse."""
    left = wanted.clone()
    rounded = torch.empty_like(left)
    columns = wanted.shape[1]
    for first in range(0, columns, BLOCK):
        end = min(first + BLOCK, columns)
        errors = torch.empty(len(left), end - first)
        for k in range(first, end):
            column = left[:, k : k + 1]
            rounded[:, k : k + 1] = round_to_rf8(column, bias, span)
            error = (column - rounded[:, k : k + 1]) / factor[k, k]
            errors[:, k - first : k - first + 1] = error
            left[:, k + 1 : end] -= error * factor[k : k + 1, k + 1 : end]
        left[:, end:] -= errors @ factor[first:end, end:]
    return rounded


def _descend(wanted: Tensor, rounded: Tensor, hessian: Tensor, bias: Tensor, span: int) -> None:
    """One sweep of coordinate descent on (1) over the columns of ``rounded``, in place."""
    gradient = (wanted - rounded) @ hessian  # minus half the derivative of (1)
    columns = wanted.shape[1]
    for first in range(0, columns, BLOCK):
        end = min(first + BLOCK, columns)
        before = rounded[:, first:end].clone()
        near = gradient[:, first:end].clone()
        for k in range(first, end):
            column = rounded[:, k : k + 1]
            best = column + near[:, k - first : k - first + 1] / hessian[k, k]
            change = round_to_rf8(best, bias, span) - column
            column += change
            near -= change * hessian[k : k + 1, first:end]
        gradient -= (rounded[:, first:end] - before) @ hessian[first:end]


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

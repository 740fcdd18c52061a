"""Weights on the levels of `golden.code`: what their bits are, and rounding to them directly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import golden.code
from golden.format import INTEGERS
from rf8.checkpoint.model import Float, Model, RF8Tensor
from rf8.errors import DataError
from rf8.graph.ir import Graph, Linear
from rf8.progress import Progress
from rf8.quantize.rounding import quantize_matrix

RATED = ("rated", "nearest-rated")
"""Methods, as checkpoints have them, whose linear layers are levels of `golden.code`."""

SAMPLE = 64  # rows of a matrix by which bits are foretold


class Coded(NamedTuple):
    """A matrix of ``size`` weights on levels. ``bits``: of a weight, coded by the best table, with
    that and a byte for each row's bias. ``entropy``: the least that any code of single weights
    has."""

    bits: float
    entropy: float
    size: int


def coded_bits(matrix: RF8Tensor, span: int) -> Coded:
    """What a matrix of levels takes.

    Raises
    ------
    ValueError
        Where a code is no level of the span.
    """
    counts = golden.code.histogram(matrix.codes, span)
    rows, columns = matrix.codes.shape
    size = golden.code.fit(counts).size_of(counts)
    beside = 8 * rows + 8 * (golden.code.MAX_LENGTH + 1)
    return Coded((size + beside) / (rows * columns), entropy(counts), rows * columns)


def sampled(matrix: Float) -> NDArray[np.int64]:
    """Rows of a matrix that stand for all of them."""
    rows = len(matrix)
    return np.linspace(0, rows - 1, min(rows, SAMPLE)).astype(np.int64)


def row_biases(wanted: float, worth: NDArray[np.float64]) -> NDArray[np.int8]:
    """Row biases whose mean is ``wanted``: two neighbouring ones, the finer for the rows that are
    ``worth`` most, [N]."""
    bias = np.full(len(worth), np.floor(wanted))
    coarse = round((wanted - np.floor(wanted)) * len(worth))
    bias[np.argsort(worth, kind="stable")[:coarse]] += 1
    found: NDArray[np.int8] = np.clip(bias, -128, 127).astype(np.int8)
    return found


def nearest(weights: Float, bias: NDArray[np.int8], span: int) -> NDArray[np.uint8]:
    """The codes of the levels nearest to ``weights`` [N, K] under row biases [N]."""
    codes = golden.code.levels(span)
    values = (INTEGERS[codes] / 16).astype(np.float32)
    scaled = np.abs(weights) * np.ldexp(np.float32(1), -bias.astype(np.int32))[:, None]
    found = codes[np.searchsorted((values[1:] + values[:-1]) / 2, scaled)]
    negative = (weights < 0) & (found > 0)
    return found | np.where(negative, np.uint8(0x80), np.uint8(0))


def linear_weights(graph: Graph) -> list[str]:
    """Names of the matrices that linear layers multiply by."""
    linears = (op for op in graph.ops if isinstance(op, Linear))
    return [weight for op in linears for weight, _, _ in op.parts]


def rounded_to_levels(model: Model) -> dict[str, Coded]:
    """Of a model that was rounded with a rate: what each matrix of its linear layers takes, by
    name. Of others: nothing."""
    if model.method not in RATED or model.span is None:
        return {}
    matrices = {name: model.tensors[name] for name in linear_weights(model.graph)}
    return {n: coded_bits(t, model.span) for n, t in matrices.items() if isinstance(t, RF8Tensor)}


def coded_mean(found: Iterable[Coded]) -> float:
    """Bits of a weight in the mean of one matrix or more."""
    total = size = 0.0
    for one in found:
        total += one.bits * one.size
        size += one.size
    return total / size


def quantize_nearest(
    model: Model, bits: float, *, span: int = 16, progress: Progress = lambda *_: None
) -> Model:
    """A float model rounded to the nearest levels, at about ``bits`` a weight of linear layers.

    The step of a matrix is in one proportion to its deviation for the whole model; its larger rows
    have the finer one of two grids. Embeddings that are no head get eight bits.

    Raises
    ------
    DataError
        For an RF8 model, or bits that cannot be had.
    """
    if model.span is not None:
        raise DataError(f"{model.name} is RF8 already: rounding with a rate needs the float model")
    names = linear_weights(model.graph)
    powers: dict[str, float] = {}
    sizes: dict[str, NDArray[np.float64]] = {}
    for name in names:
        sizes[name] = np.square(model.float_tensor(name), dtype=np.float64).mean(axis=1)
        if not sizes[name].any():
            raise DataError(f"{name} is all zeros: it has no step")
        deviation = 0.5 * float(np.log2(sizes[name].mean()))
        powers[name] = deviation - golden.code.unit_exponent(span)

    def coded(name: str, ratio: float, chosen: slice | NDArray[np.int64]) -> RF8Tensor:
        bias = row_biases(powers[name] + ratio, sizes[name])[chosen]
        return RF8Tensor(nearest(model.float_tensor(name)[chosen], bias, span), bias)

    def mean(ratio: float) -> float:
        total = size = 0.0
        for name in names:
            matrix = model.float_tensor(name)
            total += about_bits(coded(name, ratio, sampled(matrix)), span) * matrix.size
            size += matrix.size
        return total / size

    ratio = at_bits(mean, bits, 2.0 - bits)
    tensors: dict[str, Float | RF8Tensor] = dict(model.tensors)
    for number, name in enumerate(matrices := model.matrices()):
        progress(name, number, len(matrices))
        if name in powers:
            tensors[name] = coded(name, ratio, slice(None))
        else:
            tensors[name] = quantize_matrix(model.float_tensor(name), span=span)
    return replace(model, tensors=tensors, span=span, method=RATED[1])


def at_bits(mean: Callable[[float], float], bits: float, start: float) -> float:
    """Where ``mean``, which falls by about 1 where its argument grows by 1, is ``bits``, or as near
    as steps that are powers of two allow.

    Raises
    ------
    DataError
        Where it is nowhere.
    """
    tried: list[tuple[float, float, float]] = []  # how far off, where, what was found
    at = start
    for _ in range(16):
        found = mean(at)
        tried.append((abs(found - bits), at, found))
        if tried[-1][0] < 0.005:
            break
        at += float(np.clip(found - bits, -2, 2))
    off, at, found = min(tried)
    if off > 0.3:
        raise DataError(
            f"--bits is {bits:g}, and cannot be had: the nearest that was found is {found:.2f} "
            "(1.1 to 7 is what most models allow)"
        )
    return at


def about_bits(matrix: RF8Tensor, span: int) -> float:
    """About what `coded_bits` has of a matrix, of which these are some rows: codewords have whole
    bits, one at least, and that costs a hundredth."""
    counts = golden.code.histogram(matrix.codes, span)
    return float(max(1.0, 1.01 * entropy(counts)) + 8 / matrix.codes.shape[1])


def entropy(counts: NDArray[np.int64]) -> float:
    """Bits of a weight whose rank occurs ``counts`` times, with its sign, as no code can better."""
    from rf8.gg.rate import entropy_of  # it imports torch

    return entropy_of(counts) + float(1 - counts[0] / counts.sum())

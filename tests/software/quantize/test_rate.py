"""Rounding with a rate. Seeds are fixed."""

import numpy as np
import pytest
import torch

import rf8
from golden.code import fit, histogram, levels
from golden.format import INTEGERS, decode
from rf8.checkpoint.families import FAMILIES
from rf8.checkpoint.huggingface import from_transformers, to_transformers
from rf8.checkpoint.model import RF8Tensor
from rf8.errors import DataError
from rf8.evaluation.samples import sample
from rf8.graph.ir import Linear
from rf8.quantize.calibrated import quantize_compensated
from rf8.quantize.compensated import PRICE, Grid, compensate
from rf8.quantize.fold import fold
from rf8.quantize.levels import coded_bits, coded_mean, nearest, quantize_nearest, rounded_to_levels
from rf8.quantize.rate import Rate
from rf8.quantize.survey import survey

IDS = torch.randint(101, (30 * 24,), generator=torch.Generator().manual_seed(5))


def random(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(tokens, width):
    mix = random(width, width, seed=4) / width**0.5 + torch.eye(width)
    return random(tokens, width, seed=5) @ mix @ mix


@pytest.mark.parametrize("span", [16, 8])
def test_levels_under_a_rate_cost_less_than_the_nearest_ones(span):
    weight, inputs = random(33, 70), correlated(400, 70)
    hessian = inputs.T @ inputs
    unit = levels(span)[1]
    bias = np.full(33, -2 - int(np.log2(INTEGERS[unit] / 16)), np.int8)  # steps of 1/4
    codes, found = compensate(weight, hessian, span=span, grid=Grid(bias, PRICE))
    assert (found.numpy() == bias).all()
    plain = nearest(weight.numpy(), bias, span)

    def both(coded):
        error = (weight - torch.from_numpy(decode(coded, bias[:, None]))).double()
        counts = histogram(coded, span)  # raises where a code is no level
        return float(((error @ hessian.double()) * error).sum()), fit(counts).size_of(counts)

    (error, bits), (error_plain, bits_plain) = both(codes.numpy()), both(plain)
    assert error < 0.6 * error_plain and bits < bits_plain


def test_more_of_a_price_makes_fewer_bits():
    weight, inputs = random(40, 50), correlated(300, 50)
    bias, sizes = np.full(40, -3, np.int8), []
    for price in (0.0, PRICE, 10 * PRICE, 1000 * PRICE):
        codes, _ = compensate(weight, inputs.T @ inputs, grid=Grid(bias, price))
        sizes.append(coded_bits(RF8Tensor(codes.numpy(), bias), 16).entropy)
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.5 * sizes[0]


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_is_rounded_to_the_bits_that_are_asked_for(kind):
    module = sample(kind)
    result, reports = quantize_compensated(from_transformers(module, kind), IDS, bits=4.0)
    assert result.method == "rated"
    bits = {r.name: r.bits for r in reports if r.bits is not None}
    sizes = {name: result.tensors[name].codes.size for name in bits}
    assert coded_mean(rounded_to_levels(result).values()) == pytest.approx(4.0, abs=0.2)
    mean = sum(bits[n] * size for n, size in sizes.items()) / sum(sizes.values())
    assert mean == pytest.approx(coded_mean(rounded_to_levels(result).values()))
    for report in reports:
        if report.bits is not None:
            assert report.entropy <= report.bits
            histogram(result.tensors[report.name].codes, 16)  # raises unless all are levels
    ids = IDS[None, :20]
    with torch.no_grad():
        found, exact = to_transformers(result)(ids).logits, module(ids).logits
    assert np.corrcoef(found.flatten(), exact.flatten())[0, 1] > 0.9
    # It is a model like others: the machine runs it.
    rf8.compile(result, config="tiny", context=4)


@pytest.mark.parametrize("bits", [0.2, 9.5])
def test_bits_that_cannot_be_had(bits):
    model = from_transformers(sample("llama"), "llama")
    with pytest.raises(DataError, match=f"--bits is {bits}, and cannot be had"):
        quantize_compensated(model, IDS, bits=bits)
    with pytest.raises(DataError, match=f"--bits is {bits}, and cannot be had"):
        quantize_nearest(model, bits)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_steps_follow_the_price_once_factors_are_folded(kind):
    """The step of a matrix over what the rule makes of it: 1 where a factor was free, and within a
    root of two elsewhere. Folding changes what errors cost as much as it changes weights."""
    model = from_transformers(sample(kind), kind)
    price = 1e-7
    rate = Rate(model, survey(model, IDS[:96].view(4, 24)), 16, price)
    found = survey(fold(model, rate.scales), IDS[:96].view(4, 24))
    exact = 0
    for op in model.graph.ops:
        if isinstance(op, Linear):
            pivot = np.exp(np.log(found.pivots[op.x]).mean())
            for weight, _, _ in op.parts:
                step = 2.0 * np.exp2(rate.grid(weight).bias.astype(float)).mean()
                ideal = np.sqrt(price / PRICE / found.worth[weight].mean()) / pivot
                fused = "c_attn" in weight  # a part of its rows is multiplied
                assert abs(np.log2(step / ideal)) < (0.85 if fused else 0.505)
                exact += abs(np.log2(step / ideal)) < 0.01
    assert exact >= 4

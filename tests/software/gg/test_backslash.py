"""BackSlash against its equations, worked by hand and by autograd, and on two processes."""

import math

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from rf8 import gg
from rf8.gg.backslash import BackSlash
from rf8.gg.fit import shape_of_ratio


def added(parameters, weight=1.0, **options):
    """What BackSlash adds to gradients of zero."""
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    rate = BackSlash(optimizer, weight, **options)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    return [p.grad for p in parameters], rate


def test_worked_by_hand():
    """Equal magnitudes are as flat as can be, so v = 2; with epsilon = 1 all r are 2.

    bits: 1 * 2^1 / (4 ln 2 * 2^2) = 1 / (8 ln 2); power: 2 * 2^1 / 4 = 1.
    """
    weight = nn.Parameter(torch.tensor([[1.0, -1.0], [1.0, -1.0]]))
    sign = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    (bits,), rate = added([weight], 3.0, epsilon=1.0)
    assert rate.shapes == [2.0]
    torch.testing.assert_close(bits, 3 * sign / (8 * math.log(2)))
    (power,), _ = added([weight], 3.0, epsilon=1.0, penalty="power")
    torch.testing.assert_close(power, 3 * sign)


@pytest.mark.parametrize("penalty", ["bits", "power"])
def test_is_the_derivative_of_the_rate(penalty):
    generator = torch.Generator().manual_seed(1)
    weights = [
        nn.Parameter(gg.sample((30, 40), shape, 0.1, generator=generator)) for shape in (0.6, 1.4)
    ]
    found, rate = added(weights, 0.7, penalty=penalty, epsilon=0.01)
    n = sum(w.numel() for w in weights)
    total = torch.zeros((), dtype=torch.float64)
    copies = [w.detach().double().requires_grad_() for w in weights]
    for w, shape in zip(copies, rate.shapes, strict=True):
        mean = (w.abs() + 0.01).pow(shape).mean()
        bits = mean.log2() / shape if penalty == "bits" else mean
        total = total + 0.7 * w.numel() / n * bits
    total.backward()
    for w, g in zip(copies, found, strict=True):
        torch.testing.assert_close(g.double(), w.grad, rtol=1e-4, atol=1e-10)
    for w, shape in zip(weights, rate.shapes, strict=True):
        flat = w.detach().double()
        assert shape == pytest.approx(
            shape_of_ratio(float(flat.square().mean() / flat.abs().mean() ** 2)), rel=1e-5
        )


def test_what_is_penalised():
    matrix, bias, norm = (nn.Parameter(torch.ones(s)) for s in ((3, 3), (3,), (3, 3)))
    optimizer = torch.optim.AdamW([{"params": [matrix, bias]}, {"params": [norm], "rate": False}])
    rate = BackSlash(optimizer, 1.0)
    assert rate.parameters == [matrix]
    for p in (matrix, bias, norm):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert matrix.grad.abs().sum() > 0 and not bias.grad.any() and not norm.grad.any()
    rate.remove()
    matrix.grad.zero_()
    optimizer.step()
    assert not matrix.grad.any()


def test_schedule_and_estimates():
    weight = nn.Parameter(gg.sample((50, 50), 1.0, 1.0, generator=torch.Generator().manual_seed(2)))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    rate = BackSlash(optimizer, lambda step: float(step), every=3)
    grads, shapes = [], []
    for step in range(4):
        if step == 1:
            with torch.no_grad():
                weight.pow_(3)  # seen at step 3
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        grads.append(float(weight.grad.abs().sum()))
        shapes.append(rate.shapes[0])
    assert grads[0] == 0 and grads[2] == pytest.approx(2 * grads[1], rel=1e-6)
    assert shapes[0] == shapes[1] == shapes[2] and shapes[3] < shapes[0] / 2


def train(weight, steps, state=None):
    parameter = nn.Parameter(weight.clone())
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    rate = BackSlash(optimizer, lambda step: 0.1 * step, every=4)
    if state is not None:
        rate.load_state_dict(state)
    for _ in range(steps):
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    return parameter.detach(), rate


def test_state_goes_on():
    start = gg.sample((20, 20), 1.2, 0.1, generator=torch.Generator().manual_seed(3))
    whole, _ = train(start, 9)
    half, rate = train(start, 5)
    rest, _ = train(half, 4, rate.state_dict())
    assert (whole == rest).all()
    with pytest.raises(ValueError, match="state is of 2 parameters, not 1"):
        rate.load_state_dict({"step": 1, "shapes": [1.0, 1.0]})


def test_training_lowers_the_rate():
    """Least squares with few true weights: the others go to zero, the rate falls."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(400, 50, generator=generator)
    true = torch.zeros(50, 1)
    true[:5] = 1.0
    y = x @ true + 0.5 * torch.randn(400, 1, generator=generator)
    levels = {}
    for strength in (0.0, 0.3):
        weight = nn.Parameter(0.1 * torch.randn(50, 1, generator=generator))
        optimizer = torch.optim.Adam([weight], lr=0.01)
        BackSlash(optimizer, strength)
        for step in range(600):
            optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 600)
            optimizer.zero_grad()
            (x @ weight - y).square().mean().backward()
            optimizer.step()
        levels[strength] = float(weight.detach()[5:].abs().mean())
        assert float((weight.detach()[:5] - 1).abs().max()) < 0.3
    assert levels[0.3] < 0.3 * levels[0.0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every is 0"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"penalty": "rate"}, "penalty is 'rate'"),
    ],
)
def test_refusals(options, words):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2, 2))], lr=0.1)
    with pytest.raises(ValueError, match=words):
        BackSlash(optimizer, 1.0, **options)
    with pytest.raises(ValueError, match="no parameter of two dimensions"):
        BackSlash(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1), 1.0)


def test_steps_that_cannot_be_served():
    weight = nn.Parameter(torch.ones(3, 3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    rate = BackSlash(optimizer, 1.0)
    weight.grad = torch.zeros(3, 3)
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)
    rate.weight = -1.0
    with pytest.raises(ValueError, match=r"weight at step 0 is -1\.0"):
        optimizer.step()
    rate.weight = 1.0
    weight.grad = torch.zeros(3, 3).to_sparse()
    with pytest.raises(ValueError, match="sparse gradient"):
        optimizer.step()
    assert (weight == 1).all()


def test_frozen_parameters_do_not_count():
    generator = torch.Generator().manual_seed(6)
    free, frozen = (nn.Parameter(torch.randn(4, 4, generator=generator)) for _ in range(2))
    (alone,), _ = added([free])
    frozen.requires_grad_(False)
    optimizer = torch.optim.SGD([free, frozen], lr=0.0)
    BackSlash(optimizer, 1.0)
    free.grad = torch.zeros_like(free)
    optimizer.step()
    assert (free.grad == alone).all()


def steps(weights, sharded):
    parameters = [nn.Parameter(w.clone()) for w in weights]
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    BackSlash(optimizer, 0.3, every=2, sharded=sharded)
    for _ in range(5):
        for p in parameters:
            p.grad = 0.01 * p.detach()
        optimizer.step()
    return [p.detach() for p in parameters]


def matrices():
    generator = torch.Generator().manual_seed(5)
    return [gg.sample((8, 6), v, 0.1, generator=generator) for v in (0.7, 1.5)]


def work(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    whole = matrices()
    same = steps(whole, sharded=False)
    part = steps([w.chunk(2)[rank] for w in whole], sharded=True)
    torch.save((same, part), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes(tmp_path):
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    alone = steps(matrices(), sharded=False)
    (same0, part0), (same1, part1) = (torch.load(tmp_path / f"{k}.pt") for k in range(2))
    for a, b, c, d, e in zip(alone, same0, same1, part0, part1, strict=True):
        assert (b == c).all()
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-8)
        # Weights next to zero see a steep slope, which enlarges last bits of pow.
        torch.testing.assert_close(torch.cat([d, e]), a, rtol=1e-5, atol=1e-6)

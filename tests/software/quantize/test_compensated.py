"""Error-compensated rounding. Seeds are fixed."""

import json

import pytest
import tiny_models
import torch

import rf8
from golden.format import INTEGERS
from golden.format_torch import decode, is_valid, row_bias
from rf8.checkpoint.model import RF8Tensor
from rf8.errors import DataError
from rf8.quantize import compensated
from rf8.quantize.calibrated import quantize_compensated
from rf8.quantize.compensated import compensate, round_to_rf8, shifted_target

GENERATOR = torch.Generator()


@pytest.fixture(autouse=True)
def same_numbers():
    GENERATOR.manual_seed(20240611)


def correlated(tokens, width):
    """Inputs whose elements depend on each other, as those of real layers do."""
    mix = torch.randn(width, width, generator=GENERATOR) / width**0.5 + torch.eye(width)
    return torch.randn(tokens, width, generator=GENERATOR) @ mix @ mix


def loss(weight, values, hessian):
    left = (weight - values).double()
    return float(((left @ hessian.double()) * left).sum())


@pytest.mark.parametrize("span", [16, 8])
@pytest.mark.parametrize("shape", [(7, 5), (33, 70), (3, 129)])
def test_output_error_is_below_that_of_rounding(shape, span):
    weight = torch.randn(shape, generator=GENERATOR)
    inputs = correlated(400, shape[1])
    hessian = inputs.T @ inputs
    codes, bias = compensate(weight, hessian, span=span)
    assert is_valid(codes).all() and (bias == row_bias(weight)).all()
    assert ((codes == 0) | (codes >> 3 & 15 >= 16 - span)).all()
    wide = bias[:, None].int()
    nearest = loss(weight, round_to_rf8(weight, wide, span), hessian)
    assert loss(weight, decode(codes, wide), hessian) < 0.8 * nearest


def test_uncorrelated_inputs_round_to_nearest():
    weight = torch.randn(9, 20, generator=GENERATOR)
    codes, bias = compensate(weight, torch.diag(torch.arange(1.0, 21)))
    assert (decode(codes, bias[:, None].int()) == round_to_rf8(weight, bias[:, None].int())).all()


def test_no_single_weight_can_be_improved(monkeypatch):
    """After enough sweeps the result is a local minimum: checked against every other code."""
    weight = torch.randn(4, 12, generator=GENERATOR)
    inputs = correlated(100, 12)
    hessian = inputs.T @ inputs
    monkeypatch.setattr(compensated, "SWEEPS", 50)
    codes, bias = compensate(weight, hessian)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(12)
    values = decode(codes, bias[:, None].int())
    best = loss(weight, values, damped)
    levels = torch.tensor(sorted({int(w) for w in INTEGERS})) / 16
    for row in range(4):
        for k in range(12):
            for level in levels * 2.0 ** int(bias[row]):
                other = values.clone()
                other[row, k] = level
                assert loss(weight, other, damped) >= best * (1 - 1e-4)


def test_shifted_target_restores_outputs():
    """With many tokens and inputs that differ by a linear map, the shift undoes most of it."""
    weight = torch.randn(6, 10, generator=GENERATOR)
    z = torch.randn(5000, 10, generator=GENERATOR) * 3
    x = z + 0.2 * torch.roll(z, 1, dims=1)
    target = shifted_target(weight, x.T @ x, z.T @ x)
    before = (z @ weight.T - x @ weight.T).square().sum()
    assert (z @ weight.T - x @ target.T).square().sum() < 0.5 * before
    same = shifted_target(weight, x.T @ x, x.T @ x)
    assert torch.allclose(same, weight)


@pytest.mark.parametrize("hessian", [torch.zeros(4, 4), torch.full((4, 4), torch.nan)])
def test_bad_hessian(hessian):
    with pytest.raises(ValueError, match="no finite, non-zero Hessian"):
        compensate(torch.ones(2, 4), hessian)


@pytest.fixture(scope="module", params=["gpt2", "gpt2-untied", "llama", "llama-tied"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    kind, _, tied = request.param.partition("-")
    changes = {"tie_word_embeddings": tied == "tied"} if tied else {}
    getattr(tiny_models, kind)(**changes).save_pretrained(folder)
    return rf8.load_model(folder)


def text(tokens):
    return torch.randint(101, (tokens,), generator=torch.Generator().manual_seed(5))


def test_whole_model(model, tmp_path):
    steps = []
    result, reports = quantize_compensated(
        model, text(40 * 24 + 5), progress=lambda *step: steps.append(step)
    )
    assert result.span == 16 and result.method == "compensated"
    assert [s[1:] for s in steps] == [(0, 3), (1, 3), (2, 3)]
    matrices = set(model.matrices())
    assert {r.name for r in reports} == matrices
    for name, tensor in result.tensors.items():
        assert isinstance(tensor, RF8Tensor) == (name in matrices)
    mean = [sum(e) / len(e) for e in zip(*((r.output_error, r.nearest_error) for r in reports
            if r.output_error is not None), strict=True)]  # fmt: skip
    assert mean[0] < mean[1]
    result.save(tmp_path / "q")
    assert rf8.load_model(tmp_path / "q").method == "compensated"


def test_interrupted_run_goes_on(model, tmp_path):
    ids, state = text(30 * 24), tmp_path / "state"
    whole, _ = quantize_compensated(model, ids)

    def stop(name, number, total):
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_compensated(model, ids, state=state, progress=stop)
    assert len(list(state.glob("*.safetensors"))) == 2
    with pytest.raises(DataError, match="interrupted run with another span"):
        quantize_compensated(model, ids, state=state, span=8)
    with pytest.raises(DataError, match="interrupted run with another text"):
        quantize_compensated(model, ids.flip(0), state=state)
    done = {p: p.stat().st_mtime_ns for p in state.glob("*.safetensors")}
    again, _ = quantize_compensated(model, ids, state=state)
    assert done == {p: p.stat().st_mtime_ns for p in done}
    for name, tensor in whole.tensors.items():
        if isinstance(tensor, RF8Tensor):
            assert (tensor.codes == again.tensors[name].codes).all()
    broken = next(iter(done))
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(DataError, match="is broken"):
        quantize_compensated(model, ids, state=state)


def test_bad_calibration(model, tmp_path):
    with pytest.raises(DataError, match=r"has 23 tokens, a window of .* has 24: give a longer"):
        quantize_compensated(model, text(23))
    with pytest.raises(DataError, match="token 500 is not in the vocabulary"):
        quantize_compensated(model, torch.full((24,), 500))
    with pytest.raises(DataError, match="is RF8 already"):
        quantize_compensated(rf8.quantize(model), text(24))
    (tmp_path / "other").write_text(json.dumps({}))
    with pytest.raises(DataError, match="holds other files"):
        quantize_compensated(model, text(24), state=tmp_path)

import pytest
import torch

from rf8.checkpoint.huggingface import from_transformers
from rf8.checkpoint.model import RF8Tensor
from rf8.errors import DataError
from rf8.evaluation.samples import sample
from rf8.quantize.calibrated import quantize_compensated

IDS = torch.randint(101, (30 * 24,), generator=torch.Generator().manual_seed(5))


def test_interrupted_run_goes_on(tmp_path):
    model, state = from_transformers(sample("qwen2"), "qwen2"), tmp_path / "state"
    whole, _ = quantize_compensated(model, IDS, bits=3.5)

    def stop(name, number, total):
        if name == "layers.1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_compensated(model, IDS, bits=3.5, state=state, progress=stop)
    assert (state / "survey.npz").exists()
    with pytest.raises(DataError, match="interrupted run with another bits"):
        quantize_compensated(model, IDS, bits=3.0, state=state)
    with pytest.raises(DataError, match="interrupted run with another bits"):
        quantize_compensated(model, IDS, state=state)
    again, _ = quantize_compensated(model, IDS, bits=3.5, state=state)
    for name, tensor in whole.tensors.items():
        other = again.tensors[name]
        if isinstance(tensor, RF8Tensor):
            assert (tensor.codes == other.codes).all() and (tensor.bias == other.bias).all()
        else:
            assert (tensor == other).all()
    (state / "survey.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match="is broken"):
        quantize_compensated(model, IDS, bits=3.5, state=state)

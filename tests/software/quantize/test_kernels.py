import numpy as np
import torch

from golden.code import steps
from rf8.quantize import kernels


def test_compiled_loop_is_what_it_says():
    """Column by column, in plain Python: the same ranks, but where two cost the same."""
    numbers = torch.Generator().manual_seed(3)
    wanted = torch.randn(11, 17, generator=numbers).numpy()
    mix = torch.randn(17, 17, generator=numbers) + 3 * torch.eye(17)
    inputs = (torch.randn(200, 17, generator=numbers) @ mix).double()
    factor = torch.linalg.cholesky(torch.linalg.inv(inputs.T @ inputs), upper=True)
    factor = factor.float().numpy()
    values = steps(16).astype(np.float32)
    scale = np.full(11, 0.3, np.float32)
    bits = np.linspace(1, 15, len(values)).astype(np.float32)
    prices = np.full(11, 0.05, np.float32) / factor.diagonal().mean() ** 2
    found = np.zeros((11, 17), np.int16)
    kernels.pass_errors_on(wanted, factor, scale, values, bits, prices, found)
    left, expected = wanted.astype(np.float64), np.zeros_like(found)
    for row in range(11):
        for k in range(17):
            error = np.abs(left[row, k]) - values * 0.3
            cost = (error / factor[k, k]) ** 2 + prices[row] * bits
            near = int(np.abs(error).argmin())
            allowed = sorted({near, max(near - 1, 0), max(near - 2, 0), 0})
            rank = min(allowed, key=lambda r: cost[r])
            sign = -1 if left[row, k] < 0 else 1
            expected[row, k] = sign * rank
            passed = (left[row, k] - sign * values[rank] * 0.3) / factor[k, k]
            left[row, k + 1 :] -= passed * factor[k, k + 1 :]
    assert (found == expected).mean() > 0.98

"""The testbenches under pytest: each is built and run as ``python -m sim.benches`` does it."""

import pytest

from sim.benches.runner import BENCHES, run_bench


@pytest.mark.parametrize("name", BENCHES)
def test_bench(name: str) -> None:
    result = run_bench(name)
    assert result.passed, f"{result.failure} (log: {result.log})"
    assert result.checks > 0

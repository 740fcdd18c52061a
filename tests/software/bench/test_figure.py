"""Figures beside their targets."""

import itertools

import pytest

from rf8.bench import figure
from rf8.bench.figure import Figure, fastest, peak_bytes


@pytest.mark.parametrize(
    ("value", "target", "better", "met"),
    [
        (2.0, 1.0, "higher", True),
        (1.0, 1.0, "higher", True),
        (0.9, 1.0, "higher", False),
        (0.9, 1.0, "lower", True),
        (1.1, 1.0, "lower", False),
        (1.1, None, "lower", None),
    ],
)
def test_whether_a_target_is_met(value, target, better, met):
    assert Figure("f", value, "s", target, better).met is met


def test_the_shortest_of_some_calls_counts(monkeypatch):
    clock = itertools.accumulate([0, 5, 1, 2, 1, 9])  # calls of 5, 2 and 9 seconds
    monkeypatch.setattr(figure.time, "perf_counter", lambda: next(clock))
    calls = []
    assert fastest(lambda: calls.append(1), 3) == 2 and len(calls) == 3


def test_peak_memory_grows_with_what_is_held():
    before = peak_bytes()
    held = b"\1" * (before + (64 << 20))
    assert peak_bytes() - before > 32 << 20 and held is not None

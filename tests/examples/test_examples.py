"""The examples run, as they are written, on the smallest machine."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
RUNS = {
    "matrix_product": ("differences          0 of 10",),
    "hand_written_program": ("differing bytes      0 of 16384", "VECTOR function=GELU"),
    "own_model": ("0 differ", "cycles per token"),
}
"""Example -> what it prints."""
OPTIONS = {"own_model": ("--steps", "30")}


def test_all_examples_are_run():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_example(name):
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--config", "tiny"]
    done = subprocess.run(
        [*command, *OPTIONS.get(name, ())], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    for text in RUNS[name]:
        assert text in done.stdout

"""Tests that need a tool which not every machine has: ``@pytest.mark.needs("iverilog")``."""

import os

import pytest

from sim.toolchain import ToolMissing, require


@pytest.hookimpl(tryfirst=True)  # before fixtures, which may need the tool, too
def pytest_runtest_setup(item):
    try:
        require(*(tool for marker in item.iter_markers("needs") for tool in marker.args))
    except ToolMissing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing} (with CI=true nothing is skipped)", pytrace=False)
        pytest.skip(str(missing))

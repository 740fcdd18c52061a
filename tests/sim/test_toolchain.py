"""Tools of the system: what is said of those that are missing, and what tests do without them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sim import toolchain
from sim.toolchain import APT_PACKAGES, NEEDED, OPTIONAL

ROOT = Path(__file__).parents[2]


def test_missing_tool_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(toolchain.ToolMissing, match=r"^g\+\+ is missing: apt-get install g\+\+$"):
        toolchain.verilator_env()


def test_headers_are_looked_for_with_the_compiler(monkeypatch, tmp_path):
    assert toolchain.is_installed("stdio.h") and not toolchain.is_installed("no_such_header.h")
    (tmp_path / "no_such_header.h").touch()
    monkeypatch.setenv("CPATH", str(tmp_path))
    assert toolchain.is_installed("no_such_header.h")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not toolchain.is_installed("stdio.h")


@pytest.mark.parametrize("absent", [[], ["g++"], ["iverilog"], ["git", "chromium", "zlib.h"]])
def test_report_of_missing_tools(monkeypatch, capsys, absent):
    monkeypatch.setattr(toolchain, "is_installed", lambda tool: tool not in absent)
    assert toolchain.main(["--tests"]) == int(any(tool in NEEDED for tool in absent))
    shown = capsys.readouterr().err.splitlines()
    kinds = [[tool for tool in absent if tool in tools] for tools in (NEEDED, OPTIONAL)]
    assert len(shown) == sum(map(bool, kinds))
    for line, tools in zip(shown, filter(None, kinds), strict=True):
        packages = " ".join(APT_PACKAGES[tool] for tool in tools)
        assert line.endswith(f": {', '.join(tools)}: apt-get install {packages}")
    assert toolchain.main([]) == int(any(tool in NEEDED for tool in absent))
    assert len(capsys.readouterr().err.splitlines()) == bool(kinds[0])


def test_it_needs_no_packages(tmp_path):
    """So that make can ask before there is an environment."""
    environment = {"PATH": str(tmp_path)}
    command = [sys.executable, "-S", "-m", "sim.toolchain", "--tests"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "missing (needed): g++, make, perl, git: apt-get install g++ make perl git"
    assert second.endswith("apt-get install iverilog chromium zlib1g-dev liblz4-dev")


TESTS = """
import pytest

@pytest.fixture
def simulator():
    raise AssertionError("without the tool, fixtures must not be made")

@pytest.mark.needs("iverilog")
def test_needs(simulator): pass

@pytest.mark.needs("{there}")
def test_there(): pass
"""


@pytest.mark.parametrize(
    ("ci", "code", "outcomes"),
    [
        ({}, 0, "1 passed, 1 skipped"),
        ({"CI": "false"}, 0, "1 passed, 1 skipped"),
        ({"CI": "true"}, 1, "1 passed, 1 error"),
    ],
)
def test_tests_without_their_tool(tmp_path, ci, code, outcomes):
    """Skipped with a reason; with CI=true they fail."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "perl").symlink_to(shutil.which("true"))
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(TESTS.replace("{there}", "perl"))
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PATH": str(bin_), "PYTHONPATH": str(ROOT), **ci}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command += [
        "-ra",
        "-o",
        "markers=needs: tools",
        "--strict-markers",
        str(tmp_path / "test_it.py"),
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout
    assert f"= {outcomes} in" in re.sub(r"\x1b\[\d+m", "", done.stdout), done.stdout
    assert "iverilog is missing: apt-get install iverilog" in done.stdout

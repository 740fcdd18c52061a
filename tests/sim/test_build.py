"""Builds of the simulator: their stages, ahead of time, and what is said of one that fails."""

import pytest

from golden.config import CONFIGS
from sim import build

TINY = CONFIGS["tiny"]


def test_stages_are_told_and_a_second_build_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("RF8_CACHE", str(tmp_path))
    stages = []
    library = build.build_library(TINY, progress=stages.append)
    names = [stage.name.split()[0] for stage in stages]
    assert names == ["generating", "verilating", "compiling"]
    assert all(stage.seconds > 0 and "config tiny" in stage.name for stage in stages)
    assert build.build_library(TINY, progress=stages.append) == library
    assert len(stages) == 3 and library.is_file()


def test_options_of_the_build_are_of_its_name(monkeypatch, tmp_path):
    monkeypatch.setenv("RF8_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "verilog_text", lambda *_: "module rf8(input x); endmodule")
    monkeypatch.setattr(build, "_build", lambda *arguments: arguments[3].touch())
    asked = []
    monkeypatch.setattr(build, "require", lambda *tools: asked.extend(tools))
    first = build.build_library(TINY)
    assert build.build_library(TINY) == first != build.build_library(TINY, trace=True)
    assert asked == ["zlib.h", "lz4.h"]  # before anything is generated
    monkeypatch.setitem(build.MAKE_VARIABLES, "OPT_FAST", "-O1")
    assert build.build_library(TINY) != first


def test_a_build_that_is_there_needs_no_lock(monkeypatch, tmp_path):
    """A cache may be given to users who may only read it."""
    monkeypatch.setenv("RF8_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "verilog_text", lambda *_: "module rf8(input x); endmodule")
    monkeypatch.setattr(build, "_build", lambda *arguments: arguments[3].touch())
    library = build.build_library(TINY)

    def denied(path):
        raise PermissionError(path)

    monkeypatch.setattr(build, "lock", denied)
    assert build.build_library(TINY) == library


def test_failed_build_names_tool_and_log_and_keeps_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("RF8_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "verilog_text", lambda *_: "module rf8(input x); garbage")
    with pytest.raises(build.BuildFailed, match=r"verilator failed: %Error.*log: .*\.log"):
        build.build_library(TINY)
    assert not list((tmp_path / "sim").glob("*.so")) and not list(tmp_path.glob("sim/build-*"))


def test_the_command_builds_or_says_why_not(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RF8_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "verilog_text", lambda *_: "module rf8(input x); garbage")
    assert build.main(["tiny"]) == 1
    assert "sim.build: verilator failed: %Error" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        build.main(["huge"])
    assert stopped.value.code == 2 and "invalid choice: 'huge'" in capsys.readouterr().err
    monkeypatch.setattr(build, "_build", lambda *arguments: arguments[3].touch())
    assert build.main(["tiny"]) == 0 and list((tmp_path / "sim").glob("tiny-*.so"))

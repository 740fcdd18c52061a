"""Stages of long work: a line each in a log, a bar on a terminal."""

import io
import re

import pytest
from rich.console import Console

from sim.stages import Stage, Stages


def test_a_log_gets_a_line_for_each_stage():
    out = io.StringIO()
    with Stages(Console(file=out)) as stages:
        stages(Stage("generating", 10))
        assert out.getvalue() == ""
        stages(Stage("compiling", 0.5))
        assert re.fullmatch(r"generating: \d+ s\n", out.getvalue())
    assert re.fullmatch(r"generating: \d+ s\ncompiling: \d+ s\n", out.getvalue())


def test_no_stages_say_nothing():
    out = io.StringIO()
    with Stages(Console(file=out)):
        pass
    assert out.getvalue() == ""


def test_a_failed_stage_is_shown_too():
    out = io.StringIO()
    with pytest.raises(RuntimeError), Stages(Console(file=out)) as stages:
        stages(Stage("compiling", 0.5))
        raise RuntimeError
    assert out.getvalue().startswith("compiling: ")


def test_a_terminal_gets_a_bar_that_goes_away():
    out = io.StringIO()
    with Stages(Console(file=out, force_terminal=True, width=80)) as stages:
        stages(Stage("generating", 10))
        stages(Stage("compiling", 40))
        stages._bar.refresh()
        assert "compiling" in out.getvalue() and "of about 40 s" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K\x1b[?25h\r")  # line erased, cursor shown
    assert "compiling: " not in out.getvalue()

"""Progress is for people at a terminal: into a log goes nothing of a bar."""

import io

from rich.console import Console
from tqdm import tqdm

from rf8 import console


def run_bar(monkeypatch, terminal):
    out = io.StringIO()
    notes = Console(file=out, force_terminal=terminal, width=80)
    monkeypatch.setattr(console, "notes", notes)
    with console.Bar("rounding") as step:
        step("h.0.mlp", 1, 2)
        step("h.1.mlp", 2, 2)
    return out.getvalue()


def test_a_terminal_sees_title_step_and_count(monkeypatch):
    shown = run_bar(monkeypatch, True)
    assert "rounding" in shown and "h.1.mlp" in shown and "2/2" in shown


def test_bars_of_libraries_are_silent(monkeypatch, capsys):
    monkeypatch.setattr(tqdm, "__init__", tqdm.__init__)
    console.silence_bars()
    assert list(tqdm(range(3), desc="theirs")) == [0, 1, 2]
    assert not any(capsys.readouterr())


def test_a_status_line_leaves_the_cursor_and_logs_alone(monkeypatch):
    def shown(terminal):
        out = io.StringIO()
        out.isatty = lambda: terminal
        monkeypatch.setattr("sys.stderr", out)
        monkeypatch.setattr(console, "notes", Console(file=out, force_terminal=True, width=20))
        line = console.StatusLine()
        line.show("first token after 0.1 s")
        line.clear()
        return out.getvalue()

    assert shown(False) == ""
    monkeypatch.setenv("TERM", "xterm")
    text = shown(True)
    assert text.startswith("\x1bD\x1bM\x1b7") and text.endswith("\x1b8\x1b[J")
    assert "first token after 0" in text and "0.1" not in text  # cut at the edge
    monkeypatch.setenv("TERM", "dumb")
    assert shown(True) == ""


def test_a_log_sees_nothing(monkeypatch):
    assert run_bar(monkeypatch, False) == ""

"""Progress is for people at a terminal: into a log goes nothing of a bar."""

import io

from rich.console import Console

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


def test_a_log_sees_nothing(monkeypatch):
    assert run_bar(monkeypatch, False) == ""

"""The command that runs benchmarks."""

import json
import sys

import pytest

from rf8.bench import __main__ as command


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["rf8.bench", *map(str, arguments)])
    return command.main()


def test_an_unknown_benchmark_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--only", "nothing")
    assert stopped.value.code == 2 and "invalid choice: 'nothing'" in capsys.readouterr().err


def test_figures_stand_beside_their_targets(monkeypatch, tmp_path, capsys):
    """The quickest benchmark, in a process of its own as all of them."""
    target = tmp_path / "bench.json"
    run(monkeypatch, "--only", "sqnr", "--output", target)
    found = json.loads(target.read_text())
    figures = found if isinstance(found, list) else found["figures"]
    assert figures and {"name", "value", "unit", "target", "met"} <= figures[0].keys()
    assert figures[0]["name"].split(",")[0] in capsys.readouterr().out

"""docs/ports.md is what `sim.ports_page` writes, and has every component of hw."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest
from amaranth.lib import wiring

from sim.ports_page import ROOT, documented, page, rows

TEXT = '''
class A:
    """One.

    Ports
    -----
    a (in, signed 4), b (out, log2(rows)): Two
        lines.
    """

B = 1
"""Two."""
C = 2
'''


def test_the_page_is_up_to_date():
    found = (ROOT / "docs" / "ports.md").read_text()
    assert found == page(), "run python -m sim.ports_page"


def test_docstrings_are_found():
    assert [name for name, _ in documented(TEXT)] == ["A", "B"]
    assert dict(documented(TEXT))["B"] == "Two."


def test_entries_are_taken_apart():
    section = dict(documented(TEXT))["A"].split("-----\n")[1]
    assert rows(section) == [
        ("a", "in, signed 4", "Two lines."),
        ("b", "out, log2(rows)", "Two lines."),
    ]
    with pytest.raises(IndexError):
        rows("no entry")


def test_every_component_is_on_the_page():
    text, found = page(), 0
    for path in sorted((ROOT / "hw").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        module = import_module(name)
        for kind, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, wiring.Component) and member.__module__ == module.__name__:
                part = text.split(f"## {Path(path).relative_to(ROOT)}\n")[1].split("\n## ")[0]
                assert f"### {kind}\n" in part
                found += 1
    assert found > 40

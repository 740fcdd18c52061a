"""Ports of all components as a page: ``python -m sim.ports_page`` writes docs/ports.md.

The page is made of the docstrings in ``hw``, of which tests compare names, directions and widths
with the hardware.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("top", "lib", "memory", "control", "matrix", "vector")
"""Parts of ``hw`` in the order of the page."""

SECTION = re.compile(r"\n(Ports|Members|Fields)\n-+\n")
NAMES = re.compile(r"([\w*]+(?:, (?:\w+|\.\.\.))*) \(((?:[^()]|\([^()]*\))+)\)")
"""Names that share their brackets, and what stands in these."""

INTRODUCTION = """\
# Ports

Made from the docstrings in `hw/` by `python -m sim.ports_page`: change them there. All that have
ports, signatures or fields are here, file by file; [hardware](hardware.md) says how they work
together.

Directions are those of the component or, of a signature, of the side that it is seen from. A width
is a number of bits, of unsigned numbers unless it says *signed*; `log2(n)` is enough bits to count
`n` things from 0 on; names are fields of `golden.config.AccelConfig`. In `code font` stands the
signature or struct that a port is made of.
"""


def documented(source: str) -> Iterator[tuple[str, str]]:
    """(name, docstring) of all classes, functions and variables of a module that have one."""
    body: list[ast.stmt | None] = [*ast.parse(source).body, None]
    for node, following in pairwise(body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node.name, text
        elif isinstance(node, ast.Assign) and isinstance(following, ast.Expr):
            target, value = node.targets[0], following.value
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                yield target.id, inspect.cleandoc(str(value.value))


def rows(section: str) -> list[tuple[str, str, str]]:
    """(name, what stands in brackets, meaning) of each entry of a section of a docstring."""
    entries: list[str] = []
    for line in section.strip().splitlines():
        if NAMES.match(line):
            entries.append(line)
        else:
            entries[-1] += " " + line.strip()
    found = []
    for entry in entries:
        head, _, meaning = entry.partition("): ")
        for names, shape in NAMES.findall(head + ")"):
            found.append((names, shape, meaning.strip()))
    return found


def _code(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _table(kind: str, section: str) -> list[str]:
    if kind == "Fields":
        lines = ["| field | bits | meaning |", "| --- | --- | --- |"]
        return lines + [f"| `{n}` | {_code(s)} | {_code(m)} |" for n, s, m in rows(section)]
    lines = [f"| {kind[:-1].lower()} | | width | meaning |", "| --- | --- | --- | --- |"]
    for names, shape, meaning in rows(section):
        direction, _, width = shape.partition(", ")
        each = names.replace(", ", "`, `").replace("`...`", "...")
        lines.append(f"| `{each}` | {direction} | {_code(width)} | {_code(meaning)} |")
    return lines


def page() -> str:
    """The text of docs/ports.md."""
    hw = ROOT / "hw"
    files = [
        path
        for room in ROOMS
        for path in ([hw / "top.py"] if room == "top" else sorted((hw / room).rglob("*.py")))
    ]
    lines = [INTRODUCTION]
    for path in files:
        parts: list[str] = []
        for name, text in documented(path.read_text()):
            about, *rest = SECTION.split(text)
            if rest:
                summary = " ".join(about.split("\n\n")[0].split())
                parts += [f"### {name}", "", _code(summary), ""]
                for kind, section in zip(rest[::2], rest[1::2], strict=True):
                    parts += [*_table(kind, section), ""]
        if parts:
            lines += [f"## {path.relative_to(ROOT)}", "", *parts]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write docs/ports.md of this checkout."""
    target = ROOT / "docs" / "ports.md"
    temporary = target.with_suffix(".new")
    temporary.write_text(page())
    temporary.replace(target)


if __name__ == "__main__":
    main()

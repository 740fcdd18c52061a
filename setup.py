"""Builds the wheel: golden, hw and sim go into the package ``rf8``, imports follow.

In the checkout and in editable installs they are packages of their own. A wheel would put their
plain names into everybody's site-packages, so there they are ``rf8.golden``, ``rf8.hw`` and
``rf8.sim``, the testbenches left out. All else is in pyproject.toml.
"""

import ast
import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PARTS = ("golden", "hw", "sim")
LEFT_OUT = "sim.benches"  # they need the checkout
PART = re.compile(rf"(?:{'|'.join(PARTS)})\b".encode())
MODULE = re.compile(rf"(?:{'|'.join(PARTS)})(?:\.\w+)+")


def is_part(module: str) -> bool:
    return module.split(".")[0] in PARTS


def move_imports(source: str, name: str) -> str:
    """``source`` with the imports of `PARTS` as imports from ``rf8``; ``name`` is for messages.

    Raises
    ------
    ValueError
        For a form that would not work from below ``rf8``; the message has its line.
    """
    lines = source.encode().splitlines(keepends=True)  # columns count bytes
    places: list[tuple[int, int, bytes]] = []  # line, column, what has to stand there
    for node in ast.walk(ast.parse(source)):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and not node.level and is_part(node.module or ""):
            places.append((node.lineno, node.col_offset, b"from "))
        elif isinstance(node, ast.Import):
            for alias in filter(lambda alias: is_part(alias.name), node.names):
                if alias.asname is None:
                    raise ValueError(
                        f"{where}: `import {alias.name}` does not work in a wheel: "
                        "write `from ... import ...` or `import ... as ...`"
                    )
                places.append((alias.lineno, alias.col_offset, b""))
        elif isinstance(node, ast.Constant) and MODULE.fullmatch(str(node.value)):
            raise ValueError(
                f"{where}: {node.value!r} names a module in a string, which does not work in a "
                "wheel: import it"
            )
    # From the back, so that columns of what is still to be done stay right.
    for number, column, before in sorted(places, reverse=True):
        line, start = lines[number - 1], column + len(before)
        if line[column:start] != before or not PART.match(line, start):
            raise ValueError(f"{name}:{number}: an import over several lines or with odd spaces")
        lines[number - 1] = line[:start] + b"rf8." + line[start:]
    return b"".join(lines).decode()


class BuildPy(build_py):
    """`build_py` that moves `PARTS` into ``rf8``."""

    def run(self):
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # of modules that are gone by now
            left = [p for p in self.packages if p != LEFT_OUT and not p.startswith(LEFT_OUT + ".")]
            self.packages = [f"rf8.{p}" if is_part(p) else p for p in left]
            self.package_dir |= {f"rf8.{part}": part for part in PARTS}
            self.package_data = {
                f"rf8.{p}" if is_part(p) else p: files for p, files in self.package_data.items()
            }
        super().run()

    def build_module(self, module, module_file, package):
        outfile, copied = super().build_module(module, module_file, package)
        if not self.editable_mode:
            path = Path(outfile)
            source = path.read_text(encoding="utf-8")
            path.write_text(move_imports(source, module_file), encoding="utf-8")
        return outfile, copied


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildPy})

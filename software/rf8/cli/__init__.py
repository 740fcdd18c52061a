"""The command ``rf8``."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Annotated, NoReturn

import typer

import rf8
from rf8.cli import (
    area,
    deepshape,
    doctor,
    evaluate,
    experiment,
    fit,
    models,
    profile,
    quantize,
    rate,
    run,
    support,
    verilog,
)
from rf8.cli.common import app
from rf8.console import notes, silence_bars
from rf8.errors import DataError, MachineStopped, Mismatch, UsageError
from sim.build import BuildFailed
from sim.cache import lend_home
from sim.rtl import SimulationHung
from sim.toolchain import ToolMissing

__all__ = [
    "app", "area", "deepshape", "doctor", "evaluate", "experiment", "fit", "main", "models",
    "profile", "quantize", "rate", "run", "support", "verilog",
]  # fmt: skip


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rf8 {rf8.__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit"
    ),
]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks")] = False,
    version: VersionOption = False,
) -> None:
    """Options of all commands; `main` reads --debug itself."""
    del debug, version


def _fail(code: int, message: str) -> NoReturn:
    notes.print(f"rf8: {' '.join(message.split())}", markup=False, soft_wrap=True)
    sys.exit(code)


def _check_text(arguments: list[str]) -> None:
    """Python passes bytes that are no UTF-8 on as lone surrogates, which nothing else takes."""
    for number, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(f"argument {number} is no UTF-8: {os.fsencode(argument)!r}") from None


def main() -> None:
    """Run the command; errors become one line and an exit code (1 data, 2 usage)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals that are not UTF-8
    silence_bars()
    lend_home()
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        _check_text(arguments)
        code = app(arguments, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (KeyboardInterrupt, typer.Abort):
        _fail(130, "interrupted")
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        if debug:
            raise
        # Errors of the option parser know how to say what is wrong.
        usage = getattr(error, "format_message", None)
        if usage is not None and not usage():
            sys.exit(2)  # the help has been printed
        if usage is not None:
            _fail(2, f"{usage()} (see rf8 --help)")
        if isinstance(error, UsageError | ValueError):
            _fail(2, str(error))
        if isinstance(error, ModuleNotFoundError):
            _fail(1, f"{error.name} is missing: pip install 'rf8[gg]' (or the extra sim for RTL)")
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _fail(1, f"the disk is full: {error.filename or 'output'}")
        if isinstance(error, OSError) and error.filename is not None:
            _fail(1, f"{str(error.filename)[:80]}: {error.strerror}")
        _fail(1, str(error) if isinstance(error, EXPECTED) else f"{error!r} (more with --debug)")


EXPECTED = (DataError, MachineStopped, Mismatch, ToolMissing, BuildFailed, SimulationHung)
"""Errors whose message says it all."""

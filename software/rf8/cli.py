"""The command ``rf8``."""

from __future__ import annotations

import errno
import json
import math
import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

import rf8
from golden.config import CONFIGS, get_config
from golden.rf8 import SPANS
from rf8.errors import DataError, UsageError
from rf8.files import replaced_file
from rf8.model import Model, RF8Tensor, is_matrix, load_model
from rf8.program import Program
from rf8.session import MachineStopped, Mismatch, Sampler, Session, Stats
from sim.build import BuildFailed
from sim.rtl import MemoryModel, SimulationHung
from sim.toolchain import ToolMissing

app = typer.Typer(
    name="rf8",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Run language models in the RF8 number format, on simulated hardware.",
    epilog="Models: a directory in Hugging Face layout, a hub name, or [bold]default[/bold].",
)
notes = Console(stderr=True, highlight=False)


class Rounding(StrEnum):
    """Rounding modes of the encoder."""

    nearest_even = "nearest_even"
    paper = "paper"


class Backend(StrEnum):
    """What runs the program."""

    rtl = "rtl"
    golden = "golden"
    both = "both"


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Directory, hub name, default")]
SpanOption = Annotated[int, typer.Option(help=f"Exponents to keep: {', '.join(map(str, SPANS))}")]
ConfigOption = Annotated[str, typer.Option(help=f"Accelerator: {', '.join(CONFIGS)}")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output")]


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


class _Bar:
    """A progress bar for work that names its steps."""

    def __init__(self, title: str) -> None:
        self._bar = Progress(
            TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
            console=notes, transient=True, disable=not notes.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> Any:
        self._bar.__enter__()
        task = self._bar.add_task("", total=None)

        def step(name: str, number: int, total: int) -> None:
            self._bar.update(task, description=name, completed=number, total=total)

        return step

    def __exit__(self, *failure: Any) -> None:
        self._bar.__exit__(*failure)


def _check_span(span: int) -> int:
    if span not in SPANS:
        raise UsageError(f"--span is {span}, must be one of {', '.join(map(str, SPANS))}")
    return span


def _quantized(model: Model, rounding: str, span: int) -> Model:
    with _Bar("quantising") as step:
        return rf8.quantize(model, rounding=rounding, span=span, progress=step)  # type: ignore[arg-type]


@app.command(
    epilog="Example: [bold]rf8 quantize openai-community/gpt2 -o gpt2-rf8[/bold]",
)
def quantize(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write")],
    rounding: Annotated[Rounding, typer.Option(help="Rounding mode")] = Rounding.nearest_even,
    span: SpanOption = 16,
    as_json: JsonOption = False,
) -> None:
    """Quantise a model to RF8 and write it in Hugging Face layout."""
    _check_span(span)
    source = load_model(model)
    result = _quantized(source, rounding.value, span)
    rows = _report(source, result)
    result.save(output)
    if as_json:
        print(json.dumps({"output": str(output), "tensors": rows}))
        return
    table = Table("tensor", "shape", "SQNR dB", "zeros %", box=None)
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        table.add_row(row["name"], shape, f"{row['sqnr_db']:.2f}", f"{row['zeros'] * 100:.2f}")
    Console(highlight=False).print(table)
    print(f"wrote {output}")


def _report(source: Model, result: Model) -> list[dict[str, Any]]:
    from rf8.quantize import sqnr_db

    rows = []
    for name, tensor in result.tensors.items():
        if isinstance(tensor, RF8Tensor):
            rows.append(
                {
                    "name": name,
                    "shape": list(tensor.codes.shape),
                    "sqnr_db": min(sqnr_db(source, result, name), 999.0),
                    "zeros": float((tensor.codes == 0).mean()),
                }
            )
    return rows


@app.command(
    name="compile",
    epilog="Example: [bold]rf8 compile gpt2-rf8 -o gpt2.rf8 --config sim[/bold]",
)
def compile_command(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Image file to write")],
    config: ConfigOption = "sim",
) -> None:
    """Compile a model to a program image. A float model is quantised on the way."""
    program = _compiled(load_model(model), config)
    program.save(output)
    print(f"wrote {output}: {program.memory_bytes / 1e6:.1f} MB of memory, config {config}")


def _compiled(model: Model, config: str) -> Program:
    target = get_config(config)
    if model.span is None:
        model = _quantized(model, "nearest_even", target.span)
    with _Bar("compiling") as step:
        return rf8.compile(model, config=target, progress=step)


@app.command(
    epilog=(
        'Example: [bold]rf8 run default --prompt "In the beginning" --backend both[/bold]. '
        "Exit codes: 0 done, 1 bad data or a difference, 2 bad usage."
    ),
)
def run(
    model_or_file: Annotated[str, typer.Argument(metavar="MODEL_OR_FILE", help="Model or image")],
    prompt: Annotated[str | None, typer.Option(help="Text to continue")] = None,
    prompt_ids: Annotated[str | None, typer.Option(help="Token ids to continue: 1,2,3")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to generate")] = 32,
    backend: Annotated[Backend, typer.Option(help="RTL simulation, golden model, or both compared")]
    = Backend.rtl,
    config: Annotated[str | None, typer.Option(help=f"Accelerator: {', '.join(CONFIGS)}")] = None,
    logits: Annotated[Path | None, typer.Option(help="Write all logits to this .npy file")] = None,
    latency: Annotated[int, typer.Option(help="Memory latency, cycles")] = 60,
    bandwidth: Annotated[float, typer.Option(help="Memory bandwidth, beats a cycle")] = 1.0,
    stalls: Annotated[float, typer.Option(help="Chance of a stall in a cycle")] = 0.0,
    temperature: Annotated[float, typer.Option(help="Sample at this temperature; 0 is greedy")]
    = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of sampling and stalls")] = 1,
    waveform: Annotated[Path | None, typer.Option(help="Write an FST waveform (slow)")] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Generate text and report what the machine did."""
    program = _program(model_or_file, config)
    ids = _prompt(program, prompt, prompt_ids)
    memory = MemoryModel(latency=latency, bandwidth=bandwidth, stalls=stalls, seed=seed)
    if seed < 0:
        raise UsageError(f"--seed is {seed}, must be 0 or more")
    choose = Sampler(temperature, seed) if temperature else None
    session = Session(
        program, backend.value, memory=memory, waveform=waveform,
        progress=lambda text: notes.print(f"[dim]{text}[/dim]"),
    )  # fmt: skip
    with session, ExitStack() as files:
        session.check_ids(ids)
        session.check_length(len(ids), max_new_tokens)
        # Opened first: hours of simulation must not end at a path that cannot be written.
        target = None if logits is None else files.enter_context(replaced_file(logits))
        rows: list[Any] = []
        text = _Text(program, quiet=as_json)
        text.show(ids)
        new = []
        keep = None if target is None else rows.append
        for token in session.stream(ids, max_new_tokens, choose=choose, on_logits=keep):
            new.append(token)
            text.show([token])
        text.end()
        if target is not None:
            values = np.concatenate(rows) if rows else session.append(ids)
            with target.open("wb") as out:
                np.save(out, (values * 2.0**-16).astype(np.float32))
        session.check_memory()
    if as_json:
        result: dict[str, Any] = {"prompt_ids": ids, "ids": new, "text": text.of(new)}
        result |= {"backend": backend.value, "config": program.config.name}
        print(json.dumps(result | {"stats": session.stats.as_dict()}))
    else:
        _summary(session.stats, backend, program, len(new))


class _Text:
    """Shows tokens as they come: as text where the model has a tokenizer, else as numbers."""

    def __init__(self, program: Program, *, quiet: bool) -> None:
        self._tokenizer, self._quiet = program.tokenizer(), quiet
        self._ids: list[int] = []
        self._shown = 0

    def of(self, ids: list[int]) -> str | None:
        return None if self._tokenizer is None else str(self._tokenizer.decode(ids))

    def show(self, ids: list[int]) -> None:
        self._ids += ids
        if self._quiet:
            return
        if self._tokenizer is None:
            print(*ids, end=" ", flush=True)
            return
        text = self.of(self._ids) or ""
        # A character may need several tokens: wait for the rest of it.
        ready = text.rstrip("\N{REPLACEMENT CHARACTER}")
        print(ready[self._shown :], end="", flush=True)
        self._shown = max(self._shown, len(ready))

    def end(self) -> None:
        if not self._quiet:
            print("\n")


def _program(model_or_file: str, config: str | None) -> Program:
    if not Path(model_or_file).is_file():
        return _compiled(load_model(model_or_file), config or "sim")
    program = Program.load(model_or_file)
    if config is not None and get_config(config) != program.config:
        raise DataError(
            f"{model_or_file} was compiled for config {program.config.name!r}, not {config!r}: "
            f"compile the model again with --config {config}"
        )
    return program


def _prompt(program: Program, text: str | None, ids: str | None) -> list[int]:
    if (text is None) == (ids is None):
        raise UsageError("give either --prompt TEXT or --prompt-ids 1,2,3")
    if ids is not None:
        try:
            return [int(part) for part in ids.split(",")]
        except ValueError:
            raise UsageError(f"--prompt-ids is {ids!r}, must be numbers like 1,2,3") from None
    tokenizer = program.tokenizer()
    if tokenizer is None:
        raise DataError(f"{program.model} has no tokenizer.json: use --prompt-ids")
    found = list(tokenizer.encode(text).ids)
    if not found:
        raise UsageError("the prompt is empty: give at least one token")
    return found


def _summary(stats: Stats, backend: Backend, program: Program, new: int) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("model", f"{program.model}, config {program.config.name}, backend {backend}")
    table.add_row("tokens", f"{stats.tokens} computed, {new} of them generated")
    rate = stats.tokens / max(stats.seconds, 1e-9)
    table.add_row("time", f"{stats.seconds:.1f} s, {rate:.2f} tokens/s")
    if stats.counters:
        table.add_row("cycles per token", f"{stats.cycles_per_token:,.0f} (linear layers, head)")
        table.add_row("bandwidth use", f"{stats.bandwidth_use:.1%} of the memory bus, weights only")
        macs = stats.counters["column_slices"] * program.config.rows
        table.add_row("MACs", f"{macs / 1e6:,.1f} M")
    if backend is Backend.both:
        table.add_row("compared with golden", f"{stats.compared:,} words")
        table.add_row("differences", f"{stats.differences}")
    Console(highlight=False).print(table)


@app.command(epilog="Example: [bold]rf8 info gpt2.rf8[/bold]")
def info(
    model_or_file: Annotated[str, typer.Argument(metavar="MODEL_OR_FILE", help="Model or image")],
    as_json: JsonOption = False,
) -> None:
    """Show what a model or a program image holds."""
    if Path(model_or_file).is_file():
        about = _about_program(Program.load(model_or_file))
    else:
        about = _about_model(load_model(model_or_file))
    if as_json:
        print(json.dumps(about))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in about.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        table.add_row(key, str(value))
    Console(highlight=False).print(table)


def _about_model(model: Model) -> dict[str, Any]:
    shapes = model.spec.shapes()
    weights = sum(math.prod(shape) for name, shape in shapes.items() if is_matrix(name))
    return {
        "model": model.name,
        "format": "float" if model.span is None else "RF8",
        "span": model.span,
        "rounding": model.rounding,
        "weights": weights,
        "shape": vars(model.spec),
        "tokenizer": "tokenizer.json" in model.files,
    }


def _about_program(program: Program) -> dict[str, Any]:
    return {
        "image": program.model,
        "config": program.config.as_dict(),
        "shape": vars(program.spec),
        "memory_bytes": program.memory_bytes,
        "sections": {
            n: f"{data.size} bytes at {at:#x}" for n, (at, data) in program.sections.items()
        },
        "kernels": len(program.kernels),
        "tokenizer": "tokenizer.json" in program.files,
    }


@app.command(epilog="Example: [bold]rf8 verilog --config ecp5 -o build/verilog[/bold]")
def verilog(
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write into")],
    config: ConfigOption = "sim",
) -> None:
    """Write the accelerator as one Verilog file."""
    from hw.top import Accelerator
    from hw.verilog import convert

    target = output / f"rf8_{config}.v"
    text = convert(Accelerator(get_config(config)), name=f"rf8_{config}")
    with replaced_file(target) as temporary:
        temporary.write_text(text)
    print(f"wrote {target}: {len(text.splitlines())} lines")


def _fail(code: int, message: str) -> NoReturn:
    notes.print(f"rf8: {' '.join(message.split())}", markup=False, soft_wrap=True)
    sys.exit(code)


def main() -> None:
    """Run the command; errors become one line and an exit code (1 data, 2 usage)."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
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
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _fail(1, f"the disk is full: {error.filename or 'output'}")
        if isinstance(error, OSError) and error.filename is not None:
            _fail(1, f"{str(error.filename)[:80]}: {error.strerror}")
        _fail(1, str(error) if isinstance(error, EXPECTED) else f"{error!r} (more with --debug)")


EXPECTED = (DataError, MachineStopped, Mismatch, ToolMissing, BuildFailed, SimulationHung)
"""Errors whose message says it all."""


if __name__ == "__main__":
    main()

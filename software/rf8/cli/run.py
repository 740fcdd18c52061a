"""The command ``rf8 run``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from golden.config import CONFIGS, RESULT_FRAC, get_config
from rf8.checkpoint.load import load_model
from rf8.cli.common import ArgmaxOption, JsonOption, app
from rf8.cli.models import compiled
from rf8.cli.quantize import read_tokens, text_window
from rf8.console import Bar, notes
from rf8.errors import DataError, UsageError
from rf8.files import replaced_file
from rf8.program.image import Program
from rf8.runtime.sampler import Sampler
from rf8.runtime.session import Session, Stats
from sim.rtl import MemoryModel
from sim.stages import Stages


class Backend(StrEnum):
    """What runs the program."""

    rtl = "rtl"
    golden = "golden"
    both = "both"


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
    top_k: Annotated[int | None, typer.Option(help="Sample among the k likeliest tokens")] = None,
    top_p: Annotated[float, typer.Option(help="Sample among the likeliest that hold this share")]
    = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of sampling and stalls")] = 1,
    argmax: ArgmaxOption = False,
    perplexity: Annotated[
        Path | None, typer.Option(help="Instead of generating: perplexity of this text, golden")
    ] = None,
    tokens: Annotated[int, typer.Option(help="... tokens of the text to use at most")] = 2048,
    out: Annotated[Path | None, typer.Option(help="... JSON file that keeps what is done")] = None,
    waveform: Annotated[Path | None, typer.Option(help="Write an FST waveform (slow)")] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Generate text and report what the machine did."""
    program = _program(model_or_file, config, argmax)
    if perplexity is not None:
        if prompt is not None or prompt_ids is not None:
            raise UsageError("--perplexity reads its text from the file: leave the prompt out")
        _perplexity(program, perplexity, tokens, out, as_json)
        return
    ids = _prompt(program, prompt, prompt_ids)
    memory = MemoryModel(latency=latency, bandwidth=bandwidth, stalls=stalls, seed=seed)
    if seed < 0:
        raise UsageError(f"--seed is {seed}, must be 0 or more")
    if not temperature and (top_k is not None or top_p != 1):
        raise UsageError("--top-k and --top-p need a --temperature: without one, greedy")
    choose = Sampler(temperature, seed, top_k=top_k, top_p=top_p) if temperature else None
    with Stages(notes) as stages:
        session = Session(
            program, backend.value, memory=memory, waveform=waveform, progress=stages
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
            with target.open("wb") as handle:
                np.save(handle, (values * 2.0**-RESULT_FRAC).astype(np.float32))
        session.check_memory()
    if as_json:
        result: dict[str, Any] = {"prompt_ids": ids, "ids": new, "text": text.of(new)}
        result |= {"backend": backend.value, "config": program.config.name}
        print(json.dumps(result | {"stats": session.stats.as_dict()}))
    else:
        _summary(session.stats, backend, program, len(new))


def _perplexity(program: Program, path: Path, most: int, out: Path | None, as_json: bool) -> None:
    """Of consecutive windows of a text, each as long as the context or 1,024 tokens."""
    from rf8.evaluation.perplexity import Perplexity, Programs, cut
    from rf8.evaluation.study import Study, crc32

    window = text_window(program.context, most)
    ids = read_tokens(program, path)
    parts, programs = cut(ids, window, most // window), Programs(program)
    setup = {"image": program.checksum(), "text": crc32(ids), "window": window}
    with tempfile.TemporaryDirectory() as folder, Bar("perplexity") as step:
        study = Study(out or Path(folder) / "perplexity.json", setup)

        def loss(part: Any) -> dict[str, Any]:
            return {"loss": programs.loss(part)}

        runs: dict[str, Callable[[], dict[str, Any]]]
        runs = {f"window {n}": partial(loss, part) for n, part in enumerate(parts)}
        study.measure(runs, step)
    found = Perplexity(tuple(study.runs[name]["loss"] for name in runs), window)
    if as_json:
        print(json.dumps({"perplexity": found.value, "tokens": found.tokens, "window": window}))
        return
    print(
        f"perplexity {found.value:.3f}: {found.tokens:,} tokens predicted in {len(parts)} windows "
        f"of {window}, golden machine, config {program.config.name}"
    )


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


def _program(model_or_file: str, config: str | None, argmax: bool) -> Program:
    if not Path(model_or_file).is_file():
        return compiled(load_model(model_or_file), config or "sim", argmax=argmax)
    program = Program.load(model_or_file)
    if argmax and not program.argmax:
        raise UsageError(
            f"--argmax: {model_or_file} was compiled for logits; compile the model again with "
            "`rf8 compile --argmax`"
        )
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
        table.add_row("cycles per token", f"{stats.cycles_per_token:,.0f}, the whole model")
        table.add_row(
            "bandwidth use", f"{stats.bandwidth_use:.1%} of the memory bus, weights, keys, values"
        )
        macs = stats.counters["column_slices"] * program.config.rows
        table.add_row("MACs", f"{macs / 1e6:,.1f} M")
    table.add_row("on the host", "tokenising and sampling; of the model's operations 0 %")
    if backend is Backend.both:
        table.add_row("compared with golden", f"{stats.compared:,} bytes")
        table.add_row("differences", f"{stats.differences}")
    Console(highlight=False).print(table)

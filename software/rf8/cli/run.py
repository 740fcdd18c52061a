"""The command ``rf8 run``."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from golden.config import CONFIGS, RESULT_FRAC, get_config
from rf8.cli.chat import Conversation, talk
from rf8.cli.common import (
    ArgmaxOption,
    JsonOption,
    ModelOrFileArgument,
    app,
    is_image,
    loaded,
    noted,
    saturation,
)
from rf8.cli.generate import Generated, Text, generate
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
        'Examples: [bold]rf8 run default --prompt "In the beginning" --backend both[/bold]; '
        '[bold]rf8 run smollm2-135m --chat --prompt "Who was Ada Lovelace?" --backend golden[/bold]'
        "; [bold]rf8 run MODEL --chat[/bold] for a conversation, on a terminal or a question a "
        "line from a pipe. Exit codes: 0 done, 1 bad data or a difference, 2 bad usage."
    ),
)
def run(
    model_or_file: ModelOrFileArgument,
    prompt: Annotated[str | None, typer.Option(help="Text to continue")] = None,
    prompt_ids: Annotated[str | None, typer.Option(help="Token ids to continue: 1,2,3")] = None,
    prompt_file: Annotated[
        str | None, typer.Option(help="File with the text, - for standard input; a last line break "
        "is left out")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is a question, put in the model's own chat "
        "template; without a prompt: a conversation")
    ] = False,
    system: Annotated[str | None, typer.Option(help="... what the model is told before it")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Tokens to generate: 32, in a chat as many as there is room "
        "for")
    ] = None,
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
    given = _prompt(prompt, prompt_ids, prompt_file)
    if system is not None and not chat:
        raise UsageError("--system belongs to --chat")
    if perplexity is not None:
        if given is not None or chat:
            raise UsageError("--perplexity reads its text from the file: leave the prompt out")
        _perplexity(_program(model_or_file, config, argmax), perplexity, tokens, out, as_json)
        return
    if given is None and not chat:
        raise UsageError(
            "give either --prompt TEXT or --prompt-ids 1,2,3, or --prompt-file FILE, or --chat"
        )
    if chat and isinstance(given, list):
        raise UsageError("--chat puts text in a template: give --prompt in place of --prompt-ids")
    if chat and given is None and logits is not None:
        raise UsageError("--logits with --chat needs one question: --prompt TEXT")
    if max_new_tokens is not None and max_new_tokens < 0:
        raise UsageError(f"--max-new-tokens is {max_new_tokens}, must be 0 or more")
    if seed < 0:
        raise UsageError(f"--seed is {seed}, must be 0 or more")
    if not temperature and (top_k is not None or top_p != 1):
        raise UsageError("--top-k and --top-p need a --temperature: without one, greedy")
    choose = Sampler(temperature, seed, top_k=top_k, top_p=top_p) if temperature else None
    program = _program(model_or_file, config, argmax)
    # What is wrong with a prompt is said before a simulator is built.
    conversation = Conversation(program, system) if chat else None
    ids = _ids(program, conversation, given)
    memory = MemoryModel(latency=latency, bandwidth=bandwidth, stalls=stalls, seed=seed)
    with Stages(notes) as stages:
        session = Session(
            program, backend.value, memory=memory, waveform=waveform, progress=stages
        )  # fmt: skip
    rows: list[Any] = []
    options: dict[str, Any] = {
        "choose": choose,
        "on_logits": None if logits is None else rows.append,
    }
    with session, ExitStack() as files:
        most = 32 if max_new_tokens is None else max_new_tokens
        if ids:
            session.check_ids(ids)
        if not chat:
            session.check_length(len(ids), most)
        # Opened first: hours of simulation must not end at a path that cannot be written.
        target = None if logits is None else files.enter_context(replaced_file(logits))
        if conversation is None:
            shown = Text(program, quiet=as_json)
            shown.show(ids)
            turns = [generate(session, ids, most, shown, **options)]
        else:

            def ask(question: str, talk: Conversation = conversation) -> Generated:
                return talk.answer(session, question, max_new_tokens, quiet=as_json, **options)

            if isinstance(given, str):
                turns = [ask(given)]
            else:
                turns = talk(conversation, ask, as_json=as_json)
        if target is not None:
            values = np.concatenate(rows) if rows else session.append(ids)
            with target.open("wb") as handle:
                np.save(handle, (values * 2.0**-RESULT_FRAC).astype(np.float32))
        session.check_memory()
    if as_json:
        # A conversation has told its turns.
        result = {"turns": len(turns)} if given is None else asdict(turns[0])
        result |= {"backend": backend.value, "config": program.config.name}
        print(json.dumps(result | {"stats": session.stats.as_dict()}))
    else:
        print()
        _summary(session.stats, backend, program, turns)


def _perplexity(program: Program, path: Path, most: int, out: Path | None, as_json: bool) -> None:
    """Of consecutive windows of a text, each as long as the context or 1,024 tokens."""
    from rf8.evaluation.perplexity import Programs, collected, cut, measured
    from rf8.evaluation.study import Study, crc32

    window = text_window(program.context, most)
    ids = read_tokens(program, path)
    parts, programs = cut(ids, window, most // window), Programs(program)
    setup = {"image": program.checksum(), "text": crc32(ids), "window": window}
    with tempfile.TemporaryDirectory() as folder, Bar("perplexity") as step:
        study = Study(out or Path(folder) / "perplexity.json", setup)

        runs: dict[str, Callable[[], dict[str, Any]]]
        runs = {f"window {n}": partial(measured, programs, part) for n, part in enumerate(parts)}
        study.measure(runs, step)
    found = collected([study.runs[name] for name in runs], window)
    if as_json:
        result = {"perplexity": found.value, "tokens": found.tokens, "window": window}
        print(json.dumps(result | {"saturated": found.saturated}))
        return
    if found.saturated:
        print(saturation(found.saturated))
    print(
        f"perplexity {found.value:.3f}: {found.tokens:,} tokens predicted in {len(parts)} windows "
        f"of {window}, golden machine, config {program.config.name}"
    )


def _program(model_or_file: str, config: str | None, argmax: bool) -> Program:
    if not is_image(model_or_file):
        return compiled(loaded(model_or_file), config or "sim", argmax=argmax)
    program = noted(Program.load(model_or_file))
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


def _prompt(text: str | None, ids: str | None, file: str | None) -> str | list[int] | None:
    """The one prompt that was given, as text or as tokens; None if there is none."""
    if sum(given is not None for given in (text, ids, file)) > 1:
        raise UsageError("give one of --prompt TEXT, --prompt-ids 1,2,3 and --prompt-file FILE")
    if ids is not None:
        try:
            return [int(part) for part in ids.split(",")]
        except ValueError:
            raise UsageError(f"--prompt-ids is {ids!r}, must be numbers like 1,2,3") from None
    if file is None:
        return text
    content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return content.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"--prompt-file {file} is no UTF-8 text: {error}") from error


def _ids(
    program: Program, conversation: Conversation | None, given: str | list[int] | None
) -> list[int]:
    """The tokens of the prompt; none for a conversation that has yet to begin."""
    if given is None or isinstance(given, list):
        return given or []
    if conversation is not None:
        return conversation.ids(given)
    tokenizer = program.tokenizer()
    if tokenizer is None:
        raise DataError(f"{program.model} has no tokenizer.json: use --prompt-ids")
    found = list(tokenizer.encode(given).ids)
    if not found:
        raise UsageError("the prompt is empty: give at least one token")
    return found


def _summary(stats: Stats, backend: Backend, program: Program, turns: list[Generated]) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("model", f"{program.model}, config {program.config.name}, backend {backend}")
    new = sum(len(turn.ids) for turn in turns)
    table.add_row("tokens", f"{stats.tokens} computed, {new} of them generated")
    rate = stats.tokens / max(stats.seconds, 1e-9)
    table.add_row("time", f"{stats.seconds:.1f} s, {rate:.2f} tokens/s")
    if len(turns) == 1 and turns[0].ids:
        table.add_row("generating", turns[0].speed)
    if stats.counters:
        table.add_row("cycles per token", f"{stats.cycles_per_token:,.0f}, the whole model")
        table.add_row(
            "bandwidth use", f"{stats.bandwidth_use:.1%} of the memory bus, weights, keys, values"
        )
        macs = stats.counters["column_slices"] * program.config.rows
        table.add_row("MACs", f"{macs / 1e6:,.1f} M")
    if lost := saturation(getattr(stats, "saturated", 0)):
        table.add_row("range", lost)
    table.add_row("on the host", "tokenising and sampling; of the model's operations 0 %")
    if backend is Backend.both:
        table.add_row("compared with golden", f"{stats.compared:,} bytes")
        table.add_row("differences", f"{stats.differences}")
    Console(highlight=False).print(table)

"""Compiler: an RF8 model to a program image for one accelerator."""

from __future__ import annotations

import numpy as np

from golden.config import AccelConfig, get_config
from golden.isa import encode_program
from rf8.checkpoint.model import Model
from rf8.checkpoint.tokenizer import end_tokens
from rf8.compiler.emitter import Emitter
from rf8.compiler.layout import Layout
from rf8.compiler.lower import Lowering
from rf8.errors import DataError
from rf8.graph.passes import optimize
from rf8.program.image import Entry, Program
from rf8.progress import Progress


def compile(
    model: Model,
    config: AccelConfig | str = "sim",
    *,
    context: int | None = None,
    argmax: bool = False,
    progress: Progress = lambda *_: None,
) -> Program:
    """Compile an RF8 model for the accelerator ``config``.

    ``context``: the most tokens of a sequence, for which memory and scratchpad are laid out; the
    model's own by default. ``argmax``: the machine finds the likeliest token and keeps the logits
    to itself.

    Raises
    ------
    DataError
        Where the model is not quantised, was quantised for a wider span than the machine has, does
        not fit it, or has an operation that cannot be lowered.
    ValueError
        Where there is no such config.
    """
    config = get_config(config) if isinstance(config, str) else config
    if model.span is None:
        raise DataError(f"{model.name} is a float model: quantise it first (`rf8 quantize`)")
    if model.span > config.span:
        raise DataError(
            f"{model.name} was quantised for span {model.span}, config {config.name!r} has span "
            f"{config.span}: quantise it again with --span {config.span}"
        )
    if context is not None and not 1 <= context <= model.context:
        raise DataError(f"{model.name}: the context is {context}, must be 1 to {model.context}")
    if config.rows != config.bus_bytes:
        raise DataError(
            f"config {config.name!r}: whole models need a bus of `rows` bytes, {config.rows}; this "
            f"one has {config.bus_bytes}"
        )
    graph = optimize(model.graph)
    layout = Layout(model, graph, config, context or model.context, progress)
    if argmax and config.results_per_word < 2:
        raise DataError(f"config {config.name!r}: argmax needs a bus of 8 bytes or more")
    return _program(layout, argmax)


def _program(layout: Layout, argmax: bool) -> Program:
    """Lower, once for each number of columns, and encode."""
    model, config, memory = layout.model, layout.config, layout.memory
    entries, text = [], b""
    parts: list[list[int]] = []
    for columns in sorted({1, config.cols}):
        for head in (True, False):
            emitter = Emitter(config, columns, model.name)
            found = Lowering(layout, emitter, head, argmax).run()
            parts += [found] if head else []
            entries.append(Entry(columns, head, memory.end + len(text), emitter.labels))
            text += encode_program(emitter.instructions, config)
    assert all(found == parts[0] for found in parts)  # one list serves all programs
    start = memory.reserve(len(text))
    if memory.end >> config.addr_bits:
        raise DataError(
            f"{model.name} needs {memory.end} bytes of memory, config {config.name!r} "
            f"addresses {1 << config.addr_bits}: use a shorter context"
        )
    return Program(
        config=config,
        architecture=str(model.config.get("model_type")),
        vocab=model.vocab,
        model=model.name,
        context=layout.context,
        memory_bytes=memory.end,
        sections={"weights": layout.weights, "program": (start, np.frombuffer(text, np.uint8))},
        entries=entries,
        logits=layout.logits,
        regions=layout.regions,
        argmax=parts[0] if argmax else [],
        eos=end_tokens(model.config, model.files, model.vocab),
        files=dict(model.files),
        notes=tuple(layout.notes),
    )

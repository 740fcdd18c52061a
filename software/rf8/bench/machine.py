"""Benchmarks of the format, the compiler, the simulator and the golden model."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rf8
from golden.config import get_config
from golden.format import decode, encode, row_bias
from golden.stream import tile_slices
from rf8.bench.figure import SEED, Figure, fastest, peak_bytes
from rf8.checkpoint.huggingface import graph_of
from rf8.checkpoint.model import Model
from rf8.gg import gg_
from rf8.quantize.rounding import quantize
from rf8.runtime.session import Session

GPT2: dict[str, Any] = {"model_type": "gpt2"}
"""A config all of whose fields are transformers' own: the 124M shape."""


def gpt2_124m() -> Model:
    """A model of GPT-2's 124M shape with weights from the GG initialiser."""
    graph = graph_of(GPT2, "gpt2-124m")
    generator = torch.Generator().manual_seed(SEED)
    tensors: dict[str, Any] = {
        name: gg_(torch.empty(shape), 1.5, generator=generator).numpy()
        for name, shape in graph.matrices().items()
    }
    for name, size in graph.vectors().items():
        fill = 1.0 if name.endswith("weight") else 0.0
        tensors[name] = np.full(size, fill, np.float32)
    return Model(graph, GPT2, tensors, "gpt2-124m")


def bench_encode() -> Iterator[Figure]:
    """Speed of encode against ml_dtypes' cast to float8_e4m3fn, 16 M float32 values."""
    import ml_dtypes

    x = np.random.default_rng(SEED).standard_normal((4096, 4096), dtype=np.float32)
    for rounding in ("nearest_even", "paper"):
        ours, theirs = [], []
        for _ in range(5):
            theirs.append(fastest(lambda: x.astype(ml_dtypes.float8_e4m3fn), 1))
            ours.append(fastest(lambda r=rounding: encode(x, rounding=r), 1))  # type: ignore[misc]
        yield Figure(f"encode 16 M values, {rounding}", x.size / min(ours) / 1e6, "M/s", None)
        ratio = min(theirs) / min(ours)
        yield Figure(f"encode against float8_e4m3fn cast, {rounding}", ratio, "x", 1.0)


def bench_sqnr() -> Iterator[Figure]:
    """Signal to quantisation noise on generalized-Gaussian samples, one scale or bias a row."""
    import ml_dtypes

    for shape in (0.5, 1.0, 2.0):
        generator = torch.Generator().manual_seed(SEED)
        x = gg_(torch.empty(256, 4096), shape, generator=generator).numpy()
        top = np.abs(x).max(axis=1, keepdims=True)
        coded = {}
        for rounding in ("nearest_even", "paper"):
            bias = row_bias(x, rounding=rounding)[:, None]
            coded[f"RF8 {rounding}"] = decode(encode(x, bias, rounding=rounding), bias)
        scale = top / 448
        coded["E4M3"] = (x / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
        coded["INT8"] = np.rint(x / (top / 127)) * (top / 127)
        for name, values in coded.items():
            noise = float(((values.astype(np.float64) - x) ** 2).sum())
            decibels = 10 * np.log10(float((x.astype(np.float64) ** 2).sum()) / noise)
            yield Figure(f"SQNR of GG samples of shape {shape:g}, {name}", decibels, "dB", None)


def bench_compile(path: Path) -> Iterator[Figure]:
    """Time and memory to quantise and compile the 124M shape; leaves the image at ``path``."""
    model = gpt2_124m()
    weights = sum(model.float_tensor(name).nbytes for name in model.tensors)
    started = time.perf_counter()
    program = rf8.compile(quantize(model))
    yield Figure(
        "quantise and compile 124M", time.perf_counter() - started, "s", 30.0, better="lower"
    )
    yield Figure(
        "its peak memory over the float32 weights", peak_bytes() / weights, "x", 3.0, better="lower"
    )
    program.save(path)


POSITION = 128


def bench_token(path: Path) -> Iterator[Figure]:
    """One decode token of the 124M shape at position 128 on the simulated RTL, and its prompt."""
    program = rf8.Program.load(path)
    config, graph = program.config, graph_of(GPT2, "gpt2-124m")
    with Session(program, "rtl") as session:
        wall, used = time.perf_counter(), time.process_time()
        counters = session.run_at(POSITION, [464], True)
        wall, used = time.perf_counter() - wall, time.process_time() - used
        prompt: Counter[str] = Counter()
        for position in range(0, POSITION, config.cols):
            prompt.update(session.run_at(position, [464] * config.cols, False))
    macs = counters["column_slices"] * config.rows
    yield Figure("124M token at position 128, RTL", wall, "s", 15.0, better="lower")
    yield Figure("... its peak memory", peak_bytes() / 1e9, "GB", 2.0, better="lower")
    yield Figure("RTL simulation speed, one core", macs / used / 1e6, "M MAC/s", 20.0)
    yield Figure("124M token, cycles", counters["cycles"], "cycles", None, better="lower")
    matrices = graph.matrices()
    del matrices["wpe.weight"]  # of positions, one row is read
    weights = sum(math.prod(shape) for shape in matrices.values())
    # An exponent a row; biases and norms in 32 bits.
    rows, others = sum(shape[0] for shape in matrices.values()), sum(graph.vectors().values())
    attentions = [op for _, op in graph.attentions()]
    seen, width = POSITION + 1, attentions[0].width
    head_width = width // attentions[0].heads
    heads = sum(op.kv_heads for op in attentions)
    cache = heads * seen * (3 * head_width + 5)  # two codes, one, a byte and a word of bias
    use = (weights + rows + 4 * others + cache) / (counters["cycles"] * config.bus_bytes)
    name = "124M token, bandwidth use (weights, keys, values), latency 60"
    yield Figure(name, 100 * use, "%", 95.0)
    inner = weights - graph.vocab * width
    attention = sum(2 * len(attentions) * width * (p + 1) for p in range(POSITION))
    lanes = prompt["cycles"] * config.rows * config.cols
    use = (inner * POSITION + attention) / lanes
    yield Figure("124M prompt of 128 tokens, use of the MACs", 100 * use, "%", 85.0)


def bench_golden(path: Path) -> Iterator[Figure]:
    """The same token on the golden torch path."""
    program = rf8.Program.load(path)
    session = Session(program, "golden")
    session.run_at(POSITION, [464], True)
    seconds = min(fastest(lambda: session.run_at(POSITION, [464], True), 1) for _ in range(5))
    yield Figure("124M token at position 128, golden torch path", 1 / seconds, "tokens/s", 3.0)


def bench_smollm2() -> Iterator[Figure]:
    """Decode steps of SmolLM2-135M on the golden torch path."""
    model = rf8.load_model("smollm2-135m")
    session = Session(rf8.compile(quantize(model), context=1024), "golden")
    session.append([1, 2, 3, 4])
    seconds = min(fastest(lambda: session.append([5]), 1) for _ in range(8))
    yield Figure("SmolLM2-135M, golden torch path", 1 / seconds, "tokens/s", 2.0)


def bench_amaranth() -> Iterator[Figure]:
    """The array alone in Amaranth's Python simulator, against the whole Verilated machine."""
    from amaranth.sim import Simulator

    from hw.matrix.array import Array

    config = get_config("sim")
    array = Array(config)
    simulator = Simulator(array)
    simulator.add_clock(1e-6)
    cycles = 40
    spent = []

    random = np.random.default_rng(SEED)
    codes = [list(map(int, random.integers(0, 16, config.rows) * 8)) for _ in range(cycles + 5)]

    async def stimulus(ctx: Any) -> None:
        ctx.set(array.active, 1)
        ctx.set(array.feed.valid, 1)
        for cycle in range(cycles + 5):
            if cycle == 5:
                spent.append(time.process_time())
            for port, code in zip(array.slice.bytes, codes[cycle], strict=True):
                ctx.set(port, code)
            ctx.set(array.feed.x[0], 77 * cycle)
            await ctx.tick()
        spent.append(time.process_time())

    simulator.add_testbench(stimulus)
    simulator.run()
    slow = cycles * config.rows / (spent[1] - spent[0])
    yield Figure("Amaranth's Python simulator, array alone", slow / 1e6, "M MAC/s", None)
    k, tiles = 768, 64
    memory, program = _matvec(k, tiles)
    from sim.rtl import RtlMachine

    with RtlMachine(memory, config) as machine:
        macs = machine.run(program).counters["column_slices"] * config.rows
        fast = macs / fastest(lambda: machine.run(program), 5)
    yield Figure("Verilated machine, matrix-vector product", fast / 1e6, "M MAC/s", 20.0)
    yield Figure("... over Amaranth's simulator", fast / slow, "x", 100.0)


def _matvec(k: int, tiles: int) -> tuple[Any, int]:
    """Memory with a program that multiplies random weights and activations; its address."""
    from golden.isa import Instruction, Opcode, block_words, encode_program

    config = get_config("sim")
    random = np.random.default_rng(SEED)
    size = tiles * tile_slices(k, 0, config) * config.rows
    memory = np.zeros(1 << 23, np.uint8)
    codes = random.integers(0, 128, size).astype(np.uint8)
    memory[1 << 20 : (1 << 20) + size] = np.where(codes % 8 == 7, 0, codes)
    words = block_words(k, config)
    memory[1 << 16 : (1 << 16) + words * config.bus_bytes] = random.integers(0, 256)
    program = [
        Instruction(opcode=Opcode.LOAD, address=1 << 16, count=words),
        Instruction(opcode=Opcode.MATMUL, column=1, address=1 << 20, count=tiles, k=k, dst=words),
        Instruction(opcode=Opcode.HALT),
    ]
    text = encode_program(program, config)
    memory[: len(text)] = np.frombuffer(text, np.uint8)
    return memory, 0


def bench_default() -> Iterator[Figure]:
    """32 tokens of the default model on RTL and golden model together, from the command line."""
    command = [sys.executable, "-m", "rf8.cli", "run", "default", "--backend", "both", "--json"]
    command += ["--prompt", "And it came to pass", "--max-new-tokens", "32"]
    started = time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    stats = json.loads(run.stdout)["stats"]
    yield Figure("make run, 32 tokens, warm build", seconds, "s", 60.0, better="lower")
    yield Figure("... differences to golden", stats["differences"], "bytes", 0, better="lower")
    yield Figure("... bytes compared", stats["bytes_compared"], "bytes", None)
    yield Figure("... cycles per token", stats["cycles_per_token"], "cycles", None, "lower")

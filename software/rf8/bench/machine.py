"""Benchmarks of the format, the compiler, the simulator and the golden model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rf8
from golden.config import get_config
from golden.isa import tile_slices
from golden.machine import Machine
from golden.rf8 import decode, encode, row_bias
from rf8.architecture import GPT2Spec, is_conv1d, is_matrix
from rf8.bench.figure import SEED, Figure, fastest, peak_bytes
from rf8.gg import gg_
from rf8.model import Model
from rf8.session import Session


def gpt2_124m() -> Model:
    """A model of GPT-2's 124M shape with weights from the GG initialiser."""
    config = {"model_type": "gpt2"}
    spec = GPT2Spec.from_config(config, "gpt2-124m")
    generator = torch.Generator().manual_seed(SEED)
    tensors: dict[str, Any] = {}
    for name, shape in spec.shapes().items():
        if is_matrix(name):
            size = shape[::-1] if is_conv1d(name) else shape
            tensors[name] = gg_(torch.empty(size), 1.5, generator=generator).numpy()
        else:
            fill = 1.0 if name.endswith("weight") else 0.0
            tensors[name] = np.full(shape, fill, np.float32)
    return Model(spec, config, tensors, "gpt2-124m")


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
    program = rf8.compile(rf8.quantize(model))
    yield Figure(
        "quantise and compile 124M", time.perf_counter() - started, "s", 30.0, better="lower"
    )
    yield Figure(
        "its peak memory over the float32 weights", peak_bytes() / weights, "x", 3.0, better="lower"
    )
    program.save(path)


def bench_token(path: Path) -> Iterator[Figure]:
    """One decode token of the 124M shape on the simulated RTL."""
    program = rf8.Program.load(path)
    config = program.config
    with Session(program, "rtl") as session:
        wall, used = time.perf_counter(), time.process_time()
        session.append([464])
        wall, used = time.perf_counter() - wall, time.process_time() - used
        counters = session.stats.counters
    macs = counters["column_slices"] * config.rows
    codes = sum(k.inputs * k.outputs for k in program.kernels.values())
    yield Figure("124M token, RTL", wall, "s", 12.0, better="lower")
    yield Figure("124M token, RTL, peak memory", peak_bytes() / 1e9, "GB", 2.0, better="lower")
    yield Figure("RTL simulation speed, one core", macs / used / 1e6, "M MAC/s", 20.0)
    yield Figure("124M token, cycles", counters["cycles"], "cycles", None, better="lower")
    use = codes / (counters["cycles"] * config.bus_bytes)
    yield Figure("124M token, bandwidth use (codes only) at latency 60", 100 * use, "%", 95.0)


def bench_golden(path: Path) -> Iterator[Figure]:
    """The same linear layers on the golden torch path, against float32 torch."""
    program = rf8.Program.load(path)
    session = Session(program, "golden")
    machine = session._golden
    assert isinstance(machine, Machine)
    kernels = list(program.kernels.values())
    generator = torch.Generator().manual_seed(SEED)
    floats = [
        (torch.randn(1, k.inputs, generator=generator), torch.randn(k.outputs, k.inputs))
        for k in kernels
    ]

    def golden() -> None:
        for kernel in kernels:
            machine.run(kernel.programs[1])

    def plain() -> None:
        for x, weight in floats:
            torch.nn.functional.linear(x, weight)

    golden()
    ours, theirs = [], []
    for _ in range(7):
        ours.append(fastest(golden, 1))
        theirs.append(fastest(plain, 1))
    yield Figure("124M linear layers, golden torch path", 1e3 * min(ours), "ms", None, "lower")
    ratio = min(ours) / min(theirs)
    yield Figure("... over float32 linear", ratio, "x", 2.5, better="lower")


def bench_amaranth() -> Iterator[Figure]:
    """The array alone in Amaranth's Python simulator, against the whole Verilated machine."""
    from amaranth.sim import Simulator

    from hw.array import Array

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
        ctx.set(array.valid, 1)
        for cycle in range(cycles + 5):
            if cycle == 5:
                spent.append(time.process_time())
            for port, code in zip(array.weights, codes[cycle], strict=True):
                ctx.set(port, code)
            ctx.set(array.x[0], 77 * cycle)
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
        used = time.process_time()
        result = machine.run(program)
        used = time.process_time() - used
    fast = result.counters["column_slices"] * config.rows / used
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
    yield Figure("... differences to golden", stats["differences"], "words", 0, better="lower")
    yield Figure("... words compared", stats["words_compared"], "words", None)
    yield Figure("... cycles per token", stats["cycles_per_token"], "cycles", None, "lower")

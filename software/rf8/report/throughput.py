"""Throughput: clock cycles of whole models, from runs of their linear layers on the simulated RTL.

Each distinct layer of a model runs as the program that the compiler makes for it, for one column
(decode) and for all of them (prefill); the counters of the hardware are summed over the layers.
Weights are zeros: no unit of the machine looks at a value to decide how long it takes.

Not included is what the host does in this version: attention, norms, activation functions.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.config import AccelConfig, get_config
from golden.isa import COUNTERS, ErrorCode, Flag, encode_program, tile_slices
from rf8.architecture import GPT2Spec, LlamaSpec, Spec, is_conv1d, is_matrix, read_spec
from rf8.compiler import buffers, layer_code, pages, split_outputs
from rf8.model import PACKAGED
from rf8.program import Kernel
from rf8.session import MachineStopped
from sim.build import HARNESS, cache_dir, verilog_text, write_atomically
from sim.rtl import MemoryModel, RtlMachine

Progress = Callable[[str, int, int], None]

SOURCE = "rtl, linear layers"
CLOCKS_MHZ = (80, 130, 500)
LATENCIES = (20, 60, 200)

MODELS: dict[str, Spec] = {
    "default": read_spec(json.loads((PACKAGED / "default" / "config.json").read_text()), "default"),
    "gpt2-124m": GPT2Spec.from_config({}, "gpt2-124m"),
    "smollm2-135m": LlamaSpec.from_config(
        {
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        },
        "smollm2-135m",
    ),
}
"""Shapes that are measured."""


@dataclass(frozen=True)
class Point:
    """One machine to measure: accelerator, and memory latency in cycles."""

    config: AccelConfig
    latency: int


def _points() -> list[Point]:
    configs = [
        get_config("ecp5"),
        # Between the two, on a bus that brings twice what the array takes in a cycle.
        get_config("sim").replace(name="sim, 32 rows", rows=32, bus_bytes=64),
        get_config("sim"),
    ]
    return [Point(config, latency) for config in configs for latency in LATENCIES]


POINTS = _points()
"""What the report measures: few simulators, as each takes a minute to build."""


@dataclass(frozen=True)
class Layer:
    """A linear layer, y = W x + b: W is [outputs, inputs]."""

    inputs: int
    outputs: int
    bias: bool = False


def linear_layers(spec: Spec) -> Counter[Layer]:
    """The layers that every token passes, the head not among them: layer -> how many there are."""
    shapes = spec.shapes()
    found: Counter[Layer] = Counter()
    for name, shape in shapes.items():
        if name.startswith(("h.", "layers.")) and is_matrix(name):
            inputs, outputs = shape if is_conv1d(name) else shape[::-1]
            found[Layer(inputs, outputs, f"{name.removesuffix('weight')}bias" in shapes)] += 1
    return found


def head(spec: Spec) -> Layer:
    """The layer from hidden state to logits."""
    return Layer(spec.width, spec.vocab)


def layer_program(
    layer: Layer, columns: int, config: AccelConfig, offset: int = 0
) -> tuple[bytes, int, int]:
    """The compiler's program for one layer alone in memory.

    ``offset``: bytes from the start of a page to the weights. In a model they follow each other;
    those that begin amid a burst can take a few cycles more or less.
    Returns the instructions, their address, and the size of the memory in bytes.

    Raises
    ------
    ValueError
        Where the layer does not fit the machine (`golden.isa.IllegalInstruction`).
    """
    x, y = buffers(layer.inputs, layer.outputs, config)
    address = y.address + config.cols * y.stride + offset
    slices = tile_slices(layer.inputs, Flag.BIAS if layer.bias else 0, config)
    chunks = []
    for part in split_outputs(layer.outputs, layer.inputs, config):
        tiles = -(-(part.stop - part.start) // config.rows)
        chunks.append((address, tiles))
        address += -(-tiles * slices // config.slices_per_beat) * config.bus_bytes
    kernel = Kernel("layer", layer.inputs, layer.outputs, {}, x, y)
    text = encode_program(layer_code(kernel, chunks, layer.bias, columns, config), config)
    start = pages(address)
    return text, start, pages(start + len(text))


def run_layer(
    layer: Layer, columns: int, config: AccelConfig, memory: MemoryModel, offset: int = 0
) -> dict[str, int]:
    """The hardware's counters (`golden.isa.COUNTERS`) after one layer for ``columns`` tokens.

    ``offset`` as for `layer_program`.

    They are kept in the cache, by content: Verilog, harness, memory model and program.

    Raises
    ------
    MachineStopped
        Where the machine stops with an error.
    """
    text, start, size = layer_program(layer, columns, config, offset)
    digest = hashlib.sha256()
    for part in (verilog_text(config).encode(), HARNESS.read_bytes(), repr(memory).encode(), text):
        digest.update(hashlib.sha256(part).digest())
    path = cache_dir() / "throughput" / f"{digest.hexdigest()[:32]}.json"
    kept = _read(path)
    if kept is not None:
        return kept
    content: NDArray[np.uint8] = np.zeros(size, np.uint8)
    content[start : start + len(text)] = np.frombuffer(text, np.uint8)
    with RtlMachine(content, config, memory) as machine:
        result = machine.run(start)
    if result.error is not ErrorCode.NONE:
        raise MachineStopped(f"{layer} on config {config.name!r} stopped with {result.error.name}")
    write_atomically(path, json.dumps(result.counters))
    return result.counters


def _read(path: Path) -> dict[str, int] | None:
    """Counters from the cache; None where there are none, or what is there is no such thing."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and found.keys() == COUNTERS.keys()
    return found if whole and all(isinstance(v, int) for v in found.values()) else None


def measure(
    points: Sequence[Point] = POINTS,
    models: Mapping[str, Spec] = MODELS,
    clocks_mhz: Sequence[int] = CLOCKS_MHZ,
    *,
    progress: Progress = lambda *_: None,
) -> list[dict[str, Any]]:
    """One record for each point, model and phase.

    Parameters
    ----------
    points: what to measure
    models: name -> shape
    clocks_mhz: clock rates for which tokens per second are given

    Returns
    -------
    list of dict
        ``phase`` is "decode" (one column, with the head) or "prefill" (all columns, without the
        head: it runs once for a prompt). Per token: ``cycles_per_token``, ``macs_per_token``,
        ``bytes_per_token`` (all traffic on the bus), and of the cycles ``stall_weights`` and
        ``stall_drain``. ``bandwidth_use`` is weight beats over cycles, ``mac_use`` useful MACs over
        those that all lanes could do. ``tokens_per_s``: clock in MHz, as text -> tokens per second.
    """
    jobs = [
        (point.config, point.latency, name, phase)
        for point in points
        for name in models
        for phase in ("decode", "prefill")
    ]
    records = []
    for number, (config, latency, name, phase) in enumerate(jobs):
        progress(f"{name}, {phase}, {config.name}, latency {latency}", number, len(jobs))
        layers, columns = linear_layers(models[name]), config.cols
        if phase == "decode":
            layers, columns = layers + Counter({head(models[name]): 1}), 1
        record: dict[str, Any] = {"model": name, "phase": phase, "config": config.name}
        record |= {"rows": config.rows, "cols": config.cols, "bus_bits": 8 * config.bus_bytes}
        record |= {"latency": latency} | _sum(layers, columns, config, MemoryModel(latency=latency))
        cycles = record["cycles_per_token"]
        record["tokens_per_s"] = {str(mhz): mhz * 1e6 / cycles for mhz in clocks_mhz}
        records.append(record | {"source": SOURCE})
    progress("done", len(jobs), len(jobs))
    return records


def _sum(
    layers: Counter[Layer], columns: int, config: AccelConfig, memory: MemoryModel
) -> dict[str, float]:
    total: Counter[str] = Counter()
    macs = 0
    for layer, count in layers.items():
        for name, value in run_layer(layer, columns, config, memory).items():
            total[name] += count * value
        macs += count * layer.inputs * layer.outputs
    cycles, weights = total["cycles"], total["read_weights"]
    beats = weights + total["read_other"] + total["written"]
    return {
        "cycles_per_token": cycles / columns,
        "macs_per_token": macs,
        "bytes_per_token": beats * config.bus_bytes / columns,
        "bandwidth_use": weights / cycles,
        "mac_use": macs * columns / (cycles * config.rows * config.cols),
        "stall_weights": total["stall_weights"] / columns,
        "stall_drain": total["stall_drain"] / columns,
    }

"""Throughput: clock cycles of whole tokens, from the cycle model.

The layers of a model are alike: models of its shape with one and with two of them are compiled, and
what the second adds counts for each further one. Weights are zeros: the model looks at no value.
The tests of `rf8.program.cycles` compare it with the RTL of small machines; `rf8 profile` does it
for any.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from golden.config import AccelConfig, get_config
from golden.isa import Opcode
from rf8.checkpoint.huggingface import graph_of
from rf8.checkpoint.load import PACKAGED
from rf8.checkpoint.model import Model, RF8Tensor
from rf8.compiler.driver import compile
from rf8.graph.ir import Graph, Linear
from rf8.program.cycles import predict
from rf8.program.image import Program
from rf8.progress import Progress

SOURCE = "cycle model"
CONTEXT = 1024
"""Tokens of a sequence for which the models are compiled, at most."""
POSITIONS = {"decode": 128, "prefill": 64}
"""Where the token lies that is measured; for a prompt, the middle of its 128."""

CLOCKS_MHZ = (80, 130, 500)
LATENCIES = (20, 60, 200)

Config = Mapping[str, Any]
"""A transformers config."""

MODELS: dict[str, Config] = {
    "default": json.loads((PACKAGED / "default" / "config.json").read_text()),
    "gpt2-124m": {"model_type": "gpt2", "n_layer": 12},
    "smollm2-135m": {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
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
        get_config("sim").replace(name="sim, 32 rows", rows=32, bus_bytes=32),
        get_config("sim"),
    ]
    return [Point(config, latency) for config in configs for latency in LATENCIES]


POINTS = _points()
"""What the report shows."""


def zero_model(graph: Graph, span: int) -> Model:
    """A model in RF8 whose weights are all zero."""
    tensors: dict[str, Any] = {
        name: RF8Tensor(np.zeros(shape, np.uint8), np.zeros(shape[0], np.int8))
        for name, shape in graph.matrices().items()
    }
    tensors |= {name: np.zeros(n, np.float32) for name, n in graph.vectors().items()}
    return Model(graph, {}, tensors, "zeros", span=span)


@lru_cache(maxsize=16)
def _graph(text: str, layers: int) -> Graph:
    """Of a config as JSON, with other ``layers``."""
    config = json.loads(text)
    config["n_layer" if "n_layer" in config else "num_hidden_layers"] = layers
    return graph_of(config, str(config["model_type"]))


def _with_layers(config: Config, layers: int) -> Graph:
    return _graph(
        json.dumps({k: v for k, v in config.items() if k != "quantization_config"}), layers
    )


def _layers(config: Config) -> int:
    found: int = config["n_layer"] if "n_layer" in config else config["num_hidden_layers"]
    return found


@lru_cache(maxsize=4)
def _program(graph: Graph, config: AccelConfig) -> Program:
    return compile(zero_model(graph, config.span), config, context=min(graph.context, CONTEXT))


def model_counters(
    graph: Graph, columns: int, head: bool, position: int, config: AccelConfig, latency: int
) -> Counter[str]:
    """Of ``columns`` tokens from ``position`` on: ``cycles``, those of ``vector``, lost ones
    ``stall_weights`` and ``stall_drain``; beats ``read_weights``, ``read_other``, ``written``.

    Raises
    ------
    DataError
        Where the model does not fit the machine.
    """
    program = _program(graph, config)
    total: Counter[str] = Counter()
    for cost in predict(program, program.entry(columns, head), position, latency):
        opcode = cost.instruction.opcode
        beats = {Opcode.MATMUL: "read_weights", Opcode.STORE: "written"}.get(opcode, "read_other")
        total.update({"cycles": cost.cycles, beats: cost.beats})
        total["vector"] += cost.cycles * (opcode is Opcode.VECTOR)
        total["stall_weights"] += cost.waits.get("weights", 0)
        total["stall_drain"] += cost.waits.get("drain", 0)
    return total


def measure(
    points: Sequence[Point] = POINTS,
    models: Mapping[str, Config] = MODELS,
    clocks_mhz: Sequence[int] = CLOCKS_MHZ,
    *,
    progress: Progress = lambda *_: None,
) -> list[dict[str, Any]]:
    """One record for each point, model and phase.

    Parameters
    ----------
    points: what to measure
    models: name -> transformers config
    clocks_mhz: clock rates for which tokens per second are given

    Returns
    -------
    list of dict
        ``phase`` is "decode" (one column, with the head) or "prefill" (all columns, without the
        head: it runs once for a prompt), at ``position``. Per token: ``cycles_per_token``,
        ``macs_per_token`` (of weights; those of attention come on top), ``bytes_per_token`` (all
        traffic on the bus), and of the cycles ``vector``, ``stall_weights`` and ``stall_drain``.
        ``bandwidth_use`` is beats of weights, keys and values over cycles, ``mac_use`` the weights'
        MACs over those that all lanes could do. ``tokens_per_s``: clock in MHz, as text -> tokens
        per second.
    """
    jobs = [
        (point.config, point.latency, name, phase)
        for point in points
        for name in models
        for phase in POSITIONS
    ]
    # Latencies of a machine and a model follow each other, as they share the programs.
    jobs.sort(key=lambda job: (job[0].name, list(models).index(job[2])))
    records = []
    for number, (config, latency, name, phase) in enumerate(jobs):
        progress(f"{name}, {phase}, {config.name}, latency {latency}", number, len(jobs))
        columns = 1 if phase == "decode" else config.cols
        record: dict[str, Any] = {"model": name, "phase": phase, "config": config.name}
        record |= {"rows": config.rows, "cols": config.cols, "bus_bits": 8 * config.bus_bytes}
        position = min(POSITIONS[phase], _with_layers(models[name], 1).context - columns)
        record |= {"latency": latency, "position": position}
        record |= _token(models[name], columns, phase == "decode", position, config, latency)
        cycles = record["cycles_per_token"]
        record["tokens_per_s"] = {str(mhz): mhz * 1e6 / cycles for mhz in clocks_mhz}
        records.append(record | {"source": SOURCE})
    progress("done", len(jobs), len(jobs))
    return records


def whole_counters(
    model: Config, columns: int, head: bool, position: int, config: AccelConfig, latency: int
) -> Counter[str]:
    """`model_counters` of a model, from models with one and with two of its layers."""
    one, two = (
        model_counters(_with_layers(model, n), columns, head, position, config, latency)
        for n in (1, 2)
    )
    return Counter({n: one[n] + (_layers(model) - 1) * (two[n] - one[n]) for n in one})


def _macs(graph: Graph, head: bool) -> int:
    """Products of weights for a token."""
    ops = [
        op for n, op in enumerate(graph.ops) if isinstance(op, Linear) and (head or n < graph.head)
    ]
    return sum(graph.ops[op.x].width * op.width for op in ops)


def _token(
    model: Config, columns: int, head: bool, position: int, config: AccelConfig, latency: int
) -> dict[str, float]:
    total = whole_counters(model, columns, head, position, config, latency)
    one, two = (_macs(_with_layers(model, n), head) for n in (1, 2))
    macs = one + (_layers(model) - 1) * (two - one)
    cycles, weights = total["cycles"], total["read_weights"]
    beats = weights + total["read_other"] + total["written"]
    return {
        "cycles_per_token": cycles / columns,
        "macs_per_token": macs,
        "bytes_per_token": beats * config.bus_bytes / columns,
        "bandwidth_use": weights / cycles,
        "mac_use": macs * columns / (cycles * config.rows * config.cols),
        "vector": total["vector"] / columns,
        "stall_weights": total["stall_weights"] / columns,
        "stall_drain": total["stall_drain"] / columns,
    }

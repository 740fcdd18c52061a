"""Throughput of whole models, summed over layers, against what sessions measure."""

from collections import Counter
from dataclasses import replace

import pytest

import rf8
from golden.config import get_config
from golden.isa import Opcode, decode
from rf8.compiler import PAGE
from rf8.report import throughput
from rf8.report.throughput import MODELS, Layer, Point, head, linear_layers, measure, run_layer
from rf8.session import Session
from sim.rtl import MemoryModel

TINY = get_config("tiny")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """No results from before; simulators are still kept where they always are."""
    monkeypatch.setattr(throughput, "cache_dir", lambda: tmp_path)


def summed(layers, columns, config, memory):
    total = Counter()
    for layer, count in layers.items():
        for name, value in run_layer(layer, columns, config, memory).items():
            total[name] += count * value
    return total


def test_layers_are_a_session():
    """Every counter, to the cycle: decode, and a prompt with the head for its last token alone."""
    program = rf8.compile(rf8.load_model("default"), TINY)
    memory = MemoryModel(latency=23)
    layers, last = linear_layers(program.spec), Counter({head(program.spec): 1})
    with Session(program, "rtl", memory=memory) as session:
        session.append([1])
        assert summed(layers + last, 1, TINY, memory) == session.stats.counters
        session.stats.counters.clear()
        session.append([1] * TINY.cols, last_only=True)
        prompt = summed(layers, TINY.cols, TINY, memory) + summed(last, 1, TINY, memory)
        assert +prompt == +session.stats.counters


def test_place_of_the_weights_explains_the_rest(image):
    """Layers of odd widths begin amid bursts; measured where they lie, they are equal again."""
    program, memory = rf8.Program.load(image), MemoryModel(latency=23)
    aligned, placed = Counter(), Counter()
    for kernel in program.kernels.values():
        layer = Layer(kernel.inputs, kernel.outputs, kernel.name != "lm_head")
        aligned += Counter(run_layer(layer, 1, TINY, memory))
        offset = first_matmul(program, kernel).address % PAGE
        placed += Counter(run_layer(layer, 1, TINY, memory, offset))
    with Session(program, "rtl", memory=memory) as session:
        session.append([1])
        assert placed == session.stats.counters
    difference = {name for name in placed if placed[name] != aligned[name]}
    assert difference == {"cycles", "matmul", "stall_weights"}
    assert abs(placed["cycles"] - aligned["cycles"]) <= TINY.burst_beats * len(program.kernels)


def first_matmul(program, kernel):
    base, text = program.sections["program"]
    at = kernel.programs[1] - base
    while True:
        instruction = decode(text[at:].tobytes())
        if instruction.opcode is Opcode.MATMUL:
            return instruction
        at += TINY.slot_bytes


def test_shapes():
    macs = {
        name: sum(n * layer.inputs * layer.outputs for layer, n in linear_layers(spec).items())
        for name, spec in MODELS.items()
    }
    assert macs["gpt2-124m"] == 12 * 12 * 768**2
    assert macs["smollm2-135m"] == 30 * 576 * (2 * 576 + 2 * 192 + 3 * 1536)
    assert head(MODELS["smollm2-135m"]) == Layer(576, 49152)
    assert linear_layers(MODELS["smollm2-135m"])[Layer(576, 192)] == 60
    assert linear_layers(MODELS["gpt2-124m"])[Layer(3072, 768, bias=True)] == 12
    biased = replace(MODELS["smollm2-135m"], attention_bias=True)
    assert linear_layers(biased)[Layer(576, 192, bias=True)] == 60


SMALL = {"small": replace(MODELS["default"], layers=2, width=24, heads=4, inner=40, vocab=50)}


def test_records(tmp_path, monkeypatch):
    points = [Point(TINY, latency) for latency in (5, 80)]
    steps = []
    records = measure(points, SMALL, (100, 250), progress=lambda *step: steps.append(step))
    assert [(r["latency"], r["phase"]) for r in records] == [
        (5, "decode"), (5, "prefill"), (80, "decode"), (80, "prefill"),
    ]  # fmt: skip
    assert [number for _, number, _ in steps] == [0, 1, 2, 3, 4] and steps[-1][2] == 4
    fast, prefill, slow, _ = records
    layers = linear_layers(SMALL["small"])
    whole = summed(layers + Counter({head(SMALL["small"]): 1}), 1, TINY, MemoryModel(latency=5))
    assert fast["cycles_per_token"] == whole["cycles"] < slow["cycles_per_token"]
    assert prefill["cycles_per_token"] < fast["cycles_per_token"]
    assert fast["tokens_per_s"] == {
        "100": pytest.approx(1e8 / whole["cycles"]),
        "250": pytest.approx(2.5e8 / whole["cycles"]),
    }
    assert fast["macs_per_token"] == 2 * 24 * (3 * 24 + 24 + 2 * 40) + 24 * 50
    for record in records:
        columns = 1 if record["phase"] == "decode" else TINY.cols
        assert 0 < record["mac_use"] <= columns / TINY.cols
        assert record["mac_use"] / columns * TINY.cols < record["bandwidth_use"] <= 1
        assert record["source"] == "rtl, linear layers"
    # What is known is not run again.
    monkeypatch.setattr(throughput, "RtlMachine", None)
    assert measure(points, SMALL, (100, 250)) == records


def test_broken_results_are_measured_again(tmp_path):
    layer, memory = Layer(8, 8), MemoryModel()
    expected = run_layer(layer, 1, TINY, memory)
    (kept,) = (tmp_path / "throughput").iterdir()
    for content in ("", "[]", "{}", kept.read_text().replace(str(expected["cycles"]), '"7"')):
        kept.write_text(content)
        assert run_layer(layer, 1, TINY, memory) == expected
    run_layer(layer, 1, TINY, MemoryModel(latency=61))
    run_layer(layer, 2, TINY, memory)
    run_layer(Layer(8, 8, bias=True), 1, TINY, memory)
    assert len(list((tmp_path / "throughput").iterdir())) == 4


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="k must be 1 to 1024"):
        run_layer(Layer(1025, 8), 1, TINY, MemoryModel())

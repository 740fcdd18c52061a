"""Predicted cycles against the RTL, layer by layer, and what users get wrong."""

import pytest
import tiny_models

import rf8
from golden.config import CONFIGS
from hw.control.prefetch import SLOTS
from hw.memory import store
from hw.memory.load import Load
from rf8.checkpoint.huggingface import from_transformers
from rf8.errors import UsageError
from rf8.program import cycles
from rf8.program.cycles import predict
from rf8.runtime.profile import explain, layer_of, plot, profile

MACHINES = {"tiny": CONFIGS["tiny"], "eight rows": tiny_models.EIGHT}


@pytest.fixture(scope="module")
def programs(checkpoint):
    """Name of machine and model -> program."""
    models = {
        "gpt2": rf8.load_model(checkpoint),
        "llama": from_transformers(tiny_models.llama(), "llama"),
    }
    return {
        (name, model): rf8.compile(rf8.quantize(source, span=config.span), config=config)
        for name, config in MACHINES.items()
        for model, source in models.items()
    }


@pytest.mark.parametrize("latency", [10, 60, 200])
@pytest.mark.parametrize("model", ["gpt2", "llama"])
@pytest.mark.parametrize("machine", MACHINES)
def test_prediction_is_what_the_rtl_takes(programs, machine, model, latency):
    program = programs[machine, model]
    for columns, head in ((1, True), (program.config.cols, False)):
        found = profile(program, columns, head, latency=latency)
        whole = found.total
        assert whole.measured is not None
        off = {layer.name: layer.predicted / layer.measured - 1 for layer in found.layers}
        print(machine, model, latency, columns, f"{whole.predicted / whole.measured - 1:+.2%}", off)
        assert abs(whole.predicted / whole.measured - 1) <= 0.01
        for layer in found.layers:
            if layer.tiles:  # what is none of the layers takes a few hundred cycles
                assert abs(off[layer.name]) <= 0.02, layer
        # All of the machine's cycles but those before the first instruction and after the last.
        assert 0 <= whole.counters["cycles"] - whole.measured <= 8


def test_limits_are_those_of_the_hardware():
    assert Load.most == cycles.LOADS_AHEAD
    assert cycles.PROGRAM_AHEAD == SLOTS
    assert cycles.STORE_WORDS == store.BUFFER_WORDS
    assert (cycles.STORES, cycles.STORE_BURSTS) == (store.BUFFER_STORES, store.BUFFER_BURSTS)


def test_costs_follow_the_program(programs):
    program = programs["tiny", "gpt2"]
    entry = program.entry(1, True)
    costs = predict(program, entry, 3, 60)
    assert [c.address for c in costs] == [a for a, _ in program.instructions(entry.address)]
    assert all(cost.cycles > 0 for cost in costs)
    slow = predict(program, entry, 3, 600)
    assert sum(c.cycles for c in slow) > sum(c.cycles for c in costs)
    far = predict(program, entry, 20, 60)
    assert sum(c.slices for c in far) > sum(c.slices for c in costs)


@pytest.mark.parametrize(
    ("part", "layer"),
    [
        ("h.0.attn: keys", "h.0"),
        ("h.11", "h.11"),
        ("layers.3.mlp.gate", "layers.3"),
        ("model.layers.3.mlp.gate", "model.layers.3"),
        ("lm_head", "lm_head"),
        ("rotary positions", "rotary positions"),
    ],
)
def test_layers(part, layer):
    assert layer_of(part) == layer


def test_explanation(programs, tmp_path):
    program = programs["eight rows", "llama"]
    found = explain(program, position=2)
    whole = found.total
    assert whole.measured is None and whole.predicted == sum(x.predicted for x in found.layers)
    assert 0 < found.mac_use(whole) < found.bus_use(whole) < 1
    data = found.as_dict()
    assert data["position"] == 2 and data["total"]["tiles"] == whole.tiles
    plot(found, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": 3}, "columns is 3, must be one of: 1, 2"),
        ({"position": 24}, "position is 24, must be 0 to 23"),
        ({"position": -1}, "position is -1, must be 0 to 23"),
        ({"latency": -1}, "latency is -1, must be 0 or more"),
    ],
)
def test_impossible_wishes(programs, options, words):
    with pytest.raises(UsageError, match=words):
        explain(programs["tiny", "gpt2"], **options)

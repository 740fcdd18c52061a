"""Throughput of whole models, from one layer and two, against what sessions measure."""

from collections import Counter

import pytest

from golden.config import get_config
from rf8.checkpoint.huggingface import graph_of
from rf8.compiler.driver import compile
from rf8.errors import DataError
from rf8.report.throughput import Point, measure, model_counters, whole_counters, zero_model
from rf8.runtime.session import Session
from sim.rtl import MemoryModel

TINY = get_config("tiny")
SMALL = {
    "model_type": "gpt2", "n_layer": 4, "n_embd": 24, "n_head": 4, "n_inner": 40, "vocab_size": 50,
    "n_positions": 40,
}  # fmt: skip


@pytest.mark.parametrize(("columns", "head"), [(1, True), (2, False)])
def test_layers_are_alike(columns, head):
    """What is told from one layer and two is what four take on the RTL."""
    told = whole_counters(SMALL, columns, head, 20, TINY, 23)
    program = compile(zero_model(graph_of(SMALL, "small"), 16), TINY)
    with Session(program, "rtl", memory=MemoryModel(latency=23)) as session:
        found = Counter(session.run_at(20, [0] * columns, head))
    assert all(told[name] == found[name] for name in ("read_weights", "written"))
    assert abs(told["cycles"] - found["cycles"]) < 0.01 * found["cycles"]
    assert abs(told["vector"] - found["vector"]) < 0.05 * found["vector"]


def test_records():
    points = [Point(TINY, latency) for latency in (5, 80)]
    steps = []
    models = {"small": SMALL}
    records = measure(points, models, (100, 250), progress=lambda *step: steps.append(step))
    assert [(r["latency"], r["phase"], r["position"]) for r in records] == [
        (5, "decode", 39), (5, "prefill", 38), (80, "decode", 39), (80, "prefill", 38),
    ]  # fmt: skip
    assert [number for _, number, _ in steps] == [0, 1, 2, 3, 4] and steps[-1][2] == 4
    fast, prefill, slow, _ = records
    whole = whole_counters(SMALL, 1, True, 39, TINY, 5)
    assert fast["cycles_per_token"] == whole["cycles"] < slow["cycles_per_token"]
    assert prefill["cycles_per_token"] < fast["cycles_per_token"]
    assert fast["tokens_per_s"] == {
        "100": pytest.approx(1e8 / whole["cycles"]),
        "250": pytest.approx(2.5e8 / whole["cycles"]),
    }
    assert fast["macs_per_token"] == 4 * 24 * (3 * 24 + 24 + 2 * 40) + 24 * 50
    for record in records:
        columns = 1 if record["phase"] == "decode" else TINY.cols
        assert 0 < record["mac_use"] <= columns / TINY.cols
        assert 0 < record["vector"] < record["cycles_per_token"]
        assert record["bandwidth_use"] <= 1 and record["source"] == "cycle model"


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="dot products of 1025 elements"):
        model_counters(graph_of({**SMALL, "n_inner": 1025}, "m"), 1, True, 0, TINY, 60)

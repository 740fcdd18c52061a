"""Throughput of whole models, from one layer and two, against what sessions measure."""

from collections import Counter
from dataclasses import replace

import pytest

from golden.config import get_config
from rf8.compiler import compile
from rf8.errors import DataError
from rf8.report import throughput
from rf8.report.throughput import MODELS, Point, measure, run_tokens, whole_counters, zero_model
from rf8.session import Session
from sim.rtl import MemoryModel

TINY = get_config("tiny")
SMALL = replace(MODELS["default"], layers=4, width=24, heads=4, inner=40, vocab=50, context=40)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """No results from before; simulators are still kept where they always are."""
    monkeypatch.setattr(throughput, "cache_dir", lambda: tmp_path)


@pytest.mark.parametrize(("columns", "head"), [(1, True), (2, False)])
def test_layers_are_alike(columns, head):
    """What is told from one layer and two is what four take, but for a few cycles of alignment."""
    memory = MemoryModel(latency=23)
    told = whole_counters(SMALL, columns, head, 20, TINY, memory)
    with Session(compile(zero_model(SMALL, 16), TINY), "rtl", memory=memory) as session:
        found = Counter(session.run_at(20, [0] * columns, head))
    exact = ("slices", "column_slices", "read_weights", "written")
    assert all(told[name] == found[name] for name in exact)
    assert abs(told["cycles"] - found["cycles"]) < 0.01 * found["cycles"]
    assert found["vector"] > 0 and abs(told["vector"] - found["vector"]) < 0.01 * found["vector"]


def test_records(monkeypatch):
    points = [Point(TINY, latency) for latency in (5, 80)]
    steps = []
    models = {"small": SMALL}
    records = measure(points, models, (100, 250), progress=lambda *step: steps.append(step))
    assert [(r["latency"], r["phase"], r["position"]) for r in records] == [
        (5, "decode", 39), (5, "prefill", 38), (80, "decode", 39), (80, "prefill", 38),
    ]  # fmt: skip
    assert [number for _, number, _ in steps] == [0, 1, 2, 3, 4] and steps[-1][2] == 4
    fast, prefill, slow, _ = records
    whole = whole_counters(SMALL, 1, True, 39, TINY, MemoryModel(latency=5))
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
        assert record["bandwidth_use"] <= 1 and record["source"] == "rtl, whole tokens"
    # What is known is not run again.
    monkeypatch.setattr(throughput, "Session", None)
    assert measure(points, models, (100, 250)) == records


def test_broken_results_are_measured_again(tmp_path):
    small = replace(SMALL, layers=1)

    def run(**changes):
        given = {"columns": 1, "head": True, "position": 3} | changes
        return run_tokens(small, config=TINY, memory=MemoryModel(), **given)

    expected = run()
    (kept,) = (tmp_path / "throughput").iterdir()
    for content in ("", "[]", "{}", kept.read_text().replace(str(expected["cycles"]), '"7"')):
        kept.write_text(content)
        assert run() == expected
    run(position=4)
    run(columns=2)
    run(head=False)
    assert len(list((tmp_path / "throughput").iterdir())) == 4


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="dot products of 1025 elements"):
        run_tokens(replace(SMALL, inner=1025), 1, True, 0, TINY, MemoryModel())

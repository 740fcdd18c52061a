"""The diagrams in docs are those of the hardware, and show what docs/hardware.md says."""

import pytest
from amaranth.hdl import Fragment

from hw.matrix.array import Array
from hw.vector.lane.lane import VectorLane
from hw.vector.unit import ELEMENTS_AT, VectorUnit
from sim.timing_diagrams import CONFIG, DIAGRAMS, DOCS, SEGMENTS, TILE, Wave, draw, segment, tile


def made(component):
    Fragment.get(component, None)  # else it counts as forgotten
    return component


def cycles(waves, name):
    """The cycles in which a wave is high."""
    (wave,) = (wave for wave in waves if wave.name == name)
    return [cycle for cycle, value in enumerate(wave.values) if value]


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_is_up_to_date(name):
    simulate, title = DIAGRAMS[name]
    drawn = draw(simulate(), title)
    assert (DOCS / f"{name}.svg").read_text() == drawn, "run python -m sim.timing_diagrams"


def test_phases_of_a_tile():
    waves = tile()
    valid, last = cycles(waves, "feed.valid"), cycles(waves, "feed.last")
    results, hold = cycles(waves, "results.valid"), cycles(waves, "feed.hold")
    assert len(valid) == 2 * TILE and not set(valid) & set(hold)
    latency = made(Array(CONFIG)).latency
    assert results == [end + latency + row for end in last for row in range(CONFIG.rows)]
    assert len(hold) == 2 * CONFIG.bins
    assert last[1] not in cycles(waves, "feed.busy")


def test_phases_of_a_segment():
    waves = segment()
    (start,), (done,) = cycles(waves, "run.start"), cycles(waves, "run.done")
    loads, ends = cycles(waves, "reader.load"), cycles(waves, "sums.end")
    assert len(loads) == len(ends) == len(cycles(waves, "finish.set")) == SEGMENTS
    reads, results = cycles(waves, "word.valid"), cycles(waves, "result.valid")
    assert results == [cycle + ELEMENTS_AT + VectorLane.latency for cycle in reads]
    assert loads[0] == start + 3 and done == cycles(waves, "finish.header")[-1]
    lasts = cycles(waves, "word.last")
    assert max(lasts[1], ends[0]) < done
    assert made(VectorUnit(CONFIG)).drain == ends[0] - lasts[0]


def test_a_wave_is_drawn():
    drawn = draw([Wave("wire", ["", "1", "1"]), Wave("bus", ["", "7", ""], wire=False)], "Two")
    assert "<title>Two</title>" in drawn and ">wire</text>" in drawn and ">7</text>" in drawn

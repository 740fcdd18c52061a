"""docs/waveforms/rf8.gtkw names signals that there are, with their widths, in config tiny."""

import re
from pathlib import Path

from golden.config import CONFIGS
from hw.top import Accelerator
from hw.verilog import convert

FILE = Path(__file__).parents[2] / "docs" / "waveforms" / "rf8.gtkw"
DECLARED = re.compile(
    r"^  (?:input |output )?(?:wire |reg )(?:\[(\d+):0\] )?\\?([^\s;]+) ?[;=]", flags=re.M
)


def test_every_signal_is_there():
    text = convert(Accelerator(CONFIGS["tiny"]), name="rf8")
    modules = {}
    for body in re.split(r"^module ", text, flags=re.M)[1:]:
        name = re.match(r"\\?([^\s(]+)", body)[1]
        modules[name] = {n: int(high or 0) + 1 for high, n in DECLARED.findall(body)}
    found = [line for line in FILE.read_text().splitlines() if line.startswith("TOP.")]
    assert len(found) > 50
    for line in found:
        path, name, high = re.fullmatch(r"TOP\.(?:(.+)\.)?(\w+)(?:\[(\d+):0\])?", line).groups()
        assert modules[path or "rf8"].get(name) == int(high or 0) + 1, line

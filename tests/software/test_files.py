"""Output files appear whole or not at all."""

import os

import pytest

from rf8.errors import DataError
from rf8.files import replaced_file, replaced_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "new" / "out.txt"
    with replaced_file(path) as temporary:
        temporary.write_text("all of it")
        assert not path.exists()
    assert path.read_text() == "all of it" and names(path.parent) == ["out.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file(tmp_path, failure):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(type(failure)), replaced_file(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old" and names(tmp_path) == ["out.txt"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    with pytest.raises(DataError, match="is a directory"), replaced_file(tmp_path):
        pass
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="no regular file"), replaced_file(tmp_path / "pipe"):
        pass


def test_a_folder_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "ours").write_text("old")
    with replaced_folder(path, lambda folder: True) as temporary:
        (temporary / "new").write_text("new")
        assert names(path) == ["ours"]
    assert names(path) == ["new"] and names(tmp_path) == ["model"]


def test_a_failure_leaves_the_old_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "ours").write_text("old")
    with pytest.raises(ValueError), replaced_folder(path, lambda folder: True) as temporary:
        (temporary / "half").write_text("half")
        raise ValueError
    assert names(path) == ["ours"] and names(tmp_path) == ["model"]


def test_others_files_are_not_replaced(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    others = pytest.raises(DataError, match="holds other files")
    with others, replaced_folder(tmp_path, lambda folder: False):
        pass
    (tmp_path / "file").write_text("x")
    none = pytest.raises(DataError, match="is no directory")
    with none, replaced_folder(tmp_path / "file", lambda folder: True):
        pass
    assert names(tmp_path) == ["file", "letters.txt"]

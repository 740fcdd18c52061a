"""What is fetched is kept whole, and a failure says what is missing."""

import io
import sys
import tarfile
import zipfile

import pytest

from rf8 import download
from rf8.errors import DataError


def test_a_folder_is_filled_once(tmp_path):
    calls = []

    def fill(folder):
        calls.append(folder)
        (folder / "text").write_text("kept")

    for _ in range(2):
        assert (download.cached(tmp_path / "a" / "b", fill) / "text").read_text() == "kept"
    assert len(calls) == 1


def test_an_interrupted_fill_leaves_nothing(tmp_path):
    def fill(folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.cached(tmp_path / "kept", fill)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["false"], ["no-such-program-at-all"]])
def test_a_failed_command_is_named_with_a_hint(command):
    with pytest.raises(DataError, match=rf"^{command[0]}: .*; try again"):
        download.run(command, "try again")


def test_the_last_line_of_complaint_is_shown():
    script = "import sys; sys.exit('first\\nthe reason')"
    with pytest.raises(DataError, match="the reason; hint"):
        download.run([sys.executable, "-c", script], "hint")
    assert download.run([sys.executable, "-c", "print(7)"], "hint") == "7\n"


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_packages_are_unpacked_and_not_installed(tmp_path, monkeypatch, kind):
    seen = []

    def pip(command, hint, cwd=None):
        seen.append(command)
        folder = command[command.index("--dest") + 1]
        if kind == "wheel":
            with zipfile.ZipFile(f"{folder}/p.whl", "w") as archive:
                archive.writestr("p/data.txt", "found")
        else:
            with tarfile.open(f"{folder}/p.tar.gz", "w:gz") as archive:
                member = tarfile.TarInfo("p/data.txt")
                member.size = 5
                archive.addfile(member, io.BytesIO(b"found"))
        return ""

    monkeypatch.setattr(download, "run", pip)
    getattr(download, kind)("p==1", tmp_path)
    assert (tmp_path / "p" / "data.txt").read_text() == "found"
    assert "--no-deps" in seen[0] and seen[0][-1] == "p==1"


def test_an_archive_does_not_write_outside(tmp_path, monkeypatch):
    def pip(command, hint, cwd=None):
        folder = command[command.index("--dest") + 1]
        with tarfile.open(f"{folder}/p.tar.gz", "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
        return ""

    monkeypatch.setattr(download, "run", pip)
    with pytest.raises(tarfile.OutsideDestinationError):
        download.sdist("p==1", tmp_path / "inside")
    assert not (tmp_path / "outside").exists()

"""``rf8 fit`` on the model that comes with the package."""

import base64
import json
import re

from command import rf8


def test_fit_writes_table_pictures_and_page(tmp_path):
    done = rf8("fit", "default", "-o", tmp_path / "fit", "--json")
    assert done.returncode == 0, done.stderr
    tensors = json.loads(done.stdout)["tensors"]
    assert len(tensors) == 18
    for row in tensors.values():
        assert 0.3 < row["shape"] < 4 and row["shape_se"] < 0.2
        assert row["beats_gaussian"] == (row["gain_over_gaussian"] > 0)
    pictures = {p.stem: p.read_bytes() for p in (tmp_path / "fit").glob("*.png")}
    assert set(pictures) == set(tensors)
    page = (tmp_path / "fit" / "fit.html").read_text()
    inline = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [base64.b64decode(data) for data in inline] == [pictures[name] for name in tensors]
    assert "http" not in page, "nothing is fetched"
    again = rf8("fit", "default", "--method", "moments", "-o", tmp_path / "fit")
    assert again.returncode == 0 and "over Gaussian" in again.stdout


def test_other_folders_are_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = rf8("fit", "default", "--method", "moments", "-o", tmp_path)
    assert done.returncode == 1 and "holds other files" in done.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"

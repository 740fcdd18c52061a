"""The report page. All numbers here are invented, and no report is made of them."""

import copy
import json
import re
import shutil
from xml.etree import ElementTree

import pytest

from rf8.errors import DataError
from rf8.report import __main__ as command
from rf8.report import area, check, lanes, page, plots, sky130, tables
from rf8.report.page import write_report
from rf8.report.schema import FORMATS, LISTS, TARGETS, perplexities, validate

FILES = ["index.html", "report.json", "report.md"]


def lane(format_, target, bits, size, **changes):
    sky = target == "sky130"
    entry = {"format": format_, "act_bits": bits, "align": 2, "span": 16, "style": "invented"}
    entry |= {"target": target, "lut_equiv": None if sky else size, "um2": size if sky else None}
    entry |= {"lut": 11, "carry": 22, "lutram": 0, "ff": 33, "dsp": 0, "amortised_over": "4x2"}
    return entry | changes


def record(phase, latency=60, **changes):
    entry = {"model": "invented model", "phase": phase, "config": "invented", "rows": 4, "cols": 2}
    entry |= {"bus_bits": 32, "latency": latency, "position": 9, "cycles_per_token": 1111.0}
    entry |= {"macs_per_token": 2222, "bytes_per_token": 3333.0, "tokens_per_s": {"80": 99.0}}
    entry |= {
        "bandwidth_use": 0.75,
        "mac_use": 0.25,
        "stall_weights": 11.0,
        "stall_drain": 0.0,
        "vector": 22.0,
    }
    return entry | {"source": "invented"} | changes


def invented():
    sizes = dict(zip(FORMATS, (60, 100, 150, 120, 40, 80), strict=True))
    titles = {"float32": "float32", "rf8": "RF8, nearest", "int8": "INT8", "e4m3": "FP8 E4M3"}
    titles |= {"e5m2": "FP8 E5M2", "pot": "power of two"}
    values = dict(zip(titles, (10.0, 12.0, 11.0, 11.5, 12.5, 999.0), strict=True))
    parts = [(f"part {n}", 1000 // (n + 1)) for n in range(9)]
    pieces = dict.fromkeys(area.PARTS, 10.0)
    return {
        "lanes": [
            lane(name, target, bits, float(size * bits / 8))
            for target in TARGETS
            for bits in (8, 16)
            for name, size in sizes.items()
        ],
        "parts": [
            {"format": name, "act_bits": 8, "target": "ecp5", "part": part, "lut_equiv": size,
             "ff": 77}
            for name in ("rf8", "int8")
            for part, size in pieces.items()
        ],
        "components": [
            {"config": "invented", "component": name, "target": "ecp5", "lut_equiv": n, "ff": 1}
            for name, n in [*parts, ("whole", 99999)]
        ],
        "targets": [
            {"name": "invented aim", "limit": 0.5, "value": 0.25, "met": True},
            {"name": "another", "limit": "< 3", "value": 4, "met": False},
            {"name": "a third", "limit": None, "value": None, "met": None},
        ],
        "timing": [
            {
                "design": "invented design", "device": "device", "speed_grade": 6,
                "seeds": [{"seed": 1, "fmax_mhz": 7.0}, {"seed": 2, "fmax_mhz": 8.0}],
                "fmax_mhz": 7.0, "target_mhz": 7.5, "critical_path": "a -> b",
                "commit": "c" * 40, "date": "1970-01-01", "tools": {"tool": "0"},
            }
        ],
        "throughput": [record("decode"), record("prefill", mac_use=0.9), record("decode", 200)],
        "perplexity": [
            {"model": "invented model", "format": name, "title": title, "perplexity": values[name],
             "source": "invented"}
            for name, title in titles.items()
        ],
        "tools": {"some tool": "0.0"},
        "commit": "0" * 40,
    }  # fmt: skip


@pytest.fixture
def report():
    return invented()


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder with the report; drawing it takes a second."""
    folder = tmp_path_factory.mktemp("once")
    write_report(invented(), folder)
    return folder


@pytest.fixture
def written(once, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(once, tmp_path / "written")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


WRONG = {
    "report has no 'lanes'": lambda r: r.pop("lanes"),
    "report has no 'commit'": lambda r: r.pop("commit"),
    "report.timing is {}, must be a list": lambda r: r.update(timing={}),
    "report.lanes[1] has no 'um2'": lambda r: r["lanes"][1].pop("um2"),
    "report.lanes[0].ff is 'x', must be a number or null": lambda r: r["lanes"][0].update(ff="x"),
    "report.lanes[0].ff is True, must be a number or null": lambda r: r["lanes"][0].update(ff=True),
    "report.lanes[0].ff is nan, must be a number or null": lambda r: r["lanes"][0].update(
        ff=float("nan")
    ),
    "report.lanes[0].act_bits is 8.0, must be an integer": lambda r: r["lanes"][0].update(
        act_bits=8.0
    ),
    "report.lanes[0].format is 'int4', must be one of rf8, int8": lambda r: r["lanes"][0].update(
        format="int4"
    ),
    "report.lanes[0].target is [], must be one of ecp5": lambda r: r["lanes"][0].update(target=[]),
    "report.targets[0].met is 1, must be true or false or null": lambda r: r["targets"][0].update(
        met=1
    ),
    "report.timing[0].seeds[1] has no 'fmax_mhz'": lambda r: r["timing"][0]["seeds"][1].pop(
        "fmax_mhz"
    ),
    "report.throughput[0].tokens_per_s.80 is None, must be a number": lambda r: r["throughput"][0][
        "tokens_per_s"
    ].update({"80": None}),
    "report.components[0] is 3, must be a dict": lambda r: r.update(components=[3]),
    "report.tools.yosys is 3, must be text": lambda r: r["tools"].update(yosys=3),
    "report.method[0] is 3, must be text": lambda r: r.update(method=[3]),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_reports_are_refused(report, tmp_path, message):
    validate(report)
    WRONG[message](report)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        write_report(report, tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_written(report, tmp_path):
    paths = write_report(report, tmp_path / "new")
    assert sorted(path.name for path in paths) == names(tmp_path / "new") == FILES
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == report
    text = (tmp_path / "new" / "index.html").read_text()
    labels = re.findall('<svg role="img" aria-label="([^"]*)', text)
    starts = ("Roofline", "Area of the best lane", "Area of whole", "Perplexity over area", "Where")
    for start in starts:
        assert any(label.startswith(start) for label in labels), start
    assert len(labels) == 6, "perplexity has two targets"
    assert not re.search(r"(src|href)=\"(?!#)|url\((?!#)|@import", text.replace("xlink:", ""))
    for figure in re.findall("<svg.*?</svg>", text, re.DOTALL):
        assert "#0102" not in figure and "DejaVu" not in figure
        ElementTree.fromstring(figure)
    # The same tables, row by row.
    markdown = (tmp_path / "new" / "report.md").read_text()
    assert markdown.count("\n|") == text.count("<tr") + text.count("<table")
    for list_ in LISTS:
        assert report[list_], list_
    for shown in ("invented aim", "invented design", "invented model", "part 8", "some tool"):
        assert shown in text and shown in markdown
    assert "attention, norms and activation functions run on the host" in text


def test_same_report_same_bytes(report, written, tmp_path):
    before = {name: (written / name).read_bytes() for name in FILES}
    write_report(report, tmp_path)
    assert before == {name: (tmp_path / name).read_bytes() for name in FILES}


def test_all_or_nothing(report, written):
    before = {name: (written / name).read_bytes() for name in FILES}
    broken = copy.deepcopy(report)
    broken["lanes"][0].pop("style")
    with pytest.raises(DataError):
        write_report(broken, written)
    assert before == {name: (written / name).read_bytes() for name in FILES}
    (written / "report.md").unlink()
    (written / "report.md").mkdir()
    with pytest.raises(DataError, match=r"report\.md is a directory"):
        write_report(report | {"commit": "1" * 40}, written)
    assert (written / "index.html").read_bytes() == before["index.html"]
    assert names(written) == FILES, "nothing temporary stays"


def test_empty_and_hostile(report, tmp_path):
    report |= {name: [] for name in LISTS}
    write_report(report, tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert "there is no answer on area yet" in text and "<svg" not in text
    report["components"] = [
        {"config": "<script>", "component": "a|b", "target": "<b>", "lut_equiv": 3, "ff": None}
    ]
    write_report(report, tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert "<script>" not in text and "<b>" not in text and "&lt;script&gt;" in text
    assert "a\\|b" in (tmp_path / "report.md").read_text()


def test_best_lanes_share_an_array(report):
    small = [
        lane("int8", "ecp5", 8, 50.0, amortised_over="1x1"),
        lane("int8", "ecp5", 8, 90.0, amortised_over="16x4"),
        lane("int8", "ecp5", 8, 80.0, amortised_over="16x4"),
        lane("rf8", "ecp5", 8, 60.0, amortised_over="16x4"),
        lane("rf8", "ecp5", 8, 10.0, amortised_over="64x4"),
        lane("rf8", "ecp5", 8, None, amortised_over="16x4"),
    ]
    best = lanes.best_lanes(small)["ecp5", 8]
    assert (best["int8"]["lut_equiv"], best["rf8"]["lut_equiv"]) == (80, 60)
    assert lanes.ratios(small) == {("ecp5", 8): 0.75}
    assert lanes.area(report["lanes"][-1]) == report["lanes"][-1]["um2"]


def test_verdict_follows_the_figures(report):
    answer, for_, against = lanes.verdict(report)
    assert "smaller than the best INT8 lane in 10 of 10 comparisons" in answer
    assert "it has 0.60 to 0.60 of its area" in answer
    assert sum("Area decides" in line for line in for_) == len(TARGETS)
    assert any("11.00 with INT8, 12.00 (nearest) with RF8" in line for line in against)
    assert not any("all 16 exponents" in line for line in against), "the best ones keep them"
    report["lanes"].append(lane("rf8", "sky130", 8, 50.0, span=8))
    line = next(x for x in lanes.verdict(report)[2] if "all 16 exponents" in x)
    assert "have 0.40 to 0.40 of the area of FP8 E4M3" in line
    report["lanes"].pop()
    for entry in report["lanes"]:
        if entry["format"] == "rf8" and entry["target"] == "xc7":
            entry["lut_equiv"] *= 3
        if entry["format"] == "rf8" and entry["target"] == "ice40":
            entry["lut_equiv"] *= 1.6
    answer, for_, against = lanes.verdict(report)
    assert "6 of 10 comparisons, as large (within 5%) in 2, and larger in 2: it has 0.60" in answer
    assert any("less area on iCE40: 0.96 x (8-bit) and 0.96 x (16-bit)" in x for x in against)
    fp8 = "FP8 E4M3 is the alternative: RF8 has 0.40 to 1.20 of its area."
    assert fp8 in against and fp8 not in for_
    assert "You build on Xilinx 7: 1.80 x (8-bit) and 1.80 x (16-bit) the area" in against[0]
    assert not any("Xilinx" in line for line in for_)


def test_targets_are_ratios_of_the_best(report):
    # Invented: RF8 has 0.6 of INT8's area and 0.4 of E4M3's.
    found = lanes.targets(report["lanes"])
    assert [(t["limit"], t["value"], t["met"]) for t in found[:3]] == [
        (0.9, 0.6, True), (0.75, 0.6, True), (0.75, 0.4, True),
    ]  # fmt: skip
    assert found[0]["name"] == "RF8 / INT8, ECP5 without DSP, 8-bit activations"
    report["lanes"].append(lane("int8", "ecp5", 8, 50.0, style="smaller"))
    missed = lanes.targets(report["lanes"])[0]
    assert (missed["value"], missed["met"]) == (1.2, False)
    assert {(t["value"], t["met"]) for t in lanes.targets([])} == {(None, None)}


def test_floor_follows_the_figures(report):
    text = " ".join(lanes.floor(report))
    assert "0 of 8 targets for area are missed" in text and "16-bit activations:" not in text
    # Seven parts of 10; all but two of them are needed; INT8 has the same.
    assert "are 0.71 of an INT8 lane; the whole is 1.00" in text
    assert "SKY130" not in text, "no lane with bins was measured there"
    report["lanes"].append(lane("rf8", "sky130", 8, 5000.0, style="bins"))
    flip_flops = 33 * lanes.FLIP_FLOP_UM2  # of 60 um2: invented
    assert f"{flip_flops / 60:.0%} of an RF8 lane" in lanes.floor(report)[-1]
    assert pytest.approx(sky130.cell_area(sky130.FLIP_FLOP)) == lanes.FLIP_FLOP_UM2
    report["parts"] = []
    assert lanes.floor(report) == []


def test_sizes_have_those_measured_twice(report):
    report["lanes"] += [
        lane("rf8", "ecp5", 8, 70.0, amortised_over="16x4"),
        lane("rf8", "ecp5", 8, 66.0, amortised_over="16x4"),
    ]
    table = tables.sizes(report)
    assert table.header[3:] == ("4x2", "16x4")
    assert table.rows == [("RF8", "ECP5 without DSP", "8 bit", "60", "66")]


def test_the_whole_is_no_component_of_the_figure(report):
    drawn = plots.components(report)
    report["components"].pop()
    assert plots.components(report) == drawn
    report["components"].pop()
    assert plots.components(report) != drawn


def test_perplexities_are_those_of_the_experiments():
    found = {(e["model"], e["title"]): e["perplexity"] for e in perplexities()}
    assert found["smollm2-135m", "RF8, compensated"] == pytest.approx(29.69, abs=0.005)
    assert found["default", "RF8, compensated"] == pytest.approx(15.60, abs=0.005)
    assert found["default", "INT8"] == pytest.approx(15.57, abs=0.005)


def test_command(report, tmp_path, capsys):
    assert command.main(["-o", str(tmp_path), "--json"], lambda: report) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert names(tmp_path) == FILES
    report.pop("lanes")
    assert command.main(["-o", str(tmp_path)], lambda: report) == 1
    assert capsys.readouterr().err == "rf8.report: report has no 'lanes'\n"
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "examples:" in capsys.readouterr().out
    assert re.fullmatch(r"[0-9a-f]{40}\+?|unknown", command.commit())
    assert "python" in command.versions()


@pytest.mark.needs("chromium")
def test_page_passes_in_a_browser(written, tmp_path):
    assert check.check(written, tmp_path / "shots" / "a.png") == []
    shots = {path.name: path.read_bytes() for path in (tmp_path / "shots").iterdir()}
    assert sorted(shots) == [f"a-{w}-{s}.png" for w in (1280, 390) for s in ("dark", "light")]
    assert all(data.startswith(b"\x89PNG") for data in shots.values())
    assert len(set(shots.values())) == 4, "light is not dark"


BROKEN = {
    "console error: Error: oops": ("</body>", "<script>throw new Error('oops')</script></body>"),
    "console error: bad 3": ("</body>", "<script>console.error('bad', 3)</script></body>"),
    "svg lane-bars is not visible": ('aria-label="Area of the best', 'style="display: none" x="'),
    "figure components is not visible": ("<figure>", '<figure style="visibility: hidden">'),
    "table timing-table is not visible": ('<table id="timing', '<table hidden id="timing'),
    "the page is 980 pixels wide": ('<meta name="viewport"', '<meta name="other"'),
    "the page is 2000 pixels wide": ("<footer>", '<footer style="min-width: 2000px">'),
    "not self-contained: it loads file:///": ("</body>", "<img src=nothing.png></body>"),
}


@pytest.fixture(scope="module")
def browser():
    with check.Browser() as started:
        yield started


@pytest.mark.parametrize("message", BROKEN)
@pytest.mark.needs("chromium")
def test_check_finds(written, message, browser):
    path = written / "index.html"
    assert check.inspect(browser, path.as_uri(), 390, "light") == []
    old, new = BROKEN[message]
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    found = check.inspect(browser, path.as_uri(), 390, "light")
    assert any(message in line for line in found), found


@pytest.mark.needs("chromium")
def test_check_fails_with_one_line(written, capsys):
    path = written / "index.html"
    path.write_text(path.read_text() + "<script>console.error('bad')</script>")
    assert check.main([str(written)]) == 1
    shown = capsys.readouterr().err
    assert shown == ("rf8.report.check: 390 pixels, light: console error: bad (and 3 more)\n")


def test_check_without_browser_or_page(written, tmp_path, capsys, monkeypatch):
    assert check.main([str(tmp_path / "none")]) == 1
    assert "index.html is missing: make it with `python -m rf8.report" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check.main([str(written)]) == 1
    shown = capsys.readouterr().err
    assert shown == "rf8.report.check: chromium is missing: apt-get install chromium\n"


def test_template_is_there():
    assert page.TEMPLATE.is_file()

"""Tables of the report, each written once and shown as HTML and as Markdown."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rf8.report.lanes import area, best_lanes, lane_count
from rf8.report.schema import FORMATS, TARGETS

Report = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of text. ``key`` is its anchor; columns from ``numbers`` on are right-aligned."""

    key: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: int = 1

    def html(self) -> str:
        """The table as HTML; nothing where it has no rows."""
        if not self.rows:
            return ""
        head = "".join(self._cell("th", n, text) for n, text in enumerate(self.header))
        body = "\n".join(
            f'<tr class="{"rf8" if row[0].split(",")[0] == "RF8" else "other"}">{cells}</tr>'
            for row in self.rows
            for cells in ["".join(self._cell("td", n, text) for n, text in enumerate(row))]
        )
        long_ = " long" if len(self.rows) > 16 else ""
        return (
            f'<div class="scroll{long_}" tabindex="0"><table id="{self.key}"><thead><tr>{head}</tr>'
            f"</thead><tbody>\n{body}</tbody></table></div>"
        )

    def _cell(self, tag: str, column: int, text: str) -> str:
        names = ["n"] if column >= self.numbers else []
        names += [text] if text in ("met", "missed") else []
        return f'<{tag} class="{" ".join(names)}">{html.escape(text)}</{tag}>'

    def markdown(self) -> str:
        """The table as Markdown; nothing where it has no rows."""
        if not self.rows:
            return ""
        rule = ["---"] * self.numbers + ["---:"] * (len(self.header) - self.numbers)
        lines = [self.header, tuple(rule)]
        lines += [tuple(text.replace("|", "\\|") for text in row) for row in self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def number(value: object, digits: int = 4) -> str:
    """A number for readers: ``digits`` significant ones, thousands apart; null is a dash."""
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def targets(report: Report) -> Table:
    """What was aimed at beside what was reached."""
    words = {True: "met", False: "missed", None: "–"}
    rows = [
        (t["name"], number(t["limit"]), number(t["value"]), words[t["met"]])
        for t in report["targets"]
    ]
    return Table("targets-table", ("target", "limit", "reached", ""), rows)


def best(report: Report) -> Table:
    """Area of the smallest lane of each format, and in brackets that over the best INT8 lane's."""
    found = best_lanes(report["lanes"])
    formats = [f for f in FORMATS if any(f in lanes for lanes in found.values())]
    rows = []
    for (target, bits), lanes in found.items():
        base = area(lanes["int8"]) if "int8" in lanes else None
        cells = []
        for name in formats:
            size = area(lanes[name]) if name in lanes else None
            ratio = f" ({size / base:.2f})" if size is not None and base else ""
            cells.append(("–" if size is None else f"{size:,.1f}") + ratio)
        over = next(iter(lanes.values()))["amortised_over"]
        rows.append((TARGETS[target], f"{bits} bit", *cells, over))
    header = ("target", "activations", *(FORMATS[f] for f in formats), "array")
    return Table("best-table", header, rows, numbers=2)


def lanes(report: Report) -> Table:
    """Every lane that was measured, smallest first within target and activation width."""
    order = list(TARGETS)
    known = sorted(
        report["lanes"],
        key=lambda x: (order.index(x["target"]), x["act_bits"], area(x) or float("inf")),
    )
    keys = ("lut", "carry", "lutram", "ff", "dsp", "um2")
    rows = [
        (
            FORMATS[x["format"]],
            TARGETS[x["target"]],
            f"{x['act_bits']} bit",
            "–" if x["align"] is None else f"align {x['align']}, span {number(x['span'])}",
            x["style"],
            number(x["lut_equiv"]),
            *(number(x[key]) for key in keys),
            x["amortised_over"],
        )
        for x in known
    ]
    header = ["format", "target", "activations", "alignment", "style", "LUT-equivalents", "LUT"]
    header += ["carry", "LUT-RAM", "FF", "DSP", "µm²", "array"]
    return Table("lanes-table", tuple(header), rows, numbers=5)


def sizes(report: Report) -> Table:
    """Area of a lane in arrays of several sizes: what sharing brings. Smallest lane of each."""
    smallest: dict[tuple[str, str, int], dict[str, float]] = defaultdict(dict)
    for x in report["lanes"]:
        size, over = area(x), x["amortised_over"]
        if size is not None:
            known = smallest[x["format"], x["target"], x["act_bits"]]
            known[over] = min(size, known.get(over, size))
    compared = {key: found for key, found in smallest.items() if len(found) > 1}
    columns = sorted({size for found in compared.values() for size in found}, key=lane_count)
    rows = [
        (
            FORMATS[name],
            TARGETS[target],
            f"{bits} bit",
            *(number(found.get(size)) for size in columns),
        )
        for (name, target, bits), found in sorted(
            compared.items(), key=lambda item: (item[0][1:], list(FORMATS).index(item[0][0]))
        )
    ]
    return Table("sizes-table", ("format", "target", "activations", *columns), rows, numbers=3)


def parts(report: Report) -> Table:
    """Where the area of a lane goes, a column for each lane, and the flip-flops in brackets."""
    cells: dict[str, dict[tuple[str, int], dict[str, Any]]] = defaultdict(dict)
    for x in report["parts"]:
        cells[x["part"]][x["format"], x["act_bits"]] = x
    lanes = sorted(
        {lane for found in cells.values() for lane in found},
        key=lambda lane: (lane[1], list(FORMATS).index(lane[0])),
    )
    rows = []
    for part, found in cells.items():
        shown = [found.get(lane, {}) for lane in lanes]
        pairs = [(number(x.get("lut_equiv") or None), x.get("ff")) for x in shown]
        rows.append((part, *(size + (f" ({number(ff)})" if ff else "") for size, ff in pairs)))
    header = ("part", *(f"{FORMATS[name]}, {bits} bit" for name, bits in lanes))
    return Table("parts-table", header, rows)


def components(report: Report) -> Table:
    """Whole accelerators by component. Columns that no entry has are left out."""
    titles = {"lut_equiv": "LUT-equivalents", "lut": "LUT", "carry": "carry", "lutram": "LUT-RAM"}
    titles |= {"ff": "FF", "bram": "block RAM", "dsp": "DSP", "um2": "µm²"}
    used = [k for k in titles if any(e.get(k) is not None for e in report["components"])]
    rows = [
        (
            e["config"],
            TARGETS.get(e["target"], e["target"]),
            e["component"],
            *(number(e.get(key)) for key in used),
        )
        for e in report["components"]
    ]
    header = ("config", "target", "component", *(titles[key] for key in used))
    return Table("components-table", header, rows, numbers=3)


def timing(report: Report) -> Table:
    """Clock rates after placement and routing: the lowest over the seeds counts."""
    rows = []
    for t in report["timing"]:
        aim = t["target_mhz"]
        grade = "" if t["speed_grade"] is None else f"-{t['speed_grade']}"
        seeds = " ".join(f"{seed['fmax_mhz']:.1f}" for seed in t["seeds"])
        met = "–" if aim is None else "met" if t["fmax_mhz"] >= aim else "missed"
        rows.append(
            (
                t["design"],
                t["device"] + grade,
                t["critical_path"] or "–",
                number(t["fmax_mhz"]),
                number(aim),
                met,
                seeds,
                t["date"],
                t["commit"][:10],
            )
        )
    header = ("design", "device", "critical path", "lowest MHz", "target", "", "each seed, MHz")
    return Table("timing-table", (*header, "date", "commit"), rows, numbers=3)


def throughput(report: Report) -> Table:
    """Cycles and tokens of whole models."""
    clocks = sorted({clock for r in report["throughput"] for clock in r["tokens_per_s"]}, key=float)
    rows = []
    for r in sorted(
        report["throughput"],
        key=lambda r: (r["model"], r["phase"], r["rows"], r["bus_bits"], r["latency"]),
    ):
        cycles = r["cycles_per_token"]
        speeds = [number(r["tokens_per_s"].get(clock), 3) for clock in clocks]
        rows.append(
            (
                r["model"],
                r["phase"],
                f"{r['rows']} x {r['cols']}",
                f"{r['bus_bits']} bit",
                str(r["latency"]),
                f"{cycles:,.0f}",
                *speeds,
                f"{r['bandwidth_use']:.1%}",
                f"{r['mac_use']:.1%}",
                f"{r['vector'] / cycles:.1%}",
                f"{r['stall_weights'] / cycles:.1%}",
                f"{r['stall_drain'] / cycles:.1%}",
            )
        )
    header = [
        *("model", "phase", "array", "bus", "latency", "cycles a token"),
        *(f"tokens/s at {clock} MHz" for clock in clocks),
        *("bus use", "MAC use", "vector unit", "waits for weights", "waits for drain"),
    ]
    return Table("throughput-table", tuple(header), rows, numbers=2)


def perplexity(report: Report) -> Table:
    """Perplexities that the experiments measured."""
    rows = [
        (e["title"], e["model"], f"{e['perplexity']:.2f}", e["source"])
        for e in sorted(report["perplexity"], key=lambda e: (e["model"], e["perplexity"]))
    ]
    return Table("perplexity-table", ("format", "model", "perplexity", "from"), rows, numbers=2)


def tools(report: Report) -> Table:
    """Versions of everything that took part."""
    rows = sorted((name, version) for name, version in report["tools"].items())
    return Table("tools-table", ("tool", "version"), rows)

"""Figures of the report: SVG that takes its ink from the page, and so fits light and dark."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from rf8.report.lanes import area, best_lanes, place, unit
from rf8.report.schema import FORMATS, TARGETS, WHOLE

Report = dict[str, Any]
P = ParamSpec("P")

COLOURS = {
    "rf8": "#e8590c",
    "int8": "#3b82f6",
    "e4m3": "#0f9d6e",
    "e5m2": "#8a9a1b",
    "pot": "#a855f7",
    "apot2": "#db5a95",
}
"""Colour of each format; all stand out from white and from black."""

OTHERS = ("#3b82f6", "#e8590c", "#0f9d6e", "#a855f7", "#8a9a1b", "#db5a95", "#2ba6b8")
REST = "#8b929c"

# Colours that matplotlib cannot know; they become the page's own.
INK, GRID = "#010203", "#010204"

STYLE = {
    "font.size": 9,
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

WIDTH = 5.4  # inches: at a phone's width letters stay legible
LABELLED = 1.6
"""Perplexities above this many times the float one are named, not drawn: they would flatten all
others."""


def _styled(draw: Callable[P, str | None]) -> Callable[P, str | None]:
    """Run ``draw`` with the style of these figures, and leave that of others as it is."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> str | None:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
def roofline(report: Report) -> str | None:
    """MACs a cycle over MACs per byte of bus traffic, and what each machine could attain."""
    records = [r for r in report["throughput"] if r["latency"] == 60] or report["throughput"]
    if not records:
        return None
    figure, axes = _figure(3.9)
    machines = list(
        dict.fromkeys((r["config"], r["rows"], r["cols"], r["bus_bits"]) for r in records)
    )
    low, high = 0.25, 16.0
    for (config, rows, cols, bus), colour in zip(machines, OTHERS * len(machines), strict=False):
        knee = rows * cols / (bus / 8)
        top = rows * cols
        axes.plot(
            [low, knee, high], [low * bus / 8, top, top], color=colour, linewidth=1.4,
            label=f"{config}: {rows} x {cols}, {bus} bit",
        )  # fmt: skip
        for record in records:
            if (record["config"], record["rows"], record["bus_bits"]) == (config, rows, bus):
                x = record["macs_per_token"] / record["bytes_per_token"]
                y = record["macs_per_token"] / record["cycles_per_token"]
                decode = record["phase"] == "decode"
                axes.plot(
                    x, y, "o" if decode else "s", color=colour, markersize=6,
                    markerfacecolor=colour if decode else "none",
                )  # fmt: skip
    axes.plot([], [], "o", color=INK, label="decode, one column")
    axes.plot([], [], "s", color=INK, markerfacecolor="none", label="prefill, all columns")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlim(low, high)
    axes.set_xlabel("MACs per byte on the bus")
    axes.set_ylabel("MACs a cycle")
    axes.grid(color=GRID, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, loc="lower right", labelcolor=INK)
    return _svg(figure, "roofline", "Roofline with the measured points of decode and prefill")


@_styled
def lane_bars(report: Report) -> str | None:
    """Area of the best lane of each format over that of the best INT8 lane."""
    found = {k: b for k, b in best_lanes(report["lanes"]).items() if area(b.get("int8", _NONE))}
    if not found:
        return None
    # From the top: groups, and in each its formats.
    bars = [
        (group, FORMATS[name], COLOURS[name], (area(lane) or 0) / (area(best["int8"]) or 1))
        for group, best in enumerate(found.values())
        for name, lane in best.items()
    ]
    height = 0.19 * len(bars) + 0.34 * len(found) + 0.5
    figure, axes = _figure(height)
    y, ticks, last = 0.0, [], -1
    widest = max(ratio for *_, ratio in bars)
    for group, title, colour, ratio in bars:
        if group != last:
            y += 1.8
            axes.text(
                0, y - 0.9, place(list(found)[group]), fontsize=8.5, weight="bold", va="center"
            )
            last = group
        axes.barh(y, ratio, 0.78, color=colour)
        axes.text(widest * 1.12, y, f"{ratio:.2f}", fontsize=8, ha="right", va="center")
        ticks.append((y, title))
        y += 1
    axes.set_yticks([at for at, _ in ticks], [title for _, title in ticks], fontsize=8)
    axes.set_ylim(y, 0)
    axes.set_xlim(0, widest * 1.12)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlabel("area of a lane, best INT8 lane = 1")
    axes.tick_params(axis="y", length=0)
    return _svg(figure, "lane-bars", "Area of the best lane of each format over the best INT8 lane")


_NONE = {"target": "ecp5", "lut_equiv": None}


@_styled
def area_against_perplexity(report: Report, target: str, model: str) -> str | None:
    """Perplexity of a model over the area of the smallest lane of each format on a target."""
    values = [e for e in report["perplexity"] if e["model"] == model]
    widths = {k[1]: best for k, best in best_lanes(report["lanes"]).items() if k[0] == target}
    ideal = next((e["perplexity"] for e in values if e["format"] == "float32"), None)
    drawn = [
        (entry, {bits: area(best[entry["format"]]) for bits, best in widths.items()
                 if entry["format"] in best})
        for entry in values
        if ideal is None or entry["perplexity"] <= LABELLED * ideal
    ]  # fmt: skip
    drawn = [(entry, places) for entry, places in drawn if places]
    if not drawn:
        return None
    figure, axes = _figure(3.2)
    largest = max(x or 0 for _, places in drawn for x in places.values())
    for entry, places in drawn:
        colour, y = COLOURS[entry["format"]], entry["perplexity"]
        axes.plot(list(places.values()), [y] * len(places), color=colour, linewidth=1)
        for bits, x in places.items():
            face = "none" if bits == 8 else colour
            axes.plot(x, y, "o", color=colour, markersize=6, markerfacecolor=face)
        right = max(x or 0 for x in places.values())
        axes.annotate(
            entry["title"], (right, y), (7, 0), textcoords="offset points", va="center", fontsize=8
        )
    if ideal is not None:
        axes.axhline(ideal, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.annotate(
            "float32", (0, ideal), (4, -3), textcoords="offset points", va="top", fontsize=8
        )
    for bits in sorted(widths):
        face = "none" if bits == 8 else INK
        axes.plot([], [], "o", color=INK, markerfacecolor=face, label=f"{bits}-bit activations")
    axes.legend(frameon=False, fontsize=8, loc="best", labelcolor=INK)
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.08 * (high - low), high)
    axes.set_xlim(0, largest * 1.35)
    axes.set_xlabel(f"{unit(target)} a lane, {TARGETS[target]}")
    axes.set_ylabel(f"perplexity, {model}")
    axes.grid(color=GRID, linewidth=0.6)
    return _svg(
        figure, f"perplexity-{target}", f"Perplexity over area of a lane, {TARGETS[target]}"
    )


def off_chart(report: Report, model: str) -> list[str]:
    """What `area_against_perplexity` leaves out: "title (perplexity)"."""
    values = [e for e in report["perplexity"] if e["model"] == model]
    ideal = next((e["perplexity"] for e in values if e["format"] == "float32"), None)
    return [
        f"{e['title']} ({e['perplexity']:.1f})"
        for e in values
        if ideal is not None and e["perplexity"] > LABELLED * ideal
    ]


@_styled
def components(report: Report) -> str | None:
    """Area of whole accelerators by component, one stacked bar for each config and target."""
    bars: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for entry in report["components"]:
        size = entry.get("um2") if entry["target"] == "sky130" else entry["lut_equiv"]
        if size and entry["component"] != WHOLE:
            bars[entry["config"], entry["target"]][entry["component"]] = float(size)
    if not bars:
        return None
    total: dict[str, float] = defaultdict(float)
    for parts in bars.values():
        for name, size in parts.items():
            total[name] += size / sum(parts.values())
    named = sorted(total, key=lambda name: -total[name])[: len(OTHERS)]
    colours = dict(zip(named, OTHERS, strict=False))
    figure, axes = _figure(0.42 * len(bars) + 1.6)
    for row, parts in enumerate(bars.values()):
        left, whole = 0.0, sum(parts.values())
        rest = sum(size for name, size in parts.items() if name not in colours)
        shown = [(n, parts[n]) for n in named if n in parts] + (
            [("the rest", rest)] if rest else []
        )
        for name, size in shown:
            share = 100 * size / whole
            _segment(axes, row, left, share, 0.62, colours.get(name, REST), wide=7)
            left += share
    axes.set_yticks(
        range(len(bars)), [f"{config}\n{TARGETS.get(t, t)}" for config, t in bars], fontsize=8
    )
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("per cent of the area")
    axes.tick_params(axis="y", length=0)
    handles = [axes.barh(0, 0, color=colour, label=name) for name, colour in colours.items()]
    if len(total) > len(named):
        handles.append(axes.barh(0, 0, color=REST, label="the rest"))
    figure.legend(
        handles=handles, frameon=False, fontsize=8, ncols=3, loc="outside upper left",
        labelcolor=INK,
    )  # fmt: skip
    return _svg(figure, "components", "Area of whole accelerators by component")


def _segment(
    axes: Any,
    row: int,
    left: float,
    size: float,
    height: float,
    colour: str,
    *,
    wide: float,
    label: str | None = None,
) -> None:
    """A part of a stacked bar, with its size in it where it is ``wide`` enough."""
    axes.barh(row, size, height, left=left, color=colour, label=label)
    if size >= wide:
        axes.text(
            left + size / 2, row, f"{size:.0f}", color="white", fontsize=8,
            ha="center", va="center",
        )  # fmt: skip


@_styled
def parts(report: Report) -> str | None:
    """Where the area of lanes goes: one stacked bar for each, in LUT-equivalents."""
    bars: dict[tuple[int, str], dict[str, float]] = defaultdict(dict)
    for entry in report["parts"]:
        if entry["lut_equiv"]:
            bars[entry["act_bits"], entry["format"]][entry["part"]] = entry["lut_equiv"]
    if not bars:
        return None
    order = sorted(bars, key=lambda bar: (bar[0], list(FORMATS).index(bar[1])))
    named = list(dict.fromkeys(part for found in bars.values() for part in found))
    figure, axes = _figure(0.36 * len(bars) + 1.5)
    for row, bar in enumerate(order):
        left = 0.0
        for colour, part in zip(OTHERS * len(named), named, strict=False):
            size = bars[bar].get(part, 0.0)
            label = part if not row else None
            _segment(axes, row, left, size, 0.66, colour, wide=9, label=label)
            left += size
        axes.text(left + 2, row, f"{left:.0f}", fontsize=8, va="center")
    axes.set_yticks(
        range(len(order)), [f"{FORMATS[name]}, {bits} bit" for bits, name in order], fontsize=8
    )
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xlim(0, 1.1 * max(sum(found.values()) for found in bars.values()))
    axes.set_xlabel(f"{unit('ecp5')} a lane, {TARGETS['ecp5']}")
    axes.tick_params(axis="y", length=0)
    figure.legend(
        frameon=False, fontsize=8, ncols=2, loc="outside upper left", labelcolor=INK,
    )  # fmt: skip
    return _svg(figure, "parts", "Where the area of a lane goes")


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    made = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = made.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return made, axes


def _svg(figure: Any, name: str, title: str) -> str:
    """The figure as an element for a page: scales with it, and takes its colours and letters."""
    import matplotlib

    buffer = io.StringIO()
    # Ids must differ from those of other figures on the page, and not from run to run.
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.id": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace(GRID, "var(--grid)")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    # Width and height come from the page, the proportions from the view box.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)

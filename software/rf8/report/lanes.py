"""Comparison of lanes: the best of each format, and what follows for a designer."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rf8.report.schema import FORMATS, TARGETS

Lane = dict[str, Any]

LIMITS = (
    ("int8", "ecp5", 8, 0.90),
    ("int8", "ecp5", 16, 0.75),
    ("e4m3", "ecp5", 8, 0.75),
    ("e4m3", "ecp5", 16, 0.75),
    ("int8", "sky130", 8, 1.00),
    ("int8", "sky130", 16, 0.85),
    ("e4m3", "sky130", 8, 0.75),
    ("e4m3", "sky130", 16, 0.75),
)
"""What RF8 aims at: other format, target, bits of an activation, largest ratio of the areas."""


def area(lane: Lane) -> float | None:
    """Area of a lane in `unit`; None where it was not measured."""
    value = lane["um2"] if lane["target"] == "sky130" else lane["lut_equiv"]
    return None if value is None else float(value)


def unit(target: str) -> str:
    """Unit of the areas on a target."""
    return "µm²" if target == "sky130" else "LUT-equivalents"


def best_lanes(lanes: list[Lane]) -> dict[tuple[str, int], dict[str, Lane]]:
    """(target, bits of an activation) -> format -> its smallest lane.

    Lanes are compared within arrays of one size only: that in which most formats were measured, or
    the largest of these. What a column or row of an array shares is divided by more lanes there.
    """
    groups: dict[tuple[str, int], list[Lane]] = defaultdict(list)
    for lane in lanes:
        if area(lane) is not None:
            groups[lane["target"], lane["act_bits"]].append(lane)
    found = {}
    for key in sorted(groups, key=lambda k: (list(TARGETS).index(k[0]), k[1])):
        formats = defaultdict(set)
        for lane in groups[key]:
            formats[lane["amortised_over"]].add(lane["format"])
        size = max(formats, key=lambda size: (len(formats[size]), lane_count(size)))
        best: dict[str, Lane] = {}
        for lane in groups[key]:
            other = best.get(lane["format"])
            if lane["amortised_over"] == size and (
                other is None or (area(lane) or 0) < (area(other) or 0)
            ):
                best[lane["format"]] = lane
        found[key] = {name: best[name] for name in FORMATS if name in best}
    return found


def lane_count(size: str) -> int:
    """Lanes of an array "16x4"; 0 for another text."""
    rows, _, cols = size.partition("x")
    return int(rows) * int(cols) if rows.isdecimal() and cols.isdecimal() else 0


def ratios(lanes: list[Lane], other: str = "int8") -> dict[tuple[str, int], float]:
    """(target, bits of an activation) -> area of the best RF8 lane over the best of ``other``."""
    found = {}
    for key, best in best_lanes(lanes).items():
        if "rf8" in best and other in best and area(best[other]):
            found[key] = (area(best["rf8"]) or 0) / (area(best[other]) or 1)
    return found


def targets(lanes: list[Lane]) -> list[dict[str, Any]]:
    """The list ``targets`` of a report: ratios of best lanes; none where they were not measured."""
    found = {other: ratios(lanes, other) for other in {limit[0] for limit in LIMITS}}
    made = []
    for other, target, bits, limit in LIMITS:
        value = found[other].get((target, bits))
        title = FORMATS[other].removeprefix("FP8 ")
        made.append(
            {
                "name": f"RF8 / {title}, {place((target, bits))}",
                "limit": limit,
                "value": None if value is None else round(value, 3),
                "met": None if value is None else value <= limit,
            }
        )
    return made


def place(key: tuple[str, int]) -> str:
    """A target and an activation width in words."""
    return f"{TARGETS[key[0]]}, {key[1]}-bit activations"


def verdict(report: dict[str, Any]) -> tuple[str, list[str], list[str]]:
    """When to choose RF8: an answer, reasons for it, reasons against; all from the figures."""
    over_int8, over_fp8 = ratios(report["lanes"]), ratios(report["lanes"], "e4m3")
    smaller = {key: ratio for key, ratio in over_int8.items() if ratio < 1}
    larger = {key: ratio for key, ratio in over_int8.items() if ratio >= 1}
    answer = "No pair of RF8 and INT8 lanes was measured: there is no answer on area yet."
    if over_int8:
        answer = (
            f"An RF8 lane is smaller than the best INT8 lane in {len(smaller)} of "
            f"{len(over_int8)} comparisons, at {_range(over_int8)} of its area."
        )
    for_ = _places(smaller, "Area decides on {}: {} the area of the best INT8 lane.")
    against = _places(larger, "You build on {}: {} the area of the best INT8 lane.")
    if over_fp8:
        side = for_ if max(over_fp8.values()) < 1 else against
        side.append(f"FP8 E4M3 is the alternative: RF8 has {_range(over_fp8)} of its area.")
    models = list(dict.fromkeys(entry["model"] for entry in report["perplexity"]))
    against += [line for model in models for line in _accuracy(model, report["perplexity"])]
    against += _speed(report["throughput"])
    return answer, for_, against


def floor(report: dict[str, Any]) -> list[str]:
    """Why an RF8 lane on ECP5 has the area that it has, beside INT8's; all from the figures."""
    sizes: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for part in report["parts"]:
        if part["target"] == "ecp5":
            sizes[part["format"], part["act_bits"]][part["part"]] = part["lut_equiv"]
    best = best_lanes(report["lanes"])
    lines = [
        _floor(bits, sizes["rf8", bits], sizes["int8", bits], best["ecp5", bits])
        for bits in (8, 16)
        if ("rf8", bits) in sizes and ("int8", bits) in sizes and ("ecp5", bits) in best
    ]
    made = [target for target in report["targets"] if target["met"] is not None]
    if lines and made:
        missed = sum(not target["met"] for target in made)
        lines.insert(0, f"{missed} of {len(made)} targets are missed. {REASON}")
    return lines


REASON = (
    "INT8 pays for each bit of a weight with a row of an adder, RF8 for the range of its weights: "
    "a product may lie anywhere within its exponents, so it is moved to its place and accumulated "
    "over more bits, or in several bins. Longer activations make INT8's rows longer, and leave "
    "RF8's bins as many as they were: so RF8 gains on INT8 from 8 to 16 bits. On SKY130 bins "
    "would be flip-flops, the dearest cells there are, so its lanes move products through all "
    "exponents into one wide accumulator; and a full adder costs less beside a multiplexer than "
    "on an FPGA, where both take a table."
)


def _floor(bits: int, rf8: dict[str, float], int8: dict[str, float], best: dict[str, Lane]) -> str:
    whole, other = sum(rf8.values()), sum(int8.values())
    needed = whole - rf8["choose and align"] - rf8["share of decoders and control"]
    # A DPR16X4 keeps its bits in four tables; two more lose their inputs.
    four = (whole - 2 * best["rf8"]["lutram"]) / other
    shared = "share of combiner"
    return (
        f"{bits}-bit activations: the product of an RF8 lane takes {rf8['product adders']:.0f} "
        f"LUT-equivalents of adders where INT8's takes {int8['product adders']:.0f}, and choosing "
        f"and aligning {rf8['choose and align']:.0f} (INT8: {int8['choose and align']:.0f} to "
        f"choose). It loses what it gains to its bins, {rf8['bins (LUT memory)']:.0f} (INT8 has "
        f"none), and the combiner that joins them, {rf8[shared]:.0f} a lane (INT8: "
        f"{int8[shared]:.0f}). The floor of this design: adders, bins and combiner alone are "
        f"{needed / other:.2f} of INT8's area, with nothing to decode, choose or align; in all it "
        f"is {whole / other:.2f}. Were a DPR16X4 counted by its four tables of bits alone, it "
        f"would be {four:.2f}."
    )


def _range(found: dict[tuple[str, int], float]) -> str:
    return f"{min(found.values()):.2f} to {max(found.values()):.2f}"


def _places(found: dict[tuple[str, int], float], sentence: str) -> list[str]:
    """A sentence for each target, smallest ratio first: its title, and the ratio of each width."""
    lines = []
    for target in dict.fromkeys(key[0] for key in sorted(found, key=lambda key: found[key])):
        shown = [f"{found[key]:.2f} x ({key[1]}-bit)" for key in sorted(found) if key[0] == target]
        lines.append(sentence.format(TARGETS[target], " and ".join(shown)))
    return lines


def _accuracy(model: str, entries: list[dict[str, Any]]) -> list[str]:
    """That INT8 is more exact, where it is."""
    of = {e["title"]: e["perplexity"] for e in entries if e["model"] == model}
    rf8 = sorted((p, title.partition(", ")[2]) for title, p in of.items() if title[:3] == "RF8")
    if not rf8 or "INT8" not in of or rf8[0][0] <= of["INT8"]:
        return []
    shown = " or ".join(f"{value:.2f} ({rounding})" for value, rounding in rf8)
    fp8 = f", {of['FP8 E4M3']:.2f} with FP8 E4M3" if "FP8 E4M3" in of else ""
    return [
        f"Accuracy comes first: {model} has a perplexity of {of['INT8']:.2f} with INT8, {shown} "
        f"with RF8{fp8}."
    ]


def _speed(records: list[dict[str, Any]]) -> list[str]:
    # A bus that brings more than the array takes idles by design: it would not show the point.
    matched = [r for r in records if r["phase"] == "decode" and r["bus_bits"] == 8 * r["rows"]]
    uses = [r["bandwidth_use"] for r in matched]
    if not uses:
        return []
    return [
        "Tokens per second are all that counts: weights fill the bus while decoding "
        f"({min(uses):.0%} to {max(uses):.0%} of it here), and INT8 and FP8 stream as many bytes."
    ]

"""Comparison of lanes: the best of each format, and what follows for a designer."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rf8.report.schema import FORMATS, TARGETS

Lane = dict[str, Any]

ALIKE = 0.05
"""Areas that differ by less than this share are no reason to choose either."""

FLIP_FLOP_UM2 = 20.0192
"""Area of a flip-flop of SKY130 (`rf8.report.sky130`, without its package)."""

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
    smaller = {key: ratio for key, ratio in over_int8.items() if ratio <= 1 - ALIKE}
    larger = {key: ratio for key, ratio in over_int8.items() if ratio >= 1 + ALIKE}
    alike = {key: ratio for key, ratio in over_int8.items() if abs(ratio - 1) < ALIKE}
    answer = "No pair of RF8 and INT8 lanes was measured: there is no answer on area yet."
    if over_int8:
        answer = (
            f"An RF8 lane is smaller than the best INT8 lane in {len(smaller)} of "
            f"{len(over_int8)} comparisons, as large (within {ALIKE:.0%}) in {len(alike)}, and "
            f"larger in {len(larger)}: it has {_range(over_int8)} of its area."
        )
    for_ = _places(smaller, "Area decides on {}: {} the area of the best INT8 lane.")
    against = _places(larger, "You build on {}: {} the area of the best INT8 lane.")
    against += _places(alike, "You hope for less area on {}: {} the area of the best INT8 lane.")
    if over_fp8:
        side = for_ if max(over_fp8.values()) < 1 else against
        side.append(f"FP8 E4M3 is the alternative: RF8 has {_range(over_fp8)} of its area.")
    against += _all_exponents(report["lanes"])
    models = list(dict.fromkeys(entry["model"] for entry in report["perplexity"]))
    against += [line for model in models for line in _accuracy(model, report["perplexity"])]
    against += _speed(report["throughput"])
    return answer, for_, against


def floor(report: dict[str, Any]) -> list[str]:
    """Why an RF8 lane has the area that it has, beside INT8's; all from the figures."""
    sizes: dict[tuple[str, int], dict[str, dict[str, float]]] = defaultdict(dict)
    for part in report["parts"]:
        if part["target"] == "ecp5":
            sizes[part["format"], part["act_bits"]][part["part"]] = part
    best = best_lanes(report["lanes"])
    lines = [
        _floor(bits, sizes["rf8", bits], sizes["int8", bits], best["ecp5", bits])
        for bits in (8, 16)
        if ("rf8", bits) in sizes and ("int8", bits) in sizes and ("ecp5", bits) in best
    ]
    made = [target for target in targets(report["lanes"]) if target["met"] is not None]
    if lines and made:
        missed = sum(not target["met"] for target in made)
        lines.insert(0, f"{missed} of {len(made)} targets for area are missed. {REASON}")
        lines += _cells(report["lanes"], best)
    return lines


REASON = (
    "INT8 pays for each bit of a weight with a row of an adder, RF8 for the range of its weights: "
    "a product belongs anywhere within the exponents, so it is moved there and accumulated over "
    "more bits, or in several bins. Longer activations make INT8's rows longer and leave RF8 as "
    "many bins as before: so RF8 gains on INT8 from 8 to 16 bits."
)


def _floor(
    bits: int,
    rf8: dict[str, dict[str, float]],
    int8: dict[str, dict[str, float]],
    best: dict[str, Lane],
) -> str:
    mine, theirs = (
        {name: part["lut_equiv"] for name, part in lane.items()} for lane in (rf8, int8)
    )
    whole, other = sum(mine.values()), sum(theirs.values())
    needed = whole - mine["choose and align"] - mine["share of decoders and control"]
    # A DPR16X4 keeps its bits in four tables; two more lose their inputs.
    four = (whole - 2 * best["rf8"]["lutram"]) / other
    registers = [sum(part["ff"] for part in lane.values()) for lane in (rf8, int8)]
    shared = "share of combiner"
    return (
        f"ECP5, {bits}-bit activations: adding up a product takes {mine['product adders']:.0f} "
        f"LUT-equivalents in RF8 and {theirs['product adders']:.0f} in INT8; choosing what to add, "
        f"and aligning it, {mine['choose and align']:.0f} and {theirs['choose and align']:.0f}. "
        f"RF8 loses that again to its bins, {mine['bins (LUT memory)']:.0f}, and to the combiner "
        f"that joins them, {mine[shared]:.0f} against {theirs[shared]:.0f}. The floor: adders, "
        f"bins and combiner, with nothing to decode, choose or align, are {needed / other:.2f} of "
        f"an INT8 lane; the whole is {whole / other:.2f}. It is {four:.2f} if a DPR16X4 counts as "
        f"the four tables that hold its bits. Flip-flops do not count: RF8 has {registers[0]:.0f}, "
        f"INT8 {registers[1]:.0f}."
    )


def _cells(lanes: list[Lane], best: dict[tuple[str, int], dict[str, Lane]]) -> list[str]:
    """What holds on SKY130, where it was measured."""
    lines = []
    for bits in (8, 16):
        found = best.get(("sky130", bits), {})
        bins = [
            lane["um2"]
            for lane in lanes
            if (lane["format"], lane["target"], lane["act_bits"]) == ("rf8", "sky130", bits)
            and lane["style"] == "bins"
        ]
        if {"rf8", "int8"} <= set(found) and bins:
            shares = [
                found[name]["ff"] * FLIP_FLOP_UM2 / found[name]["um2"] for name in ("rf8", "int8")
            ]
            lines.append(
                f"SKY130, {bits}-bit activations: flip-flops are {shares[0]:.0%} of an RF8 lane "
                f"and {shares[1]:.0%} of an INT8 lane, before the multiplexers that enable them. "
                f"Bins would be flip-flops too: {min(bins):,.0f} µm² a lane at least, instead of "
                f"{found['rf8']['um2']:,.0f}. So lanes move products through all exponents, into "
                "one accumulator that must be wider than INT8's."
            )
    return lines


def _all_exponents(lanes: list[Lane]) -> list[str]:
    """What lanes of RF8 cost that keep all its exponents, where FP8's were measured beside them."""
    found = {}
    for key, best in best_lanes(lanes).items():
        same = [
            area(lane)
            for lane in lanes
            if (lane["format"], lane["span"]) == ("rf8", 16)
            and (lane["target"], lane["act_bits"]) == key
            and "e4m3" in best
            and lane["amortised_over"] == best["e4m3"]["amortised_over"]
        ]
        sizes = [size for size in same if size is not None]
        if sizes and best["rf8"]["span"] < 16:
            found[key] = min(sizes) / (area(best["e4m3"]) or 1)
    if not found:
        return []
    return [
        f"You need all 16 exponents: RF8 lanes that keep them have {_range(found)} of the area of "
        "FP8 E4M3; the others here keep fewer."
    ]


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

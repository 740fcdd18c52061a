"""What a report is made from, and the check that it is."""

from __future__ import annotations

import math
from types import NoneType
from typing import Any

from rf8.errors import DataError
from rf8.report.provenance import checkout

FORMATS = {
    "rf8": "RF8",
    "int8": "INT8",
    "e4m3": "FP8 E4M3",
    "e5m2": "FP8 E5M2",
    "pot": "power of two",
    "apot2": "APoT, two terms",
}
"""Number formats of lanes: name in the report -> title."""

TARGETS = {
    "ecp5": "ECP5 without DSP",
    "ecp5-dsp": "ECP5 with DSP blocks",
    "ice40": "iCE40",
    "xc7": "Xilinx 7",
    "sky130": "SKY130",
}
"""What lanes are synthesised for: name in the report -> title."""

WHOLE = "whole"
"""The component that is the sum of all others."""

Kind = tuple[type, ...] | dict[str, str]
"""Types that a value may have, or the texts that it must be one of."""

TEXT: Kind = (str,)
NUMBER: Kind = (int, float)
LIST: Kind = (list,)
MAYBE: Kind = (int, float, NoneType)

LISTS: dict[str, dict[str, Kind]] = {
    "lanes": {
        "format": FORMATS,
        "act_bits": (int,),
        "align": (int, NoneType),
        "span": (int, NoneType),
        "style": TEXT,
        "target": TARGETS,
        "lut_equiv": MAYBE,
        "lut": MAYBE,
        "carry": MAYBE,
        "lutram": MAYBE,
        "ff": MAYBE,
        "dsp": MAYBE,
        "um2": MAYBE,
        "amortised_over": TEXT,
    },
    "parts": {
        "format": FORMATS,
        "act_bits": (int,),
        "target": TARGETS,
        "part": TEXT,
        "lut_equiv": MAYBE,
        "ff": MAYBE,
    },
    "components": {
        "config": TEXT,
        "component": TEXT,
        "target": TEXT,
        "lut_equiv": MAYBE,
        "ff": MAYBE,
    },
    "targets": {
        "name": TEXT,
        "limit": (str, int, float, NoneType),
        "value": (str, int, float, NoneType),
        "met": (bool, NoneType),
    },
    "timing": {
        "design": TEXT,
        "device": TEXT,
        "speed_grade": (str, int, NoneType),
        "seeds": (list,),
        "fmax_mhz": NUMBER,
        "target_mhz": MAYBE,
        "critical_path": (str, NoneType),
        "commit": TEXT,
        "date": TEXT,
        "tools": (dict,),
    },
    "throughput": {
        "model": TEXT,
        "phase": {"decode": "one column", "prefill": "all columns"},
        "config": TEXT,
        "rows": (int,),
        "cols": (int,),
        "bus_bits": (int,),
        "latency": (int,),
        "position": (int,),
        "cycles_per_token": NUMBER,
        "macs_per_token": NUMBER,
        "bytes_per_token": NUMBER,
        "tokens_per_s": (dict,),
        "bandwidth_use": NUMBER,
        "mac_use": NUMBER,
        "vector": NUMBER,
        "stall_weights": NUMBER,
        "stall_drain": NUMBER,
        "source": TEXT,
    },
    "perplexity": {
        "model": TEXT,
        "format": (str,),
        "title": TEXT,
        "perplexity": NUMBER,
        "source": TEXT,
    },
}
"""Lists of a report -> keys that each entry has -> what their values may be. null: none."""

SEED: dict[str, Kind] = {"seed": (int,), "fmax_mhz": NUMBER}


def validate(report: dict[str, Any]) -> None:
    """Check that ``report`` has every list of `LISTS`, ``tools`` and ``commit``.

    Further keys of entries are allowed, and an optional ``method``, a list of paragraphs.

    Raises
    ------
    DataError
        For the first key that is missing or has a wrong value; the message names it.
    """
    _entry("report", report, dict.fromkeys(LISTS, LIST) | {"tools": (dict,), "commit": TEXT})
    for name, keys in LISTS.items():
        for number, entry in enumerate(report[name]):
            where = f"report.{name}[{number}]"
            _entry(where, entry, keys)
            if name == "timing":
                for n, seed in enumerate(entry["seeds"]):
                    _entry(f"{where}.seeds[{n}]", seed, SEED)
            if name == "throughput":
                speeds = entry["tokens_per_s"]
                _entry(f"{where}.tokens_per_s", speeds, dict.fromkeys(speeds, NUMBER))
    _entry("report.tools", report["tools"], dict.fromkeys(report["tools"], TEXT))
    for number, text in enumerate(report.get("method", [])):
        _value(f"report.method[{number}]", text, TEXT)


def _entry(where: str, entry: Any, keys: dict[str, Kind]) -> None:
    if not isinstance(entry, dict):
        raise DataError(f"{where} is {entry!r:.60}, must be a dict")
    for key, kind in keys.items():
        if key not in entry:
            raise DataError(f"{where} has no {key!r}")
        _value(f"{where}.{key}", entry[key], kind)


def _value(where: str, value: Any, kind: Kind) -> None:
    if isinstance(kind, dict):
        fits, allowed = value in list(kind), f"one of {', '.join(kind)}"
    else:
        names = {str: "text", bool: "true or false", dict: "a dict", list: "a list"}
        names |= {int: "an integer", float: "a number", NoneType: "null"}
        shown = [names[t] for t in kind if not (t is int and float in kind)]
        allowed = " or ".join(shown)
        # To Python a truth value is an integer, and NaN a number.
        fits = isinstance(value, kind) and (bool in kind or not isinstance(value, bool))
        fits = fits and not (isinstance(value, float) and not math.isfinite(value))
    if not fits:
        raise DataError(f"{where} is {value!r:.60}, must be {allowed}")


def perplexities() -> list[dict[str, Any]]:
    """What the experiments of this checkout measured: the list ``perplexity`` of a report.

    Empty in an installed package. Formats that no lane has are
    left out, but for float32.
    """
    import json

    from rf8.evaluation.perplexity import Perplexity

    titles = {
        "float32": ("float32", "float32"),
        "rf8-nearest": ("rf8", "RF8, nearest"),
        "rf8-compensated": ("rf8", "RF8, compensated"),
    } | {name: (name, title) for name, title in FORMATS.items()}
    try:
        folder = checkout() / "docs" / "experiments"
    except DataError:
        return []
    found = []
    for path in sorted(folder.glob("formats-*.json")):
        study = json.loads(path.read_text())
        setup, runs = study["setup"], study["runs"]
        for name, (format_, title) in titles.items():
            # Where something is random there is a run for each seed: NAME/0, NAME/1, ...
            losses = [run["losses"] for key, run in runs.items() if key.split("/")[0] == name]
            if losses:
                mean = [sum(window) / len(window) for window in zip(*losses, strict=True)]
                value = Perplexity(tuple(mean), setup["window"]).value
                entry = {"model": setup["model"], "format": format_, "title": title}
                entry |= {"perplexity": value, "source": f"docs/experiments/{path.name}"}
                found.append(entry)
    return found

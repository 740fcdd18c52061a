"""Writes a report: one self-contained page, the same tables as Markdown, and the data."""

from __future__ import annotations

import html
import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from rf8.files import replaced_file
from rf8.report import plots, tables
from rf8.report.lanes import floor, verdict
from rf8.report.schema import TARGETS, perplexities, validate
from rf8.report.tables import Table

Report = dict[str, Any]

TEMPLATE = Path(__file__).with_name("template.html")

THROUGHPUT_METHOD = (
    "Throughput: whole tokens, everything included, by the cycle model. Its tests compare it with "
    "the Verilated RTL of small machines: within 1 % for a token, 2 % for a layer; `rf8 profile` "
    "does so for any machine. The layers of a model are alike, so models of its shape with one "
    "and with two of them are compiled, and what the second adds is taken for every further one. "
    "Decode is one token on one column at position 128, head included. Prefill is as many tokens "
    "of a prompt as there are columns, from position 64 on, without the head, which runs once for "
    "a prompt. Tokens per second are clock over cycles; the clocks of that table are assumptions, "
    "not timing results."
)


@dataclass(frozen=True)
class Section:
    """A part of the report. ``figures``: (SVG, caption); ``tables``: (heading or "", table)."""

    key: str
    title: str
    text: list[str]
    tables: list[tuple[str, Table]]
    figures: list[tuple[str, str]] = field(default_factory=list)


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``index.html``, ``report.md`` and ``report.json`` into ``folder``; returns their paths.

    ``report`` is what `rf8.report.schema.validate` takes; without ``perplexity`` the experiments of
    this checkout are used. Nothing is replaced unless all three can be written.

    Raises
    ------
    DataError
        Where a key is missing or mistyped, or the folder cannot be written.
    """
    report = {**report, "perplexity": report.get("perplexity", perplexities())}
    validate(report)
    sections = _sections(report)
    texts = {
        "report.json": json.dumps(report, indent=1, allow_nan=False) + "\n",
        "report.md": _markdown(report, sections),
        "index.html": _page(report, sections),
    }
    with ExitStack() as stack:
        for name, text in texts.items():
            temporary = stack.enter_context(replaced_file(folder / name))
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _sections(report: Report) -> list[Section]:
    models = list(dict.fromkeys(e["model"] for e in report["perplexity"]))
    model = models[-1] if models else ""  # the larger one: default comes first
    made = [
        ("bars", plots.lane_bars(report), "Area of the smallest lane of each format."),
        *(
            (
                target,
                plots.area_against_perplexity(report, target, model),
                _caption(report, model),
            )
            for target in ("ecp5", "sky130")
        ),
    ]
    sections = [
        Section("targets", "Targets", [], [("", tables.targets(report))]),
        Section(
            "floor",
            "Where the area goes, and why it is not less",
            floor(report),
            [("LUT-equivalents of each part, flip-flops in brackets", tables.parts(report))],
            _shown(
                plots.parts(report),
                f"The smallest lane of each format, {TARGETS['ecp5']}.",
            ),
        ),
        Section(
            "lanes",
            "Lanes",
            [
                "A lane multiplies a weight by an activation and accumulates. In brackets: area "
                "over that of the best INT8 lane for the same target and activation width."
            ],
            [
                (
                    "Smallest lane of each format: LUT-equivalents, on SKY130 µm²",
                    tables.best(report),
                ),
                (
                    "What sharing brings: the smallest lane in arrays of several sizes",
                    tables.sizes(report),
                ),
                ("All lanes", tables.lanes(report)),
                ("Perplexities", tables.perplexity(report)),
            ],
            [(svg, caption) for _, svg, caption in made if svg is not None],
        ),
        Section(
            "components",
            "Accelerator by component",
            [],
            [("", tables.components(report))],
            _shown(plots.components(report), "Shares of the area of whole accelerators."),
        ),
        Section("timing", "Timing", [], [("", tables.timing(report))]),
        Section(
            "throughput",
            "Throughput",
            [
                "Linear layers and the head only, from the counters of the simulated hardware: "
                "attention, norms and activation functions run on the host in this version and "
                "take time that is not in these figures. Bus use counts weights alone; MAC use is "
                "of all lanes, so decode, on one column, reaches one over the columns at most. "
                "Latency in cycles."
            ],
            [("", tables.throughput(report))],
            _shown(
                plots.roofline(report),
                "Lines: what a machine could attain. Times the clock, a MAC a cycle is a MAC/s. "
                "Each mark is a model, at a memory latency of 60 cycles. Decode keeps one column "
                "busy: rows MACs a cycle at most.",
            ),
        ),
        Section(
            "method",
            "Method and tools",
            [*report.get("method", []), THROUGHPUT_METHOD],
            [("", tables.tools(report))],
        ),
    ]
    return [s for s in sections if s.figures or any(table.rows for _, table in s.tables)]


def _shown(svg: str | None, caption: str) -> list[tuple[str, str]]:
    return [] if svg is None else [(svg, caption)]


def _caption(report: Report, model: str) -> str:
    outside = plots.off_chart(report, model)
    left = f" Off the chart: {', '.join(outside)}." if outside else ""
    return (
        "Further down is more exact, further left smaller. Weights alone in the format; RF8 lanes "
        f"of the smallest span that was measured, perplexities with all exponents.{left}"
    )


def _page(report: Report, sections: list[Section]) -> str:
    answer, for_, against = verdict(report)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        answer=html.escape(answer),
        for_=_list(for_),
        against=_list(against),
        nav="".join(f'<a href="#{s.key}">{html.escape(s.title)}</a>' for s in sections),
        sections="\n".join(map(_section, sections)),
        commit=html.escape(report["commit"]),
    )


def _list(items: list[str]) -> str:
    if not items:
        return '<p class="soft">Nothing that was measured says so.</p>'
    return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"


def _section(section: Section) -> str:
    parts = [f'<h2 id="{section.key}">{html.escape(section.title)}</h2>']
    parts += [f"<p>{html.escape(text)}</p>" for text in section.text]
    if section.figures:
        columns = "two" if len(section.figures) > 1 else "one"
        shown = (
            f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"
            for svg, caption in section.figures
        )
        parts.append(f'<div class="figures {columns}">{"".join(shown)}</div>')
    for heading, table in section.tables:
        if table.rows:
            parts.append((f"<h3>{html.escape(heading)}</h3>" if heading else "") + table.html())
    return "\n".join(parts)


def _markdown(report: Report, sections: list[Section]) -> str:
    answer, for_, against = verdict(report)
    parts = ["# When should I choose RF8, and when not?", answer]
    for title, items in (("Choose RF8 when", for_), ("Do not when", against)):
        parts.append(f"**{title}**")
        parts.append(
            "\n".join(f"- {item}" for item in items) or "Nothing that was measured says so."
        )
    for section in sections:
        parts += [f"## {section.title}", *section.text]
        for heading, table in section.tables:
            if table.rows:
                parts += [f"### {heading}"] if heading else []
                parts.append(table.markdown().strip())
    return "\n\n".join([*parts, f"Commit {report['commit']}."]) + "\n"

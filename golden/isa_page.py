"""The instruction set as a page: ``python -m golden.isa_page`` writes docs/isa.md."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path

from golden import isa, positions
from golden.config import INSTRUCTION_BYTES
from golden.registers import COUNTERS, REGISTERS, counter_offset

MEANINGS: dict[isa.Opcode, str] = {
    isa.Opcode.MATMUL: "The first `column` columns: `count` tiles of the weight stream at "
    "`address` times the activation block of `k` elements at `src`; results from `dst` on. `y = "
    "clamp32(round_half_even(W x * 2**(row exponent + block exponent + shift)) + bias)`, a bias "
    "with the flag BIAS only.",
    isa.Opcode.LOAD: "`count` words from `address` on to bank `column`, from word `dst` on. With "
    "an index, one byte of each of `count` beats: the first as an int8, alone in a word, the "
    "others as RF8 codes, of which the integers W become int32 elements. With LENGTH, the words "
    "that hold an element for each position up to the column's.",
    isa.Opcode.STORE: "`count` words of bank `column`, from word `src` on, to `address` on. With "
    "an index and `shift` above 0, `count` beats of which one lane is written: with the low bytes "
    "of the first element of the first word, then of all elements of the words after it.",
    isa.Opcode.VECTOR: "For each of the first `column` columns and each segment, `function` of "
    "`count` elements at `src` (and `other`), written from `dst` on as `output` says; then "
    "`after`. Elements past a column's length, or before its window, become zero and count for "
    "nothing. What comes of "
    "sources that overlap the destination is not defined, unless they are the same and `output` "
    "is WORDS.",
    isa.Opcode.FENCE: "Instructions after it, and their weight streams, are fetched only when all "
    "before it are done.",
    isa.Opcode.HALT: "The program ends.",
}

PAGE = """\
# Instruction set

Made from `golden/isa.py` by `python -m golden.isa_page`: change it there. What each instruction
does, bit by bit, is `golden/machine.py`.

{prose}

## Fields

Of the {bits} bits of an instruction. Bits that no field has, and fields that an opcode does not
use, must be zero.

{fields}

## Opcodes

{opcodes}

Flags: {flags}

## Positions

{positions}

## Functions of VECTOR

{functions}

### After it

{afters}

### Output

{outputs}

Limits of registers and operands are in `golden/vector.py`.

## Errors

{errors}

## Registers

32 bits each, on AXI4-Lite. Counters are 64 bits, low word first, cleared by a start.

{registers}

## Counters

{counters}
"""


def page() -> str:
    """The text of docs/isa.md."""
    fields = [
        (f"`{name}`", f"{first}", f"{width}", "signed" if signed else "")
        for name, (first, width, signed) in isa.FIELDS.items()
    ]
    opcodes = [
        (f"{o.value}", o.name, ", ".join(f"`{field}`" for field in isa.USES[o]), MEANINGS[o])
        for o in isa.Opcode
    ]
    errors = [(f"{e.value}", e.name, _attribute_doc(e)) for e in isa.ErrorCode]
    registers = [(f"`0x{at:02x}`", n, meaning) for n, (at, meaning) in REGISTERS.items()]
    counters = [
        (f"`0x{counter_offset(name):02x}`", f"`{name}`", meaning)
        for name, meaning in COUNTERS.items()
    ]
    lists = {
        title: _table(
            ("code", "name", "meaning"), [(f"{m.value}", m.name, _attribute_doc(m)) for m in kind]
        )
        for title, kind in (
            ("functions", isa.Function),
            ("afters", isa.After),
            ("outputs", isa.Output),
        )
    }
    flags = "; ".join(f"{flag.value} {flag.name}: {_attribute_doc(flag)}" for flag in isa.Flag)
    assert isa.__doc__ is not None and positions.__doc__ is not None
    return PAGE.format(
        prose=_markdown(isa.__doc__.split("\n", 1)[1]),
        positions=_markdown(positions.__doc__.split("\n", 1)[1]),
        bits=8 * INSTRUCTION_BYTES,
        fields=_table(("field", "first bit", "bits", ""), fields),
        opcodes=_table(("code", "name", "fields", "meaning"), opcodes),
        flags=flags,
        **lists,
        errors=_table(("code", "name", "meaning"), errors),
        registers=_table(("offset", "name", "meaning"), registers),
        counters=_table(("offset", "name", "meaning"), counters),
    )


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )


def _attribute_doc(member: enum.Enum) -> str:
    """The string below a member in the source, where the language keeps none."""
    assert isa.__file__ is not None
    source = Path(isa.__file__).read_text().split(f"class {type(member).__name__}(", 1)[1]
    after = source.split(f"    {member.name} = {member.value}\n", 1)[1]
    if not after.startswith('    """'):
        return ""
    return " ".join(after.split('"""')[1].split())


def _markdown(text: str) -> str:
    """The module's docstring: its table becomes one of Markdown, its terms code."""
    lines = []
    in_table = 0
    for line in text.strip().splitlines():
        if line.startswith("===="):
            in_table = (in_table + 1) % 3
            if in_table == 2:
                lines.append("| --- | --- |")
        elif in_table:
            word, meaning = line.split(None, 1) if in_table == 1 else (line[:6], line[8:])
            lines.append(f"| {word.strip()} | {meaning} |")
        else:
            lines.append(line.replace("``", "`"))
    return "\n".join(lines)


def main() -> None:
    """Write docs/isa.md of this checkout."""
    target = Path(__file__).parents[1] / "docs" / "isa.md"
    temporary = target.with_suffix(".new")
    temporary.write_text(page())
    temporary.replace(target)


if __name__ == "__main__":
    main()

"""The register map for other tools: C header, SystemRDL, Markdown.

Names, offsets and meanings are those of `golden.isa`; the bit fields, which it has as prose, are
spelled out here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from golden.config import AccelConfig
from golden.isa import ErrorCode
from golden.registers import COUNTERS, IDENTITY, REGISTERS, counter_offset


@dataclass(frozen=True)
class Field:
    """Some bits of a register: ``width`` of them from bit ``low`` on."""

    name: str
    low: int
    width: int
    meaning: str

    @property
    def mask(self) -> int:
        """Ones where the field is."""
        return ((1 << self.width) - 1) << self.low


ACCESS: dict[str, Literal["r", "w", "rw"]] = {
    "ID": "r",
    "CONFIG": "r",
    "CONTROL": "w",
    "STATUS": "r",
    "ERROR_ADDRESS": "r",
    "PROGRAM": "rw",
    "WATCHDOG": "rw",
    "INTERRUPT": "rw",
    "POSITION": "rw",
    "TOKEN_COLUMN": "rw",
    "TOKEN": "rw",
}

FIELDS: dict[str, list[Field]] = {
    "ID": [Field("VALUE", 0, 32, "the letters RF8 and the version of this map")],
    "CONFIG": [
        Field("ROWS", 0, 8, "output channels side by side"),
        Field("COLS", 8, 8, "tokens side by side"),
        Field("ACT_BITS", 16, 8, "bits of an activation mantissa"),
        Field("BUS_BYTES", 24, 8, "bytes of a bus beat"),
    ],
    "CONTROL": [
        Field("START", 0, 1, "1 starts the program, unless the machine is busy"),
        Field("STOP", 1, 1, "1 stops it with the error ABORTED"),
    ],
    "STATUS": [
        Field("BUSY", 0, 1, "a program is running"),
        Field("DONE", 1, 1, "the last program reached HALT"),
        Field("ERROR", 2, 1, "the last program stopped with an error"),
        Field("CODE", 8, 8, "which error; 0 is none"),
    ],
    "ERROR_ADDRESS": [Field("ADDRESS", 0, 32, "of the instruction that stopped the machine")],
    "PROGRAM": [Field("ADDRESS", 0, 32, "of the first instruction, a multiple of the slot")],
    "WATCHDOG": [Field("CYCLES", 0, 32, "without progress until the machine stops; 0 is never")],
    "INTERRUPT": [Field("ENABLE", 0, 1, "irq is high while DONE or ERROR is and BUSY is not")],
    "POSITION": [Field("POSITION", 0, 24, "of the token in column 0; not while BUSY")],
    "TOKEN_COLUMN": [Field("COLUMN", 0, 8, "column of TOKEN; goes on with each write to it")],
    "TOKEN": [Field("TOKEN", 0, 24, "of the column that TOKEN_COLUMN names; not while BUSY")],
}

ERROR_MEANINGS: dict[ErrorCode, str] = {
    ErrorCode.NONE: "no error",
    ErrorCode.ILLEGAL_INSTRUCTION: "unknown opcode or flag, or an operand outside the machine",
    ErrorCode.INVALID_WEIGHT: "a weight byte is no RF8 code, or lies below the machine's span",
    ErrorCode.BUS_READ: "the memory answered a read with an error",
    ErrorCode.BUS_WRITE: "the memory answered a write with an error",
    ErrorCode.WATCHDOG: "nothing moved for as many cycles as the watchdog register allows",
    ErrorCode.ABORTED: "the host stopped the machine",
    ErrorCode.POSITION: "position or token are beyond what the instruction has room for",
}


def config_word(config: AccelConfig) -> int:
    """What the register CONFIG of this machine reads as."""
    return sum(getattr(config, f.name.lower()) << f.low for f in FIELDS["CONFIG"])


def c_header(config: AccelConfig) -> str:
    """``rf8_regs.h``: offsets, masks, error codes, and what is special about this machine."""
    lines = [
        f"/* Registers of the RF8 accelerator, config {config.name}. Made by `rf8 verilog`. */",
        "#ifndef RF8_REGS_H",
        "#define RF8_REGS_H",
        "",
        "/* Offsets in bytes; registers are 32 bits wide. */",
    ]
    lines += [f"#define RF8_REG_{n} 0x{offset:02x}u" for n, (offset, _) in REGISTERS.items()]
    lines += ["", "/* Fields: mask, and number of the lowest bit. */"]
    for register, fields in FIELDS.items():
        for field in fields:
            name = f"RF8_{register}_{field.name}"
            lines += [
                f"#define {name}_MASK 0x{field.mask:08x}u /* {field.meaning} */",
                f"#define {name}_SHIFT {field.low}",
            ]
    lines += ["", "/* Counters: 64 bits, offset of the low word; cleared by a start. */"]
    for name, meaning in COUNTERS.items():
        lines.append(
            f"#define RF8_COUNTER_{name.upper()} 0x{counter_offset(name):02x}u /* {meaning} */"
        )
    lines += ["", "/* X(name, offset) for every counter. */", "#define RF8_COUNTERS(X) \\"]
    lines += [f'    X("{name}", RF8_COUNTER_{name.upper()}) \\' for name in COUNTERS]
    lines += ["", "/* Error codes in STATUS. */", "enum rf8_error {"]
    for code in ErrorCode:
        lines.append(f"    RF8_ERROR_{code.name} = {code.value}, /* {ERROR_MEANINGS[code]} */")
    lines += ["};", "", "/* X(name, code) for every error. */", "#define RF8_ERRORS(X) \\"]
    lines += [f'    X("{code.name}", RF8_ERROR_{code.name}) \\' for code in ErrorCode]
    lines += [
        "",
        "/* This machine: what ID and CONFIG read as, and what no register tells. */",
        f"#define RF8_ID 0x{IDENTITY:08x}u",
        f"#define RF8_CONFIG 0x{config_word(config):08x}u",
        f"#define RF8_SPAN {config.span}u",
        f"#define RF8_MAX_K {config.max_k}u",
        f"#define RF8_SCRATCH_WORDS {config.scratch_words}u",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def system_rdl(config: AccelConfig) -> str:
    """``rf8.rdl``: the map in SystemRDL 2.0."""
    reset = {"ID": IDENTITY, "CONFIG": config_word(config)}
    lines = ["// Made by `rf8 verilog`.", "enum rf8_error {"]
    for code in ErrorCode:
        lines.append(f'  {code.name} = 8\'d{code.value} {{ desc = "{ERROR_MEANINGS[code]}"; }};')
    lines += [
        "};",
        "",
        "addrmap rf8 {",
        f'  name = "RF8 accelerator, config {config.name}";',
        "  default regwidth = 32;",
    ]
    for name, (offset, meaning) in REGISTERS.items():
        lines += ["  reg {", f'    desc = "{meaning}";']
        for field in FIELDS[name]:
            about = [f'desc = "{field.meaning}"; sw = {ACCESS[name]};']
            if name in reset:
                about.append("hw = na;")
            else:
                about.append("hw = r;" if "w" in ACCESS[name] else "hw = w;")
            if name == "CONTROL":
                about.append("singlepulse;")
            if field.name == "CODE":
                about.append("encode = rf8_error;")
            value = (reset.get(name, 0) & field.mask) >> field.low
            # A value that hardware writes has no reset of its own.
            start = f" = {field.width}'h{value:x}" if name in reset or "w" in ACCESS[name] else ""
            high = field.low + field.width - 1
            lines.append(
                f"    field {{ {' '.join(about)} }} {field.name}[{high}:{field.low}]{start};"
            )
        lines.append(f"  }} {name} @ 0x{offset:02x};")
    for name, meaning in COUNTERS.items():
        lines += [
            "  reg {",
            f'    desc = "{meaning}"; regwidth = 64; accesswidth = 32;',
            '    field { desc = "cleared by a start"; sw = r; hw = w; } VALUE[63:0];',
            f"  }} COUNTER_{name.upper()} @ 0x{counter_offset(name):02x};",
        ]
    return "\n".join([*lines, "};"]) + "\n"


def markdown(config: AccelConfig) -> str:
    """The map as tables."""
    lines = ["| offset | register | access | bits | field | meaning |", "|---|---|---|---|---|---|"]
    for name, (offset, _) in REGISTERS.items():
        for field in FIELDS[name]:
            high = field.low + field.width - 1
            bits = str(high) if high == field.low else f"{high}..{field.low}"
            lines.append(
                f"| 0x{offset:02x} | `{name}` | {ACCESS[name]} | {bits} | {field.name} "
                f"| {field.meaning} |"
            )
    lines += [
        "",
        f"`ID` reads 0x{IDENTITY:08x}, `CONFIG` of this machine 0x{config_word(config):08x}. An "
        "unknown address reads as zero.",
        "",
        "Counters have 64 bits, the low word at the offset, the high word 4 bytes above:",
        "",
        "| offset | counter | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| 0x{counter_offset(n):02x} | `{n}` | {what} |" for n, what in COUNTERS.items()]
    lines += ["", "| error code | name | meaning |", "|---|---|---|"]
    lines += [f"| {code.value} | `{code.name}` | {ERROR_MEANINGS[code]} |" for code in ErrorCode]
    return "\n".join(lines) + "\n"

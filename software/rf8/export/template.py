"""Text from the files in ``templates/``, and ports as Verilog."""

from __future__ import annotations

import string
from pathlib import Path

from golden.config import AccelConfig

FOLDER = Path(__file__).with_name("templates")
Port = tuple[str, str, int]
"""Name, "input" or "output", bits."""

PLACEHOLDER = r"(?P<escaped>(?!))|(?P<named>(?!))|@\{(?P<braced>[a-z_]+)\}|(?P<invalid>(?!))"


class Template(string.Template):
    """Placeholders are ``@{name}``: ``$`` belongs to Verilog and make, a bare ``@`` to Verilog."""

    pattern = PLACEHOLDER  # type: ignore[assignment]  # the base class compiles it


def fill(file: str, /, **values: object) -> str:
    """The template ``file`` with its placeholders replaced.

    Raises
    ------
    KeyError
        Where a placeholder has no value.
    """
    return Template((FOLDER / file).read_text()).substitute(values)


def declaration(kind: str, name: str, bits: int, *, start: str = "") -> str:
    """A line that declares a signal, e.g. ``  wire [7:0] name;``."""
    width = "" if bits == 1 else f"[{bits - 1}:0] "
    return f"  {kind} {width}{name}{start};"


def connections(ports: list[Port]) -> str:
    """Port connections by name, each to the signal of that name."""
    return ",\n".join(f"      .{name}({name})" for name, _, _ in ports)


AXI: dict[str, str] = {
    "id": "transaction ID; answers carry the ID of their request",
    "addr": "address of a burst's first byte",
    "len": "beats of the burst, less one",
    "size": "log2 of the bytes of a beat; constant, the full width of the bus",
    "burst": "constant: incrementing",
    "cache": "constant: modifiable and bufferable",
    "prot": "protection; not used",
    "valid": "the sender has something",
    "ready": "the receiver takes it",
    "data": "data",
    "resp": "0 is OKAY; 2 and 3 stop the machine with a bus error",
    "last": "last beat of the burst",
    "strb": "bytes to write; always all",
}
CHANNELS = {
    "ar": "read address",
    "r": "read data",
    "aw": "write address",
    "w": "write data",
    "b": "write answer",
}
LITE = {
    "addr": "byte offset of a register",
    "strb": "bytes to write; none: the write is answered and does nothing",
    "resp": "always OKAY",
    "data": "register value",
}


def port_meaning(name: str) -> str:
    """One line about a port.

    Raises
    ------
    KeyError
        For a port that is none of the accelerator's.
    """
    alone = {
        "clk": "clock; everything happens at its rising edge",
        "rst": "reset, active high, synchronous, for two cycles at least; bus and memory with it",
        "irq": "interrupt, active high, level: see INTERRUPT",
    }
    if name in alone:
        return alone[name]
    bus, signal = name[:6], name[6:]
    channel = signal[:2] if signal[:2] in CHANNELS else signal[:1]
    part = signal.removeprefix(channel)
    meaning = LITE.get(part, AXI[part]) if bus == "s_axi_" else AXI[part]
    return f"{CHANNELS[channel]}: {meaning}"


def head_comment(config: AccelConfig, ports: list[Port]) -> str:
    """What stands above the generated netlist: the machine and its ports."""
    lines = [
        f"rf8_{config.name}: RF8 accelerator. AXI4 manager m_axi_*, AXI4-Lite subordinate s_axi_*."
    ]
    lines += ["", "Config:"]
    lines += [f"  {name} = {value}" for name, value in config.as_dict().items()]
    lines += ["", "Ports:"]
    for name, direction, bits in ports:
        lines.append(f"  {direction:6} {bits:5}  {name:15} {port_meaning(name)}")
    return "".join(f"// {line}".rstrip() + "\n" for line in lines) + "\n"

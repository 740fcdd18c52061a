"""The register map that a host sees: control, status and counters."""

from __future__ import annotations

# The control registers (AXI4-Lite, 32 bits each): name -> (byte offset, meaning). Counters are 64
# bits, low word first, cleared by a start.
IDENTITY = 0x52463804


REGISTERS: dict[str, tuple[int, str]] = {
    "ID": (0x00, f"read only: {IDENTITY:#x}, the letters RF8 and the version of this map"),
    "CONFIG": (0x04, "read only: rows 8, cols 8, act_bits 8, bus_bytes 8, from the low bit"),
    "CONTROL": (0x08, "write: bit 0 starts, bit 1 stops (error ABORTED)"),
    "STATUS": (0x0C, "read only: bit 0 busy, bit 1 done, bit 2 error; 15..8 error code"),
    "ERROR_ADDRESS": (0x10, "read only: address of the instruction that stopped the machine"),
    "PROGRAM": (0x14, "address of the first instruction, a multiple of the slot"),
    "WATCHDOG": (0x18, "cycles without progress after which the machine stops; 0: never"),
    "INTERRUPT": (0x1C, "bit 0 enables the interrupt: high while done or error is and busy is not"),
    "POSITION": (0x20, "of the token in column 0, 24 bits: how many tokens came before it"),
    "TOKEN_COLUMN": (0x24, "column that a write to TOKEN is for"),
    "TOKEN": (0x28, "token of that column, 24 bits; a write goes on to the next column"),
}


COUNTERS: dict[str, str] = {
    "cycles": "clock cycles from start to stop",
    "matmul": "cycles in which a MATMUL was under way",
    "load": "cycles in which a LOAD was under way",
    "store": "cycles in which a STORE was under way, until its words were read",
    "vector": "cycles in which a VECTOR was under way",
    "stall_weights": "of the matmul cycles: the array waited for the weight stream",
    "stall_drain": "of the matmul cycles: the array waited for the bins of the tile before",
    "slices": "weight slices multiplied",
    "column_slices": "the same, counted once for each active column: `rows` MACs each",
    "read_weights": "bus beats read by the weight fetch",
    "read_other": "bus beats read by instruction fetch and LOAD",
    "written": "bus beats written",
    "saturated": "results of MATMUL and of VECTOR that saturated to 32 bits (`golden.vector`)",
}
"""Counters from offset 0x40 on, in this order, eight bytes each: name -> meaning."""


COUNTER_BASE = 0x40


def counter_offset(name: str) -> int:
    """Byte offset of the low word of a counter."""
    return COUNTER_BASE + 8 * list(COUNTERS).index(name)

"""The testbench: Verilog and memory images."""

from __future__ import annotations

from golden.config import AccelConfig
from golden.registers import IDENTITY, REGISTERS, counter_offset
from rf8.export.example_image import Image
from rf8.export.registers import FIELDS, config_word
from rf8.export.template import Port, connections, declaration, fill

EXACT_COUNTERS = ("slices", "column_slices", "read_weights", "written", "saturated")
"""Counters that the golden machine knows too."""

CYCLES_PER_BEAT = 80
"""More than a beat takes where each is a burst of its own, stalls included."""


def status(field: str) -> int:
    """The mask of a field of STATUS."""
    return next(f for f in FIELDS["STATUS"] if f.name == field).mask


def testbench_files(config: AccelConfig, ports: list[Port], image: Image) -> dict[str, str]:
    """File name -> text."""
    name = f"rf8_{config.name}"
    return {
        f"{name}_tb.v": _verilog(name, config, ports, image),
        f"{name}_tb.hex": image.hex(image.memory),
        f"{name}_tb_expected.hex": image.hex(image.expected),
    }


def _verilog(name: str, config: AccelConfig, ports: list[Port], image: Image) -> str:
    declarations = []
    for port, direction, bits in ports[2:]:  # without clk and rst
        if direction == "input":
            declarations.append(declaration("reg", port, bits, start=" = 0"))
        else:
            declarations.append(declaration("wire", port, bits))
    # Verilator wants to be told about each extension to 32 bits.
    missing = 32 - config.addr_bits
    extend = f"{{{missing}'d0, {{}}}}" if missing else "{}"
    offsets = {register: offset for register, (offset, _) in REGISTERS.items()}
    offsets["PROGRAM_REGISTER"] = offsets.pop("PROGRAM")
    counters = []
    for counter in EXACT_COUNTERS:
        at, value = counter_offset(counter), image.result.counters[counter]
        counters.append(f"    check_register(12'h{at:03x}, 32'd{value});  // {counter}")
    return fill(
        "testbench.v",
        name=name,
        bus_bytes=config.bus_bytes,
        words=image.words,
        result_words=image.result_words,
        program=f"{image.program:08x}",
        bad_program=f"{image.bad_program:08x}",
        bad_address=f"{image.bad_address:08x}",
        bad_code=int(image.bad_code),
        timeout=100_000 + 3 * CYCLES_PER_BEAT * image.words,
        registers="\n".join(f"  localparam [11:0] {r} = 12'h{o:03x};" for r, o in offsets.items()),
        status_done=f"{status('DONE'):08x}",
        status_error=f"{status('ERROR'):08x}",
        code_shift=next(f.low for f in FIELDS["STATUS"] if f.name == "CODE"),
        declarations="\n".join(declarations),
        connections=connections(ports),
        araddr=extend.format("m_axi_araddr"),
        awaddr=extend.format("m_axi_awaddr"),
        id=f"{IDENTITY:08x}",
        config=f"{config_word(config):08x}",
        counters="\n".join(counters),
    )

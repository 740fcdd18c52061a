"""The two adders that lanes are made of, in a form that each target maps to one carry chain; and a
count of bits.

A carry chain has inputs to spare: on ECP5 a bit of a chain is a look-up table of four inputs, of
which a plain adder uses two. Synthesis does not find that by itself, so the two patterns that lanes
need are modules of their own in the Verilog (`VERILOG`): plain expressions, or, with ``RF8_ECP5``
defined, cells of that family. For Amaranth's own simulator they stay expressions.
"""

from itertools import zip_longest

from amaranth.hdl import Instance, Mux, Signal, Value, signed

VERILOG_PLATFORM = "verilog"
"""The ``platform`` to elaborate with where the adders are to be modules."""


def add_subtract(m, platform, name, a, b, *, subtract, carry, keep=1):
    """``a + b + carry``, or ``a + ~b + carry`` where ``subtract`` is set; as wide as ``a``.

    ``b`` is signed and extended to that width, and counts as zero unless ``keep``. With ``carry``
    equal to ``subtract`` the result is ``a + b`` or ``a - b``.

    ``name``: of the submodule that is added to ``m``.
    """
    width, b = len(a), Value.cast(b)
    y = Signal(signed(width))
    if platform == VERILOG_PLATFORM:
        m.submodules[name] = Instance(
            "rf8_addsub",
            p_WIDTH=width,
            p_B_WIDTH=len(b),
            i_a=a,
            i_b=b,
            i_keep=Value.cast(keep)[0],
            i_subtract=Value.cast(subtract)[0],
            i_carry=Value.cast(carry)[0],
            o_y=y,
        )
    else:
        invert, mask = (
            Value.cast(bit)[0].replicate(len(b)).as_signed() for bit in (subtract, keep)
        )
        m.d.comb += y.eq(a + ((b & mask) ^ invert) + Value.cast(carry)[0])
    return y


def add_choice(m, platform, name, a0, a1, select, b):
    """``(a1 if select else a0) + b``; all signed, as wide as ``b``.

    ``name``: of the submodule that is added to ``m``.
    """
    width = len(b)
    y = Signal(signed(width))
    first = Signal(signed(width))
    second = Signal(signed(width))
    if platform == VERILOG_PLATFORM:
        m.d.comb += [first.eq(a0), second.eq(a1)]
        m.submodules[name] = Instance(
            "rf8_addmux",
            p_WIDTH=width,
            i_a0=first,
            i_a1=second,
            i_select=select,
            i_b=b,
            o_y=y,
        )
    else:
        m.d.comb += y.eq(Mux(select, a1, a0) + b)
    return y


def count_ones(bits):
    """How many of ``bits`` are high, by a tree of adders."""
    counts = [*bits]
    while len(counts) > 1:
        pairs = zip_longest(counts[::2], counts[1::2])
        counts = [a if b is None else a + b for a, b in pairs]
    return counts[0]


# In a CCU2C the sum of a bit is LUT4(A,B,C,D) ^ carry, and where the table gives 0 the carry out is
# its entry for (A,B,0,0). Both tables below are such that this is the operand on A: the running sum
# with C as subtract and D as keep, and `b` with C and D as the two choices.
VERILOG = """
// a + b + carry, or a + ~b + carry, with b as zero unless keep: one carry chain.
module rf8_addsub #(parameter WIDTH = 2, parameter B_WIDTH = 1)
  (input [WIDTH-1:0] a, input signed [B_WIDTH-1:0] b, input keep, input subtract, input carry,
   output [WIDTH-1:0] y);
  wire signed [WIDTH-1:0] wide = b;
`ifdef RF8_ECP5
  rf8_chain #(.WIDTH(WIDTH), .TABLE(16'h965A)) chain
    (.a(a), .b(wide), .c({WIDTH{subtract}}), .d({WIDTH{keep}}), .carry(carry), .y(y));
`else
  assign y = a + ((wide & {WIDTH{keep}}) ^ {WIDTH{subtract}}) + {{WIDTH-1{1'b0}}, carry};
`endif
endmodule

// (select ? a1 : a0) + b: one carry chain.
module rf8_addmux #(parameter WIDTH = 2)
  (input [WIDTH-1:0] a0, input [WIDTH-1:0] a1, input select, input [WIDTH-1:0] b,
   output [WIDTH-1:0] y);
`ifdef RF8_ECP5
  rf8_chain #(.WIDTH(WIDTH), .TABLE(16'h569A)) chain
    (.a(b), .b({WIDTH{select}}), .c(a0), .d(a1), .carry(1'b0), .y(y));
`else
  assign y = (select ? a1 : a0) + b;
`endif
endmodule
`ifdef RF8_ECP5

// The carry chain of an ECP5, two bits a cell.
module rf8_chain #(parameter WIDTH = 2, parameter [15:0] TABLE = 16'h965A)
  (input [WIDTH-1:0] a, input [WIDTH-1:0] b, input [WIDTH-1:0] c, input [WIDTH-1:0] d,
   input carry, output [WIDTH-1:0] y);
  localparam CELLS = (WIDTH + 1) / 2;
  wire [2*CELLS-1:0] wa = a, wb = b, wc = c, wd = d, wy;
  wire [CELLS:0] ripple;
  assign ripple[0] = carry, y = wy[WIDTH-1:0];
  genvar i;
  generate
    for (i = 0; i < CELLS; i = i + 1) begin : bits
      CCU2C #(.INIT0(TABLE), .INIT1(TABLE), .INJECT1_0("NO"), .INJECT1_1("NO")) cell_
        (.CIN(ripple[i]), .COUT(ripple[i+1]),
         .A0(wa[2*i]), .B0(wb[2*i]), .C0(wc[2*i]), .D0(wd[2*i]), .S0(wy[2*i]),
         .A1(wa[2*i+1]), .B1(wb[2*i+1]), .C1(wc[2*i+1]), .D1(wd[2*i+1]), .S1(wy[2*i+1]));
    end
  endgenerate
endmodule
`endif
"""

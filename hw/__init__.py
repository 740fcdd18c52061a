"""The accelerator in Amaranth HDL: one component per file, `top` only wires them."""

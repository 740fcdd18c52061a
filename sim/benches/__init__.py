"""Testbenches in cocotb: every block of the hardware against its golden model."""

"""Quantisation of models to RF8."""

from rf8.quantize.rounding import quantize, quantize_matrix, sqnr_db

__all__ = ["quantize", "quantize_matrix", "sqnr_db"]

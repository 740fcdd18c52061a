"""Quantisation of models to RF8."""

from rf8.quantize.rounding import METHODS, quantize, quantize_matrix, sqnr_db

__all__ = ["METHODS", "quantize", "quantize_matrix", "sqnr_db"]

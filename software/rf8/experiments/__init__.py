"""Experiments that test claims about formats and methods on real models."""

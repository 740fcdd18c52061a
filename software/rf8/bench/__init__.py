"""Benchmarks of speed and memory; ``python -m rf8.bench``."""

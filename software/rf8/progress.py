"""Functions that are told how far long work is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Takes the name of the part that begins, its number, and how many there are."""

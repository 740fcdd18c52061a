"""Small models made on the spot, through transformers, as users' checkpoints are."""

from golden.config import CONFIGS
from rf8.evaluation.samples import sample

EIGHT = CONFIGS["tiny"].replace(name="eight", rows=8, bus_bytes=8, fifo_beats=64)
"""A machine whose words hold two elements."""


def gpt2(**changes):
    """A GPT-2 with random weights; widths and head counts are odd unless said otherwise."""
    return sample("gpt2", **changes)


def llama(**changes):
    """A Llama with random weights and grouped-query heads, as odd as `gpt2`."""
    return sample("llama", **{"hidden_size": 30, "head_dim": 10, **changes})


def save(folder, **changes):
    """Write a GPT-2 to ``folder`` in Hugging Face layout; returns it."""
    model = gpt2(**changes)
    model.save_pretrained(folder)
    return model

"""Small models made on the spot, through transformers, as users' checkpoints are."""

import torch
import transformers

from golden.config import CONFIGS

EIGHT = CONFIGS["tiny"].replace(name="eight", rows=8, bus_bytes=8, fifo_beats=64)
"""A machine whose words hold two elements."""


def gpt2(**changes):
    """A GPT-2 with random weights; widths and head counts are odd unless said otherwise."""
    vocab = changes.get("vocab_size", 101)
    options = {
        "n_layer": 2,
        "n_embd": 30,
        "n_head": 5,
        "n_inner": 50,
        "n_positions": 24,
        "vocab_size": vocab,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    torch.manual_seed(1)
    return _stirred(transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**options, **changes})))


def llama(**changes):
    """A Llama with random weights and grouped-query heads, as odd as `gpt2`."""
    options = {
        "num_hidden_layers": 2,
        "hidden_size": 30,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "intermediate_size": 50,
        "max_position_embeddings": 24,
        "vocab_size": 101,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**{**options, **changes})
    return _stirred(transformers.LlamaForCausalLM(config))


def _stirred(model):
    with torch.no_grad():
        for parameter in model.parameters():
            # Untrained norms and biases are ones and zeros, which would hide mistakes.
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.mul_(6)
    return model.eval()


def save(folder, **changes):
    """Write a GPT-2 to ``folder`` in Hugging Face layout; returns it."""
    model = gpt2(**changes)
    model.save_pretrained(folder)
    return model

"""Small GPT-2 models made on the spot, through transformers, as users' checkpoints are."""

import torch
import transformers


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
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**options, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Untrained norms and biases are ones and zeros, which would hide mistakes.
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.mul_(6)
    return model


def save(folder, **changes):
    """Write such a model to ``folder`` in Hugging Face layout; returns it."""
    model = gpt2(**changes)
    model.save_pretrained(folder)
    return model

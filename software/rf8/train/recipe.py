"""What a training run is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides the weights, apart from the text and the arithmetic of the machine."""

    steps: int = 4200
    seed: int = 0
    vocab_size: int = 1024
    context: int = 256  # tokens
    n_embd: int = 256
    n_layer: int = 4
    n_head: int = 8
    batch: int = 16  # windows of `context` tokens a step
    start: str = ""  # a model to go on from, tokenizer included; "" for a new one
    optimizer: str = "muon"  # of the matrices of the blocks, or adamw
    precision: str = "bfloat16"  # of the forward pass, or float32; many CPUs are slow at bfloat16
    lr: float = 5e-3  # peak, of both optimizers
    warmup: int = 100  # steps, linear
    decay: float = 0.5  # last part of the steps, linear to zero
    weight_decay: float = 0.1  # of matrices; the recipe's embeddings, norms and biases have none
    clip: float = 1.0  # gradient norm
    gg_shape: float = 1.5

    def lr_factor(self, step: int) -> float:
        """Warmup, stable, decay: the learning rate at `step` (0-based) relative to its peak."""
        decay_steps = self.decay * self.steps
        left = (self.steps - step) / decay_steps if decay_steps else 1.0
        return min(1.0, (step + 1) / self.warmup if self.warmup else 1.0, left)

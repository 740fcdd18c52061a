"""A model of your own, from training to tokens on the simulated hardware, in a minute.

    .venv/bin/python examples/own_model.py --config tiny

A small GPT-2 of transformers learns the Zen of Python by heart, byte by byte. It is rounded to RF8,
compiled, and goes on from a prompt on the RTL, with the golden machine beside it.
"""

import argparse
import codecs
import contextlib
import io
import time

import torch
import transformers

import rf8
from golden.config import CONFIGS
from rf8.checkpoint.huggingface import from_transformers

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--config", choices=CONFIGS, default="sim", help="the accelerator")
parser.add_argument("--steps", type=int, default=600, help="of training (default 600)")
parser.add_argument("--prompt", default="Beautiful is better", help="what it goes on from")
options = parser.parse_args()

with contextlib.redirect_stdout(io.StringIO()):
    import this  # prints its text, which is in `this.s` by another alphabet
text = codecs.decode(this.s, "rot13").split("\n\n", 1)[1]
CONTEXT, NEW = 48, 24
ids = torch.tensor(list(text.encode("ascii", "replace")))

torch.manual_seed(1)
config = transformers.GPT2Config(
    vocab_size=128, n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=4, resid_pdrop=0,
    embd_pdrop=0, attn_pdrop=0, bos_token_id=None, eos_token_id=None,
)  # fmt: skip
model = transformers.GPT2LMHeadModel(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0)
windows = ids.unfold(0, CONTEXT, 1)
started = time.perf_counter()
for step in range(options.steps):
    batch = windows[torch.randint(len(windows), (32,))]
    logits = model(input_ids=batch).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 99:
        print(f"step {step + 1}, loss {loss.item():.2f}, {time.perf_counter() - started:.0f} s")

quantized = rf8.quantize(from_transformers(model.eval(), "zen"))
program = rf8.compile(quantized, config=options.config)
prompt = list(options.prompt.encode())
with rf8.Session(program, backend="both", progress=lambda stage: print(stage.name)) as session:
    answer = session.generate(prompt, max_new_tokens=min(NEW, CONTEXT - len(prompt) + 1))
print(repr(bytes(answer).decode()))
print(f"cycles per token     {session.stats.cycles_per_token:,.0f}")
print(f"compared with golden {session.stats.compared:,} bytes, {session.stats.differences} differ")

"""What is supported: each family, tried on a small model; well-known models, by their shapes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from golden.config import AccelConfig, get_config
from rf8.checkpoint.families import FAMILIES
from rf8.checkpoint.gguf import load_gguf
from rf8.checkpoint.huggingface import from_transformers, graph_of, to_transformers
from rf8.checkpoint.model import Model
from rf8.compiler.driver import compile
from rf8.errors import DataError
from rf8.evaluation.approximate import approximated
from rf8.evaluation.samples import sample, write_gguf
from rf8.quantize.calibrated import quantize_compensated
from rf8.quantize.rounding import quantize
from rf8.report.throughput import model_counters, zero_model
from rf8.runtime.session import Session
from sim.rtl import MemoryModel

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 100]
STALLS = MemoryModel(latency=23, stalls=0.2, seed=5)
CALIBRATION = 40 * 24
"""Tokens of random text for compensated rounding."""


@dataclass(frozen=True)
class Check:
    """What became of a family's small model.

    ``nearest``, ``compensated``: correlation of the golden machine's logits with transformers' own,
    by rounding. ``worst``: largest difference of a logit over the largest logit, with nearest
    rounding. ``decoded``: correlation with the float model of the decoded weights, ``exact`` the
    same whose keys and values are in RF8, too. ``compared``, ``differences``: bytes of RTL and
    golden machine, under stalls. ``gguf``: whether a GGUF file gives the same weights; None: there
    are no such files. ``error``: what stopped it.
    """

    kind: str
    title: str
    nearest: float | None = None
    worst: float | None = None
    compensated: float | None = None
    decoded: float | None = None
    exact: float | None = None
    compared: int = 0
    differences: int | None = None
    gguf: bool | None = None
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)


def check_family(kind: str, *, rtl: bool = True) -> Check:
    """Try a family; ``rtl``: on the simulated hardware, too."""
    found = Check(kind, FAMILIES[kind].title)
    try:
        return _checked(found, rtl)
    except DataError as error:
        return replace(found, error=str(error))


def _checked(found: Check, rtl: bool) -> Check:
    module = sample(found.kind)
    model = from_transformers(module, found.kind)
    theirs = _logits(module)
    coded = quantize(model)
    program = compile(coded, "tiny")
    with Session(program, "both" if rtl else "golden", memory=STALLS) as session:
        ours = session.forward(IDS)
        stats = session.stats
    decoded = to_transformers(coded)
    text = torch.randint(101, (CALIBRATION,), generator=torch.Generator().manual_seed(5))
    better, _ = quantize_compensated(model, text)
    with Session(compile(better, "tiny"), "golden") as session:
        compensated = session.forward(IDS)
    plain = _logits(decoded)
    with approximated(decoded, model.graph, {"kv"}):
        exact = _logits(decoded)
    return replace(
        found,
        nearest=_correlation(ours, theirs),
        worst=float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
        compensated=_correlation(compensated, theirs),
        decoded=_correlation(ours, plain),
        exact=_correlation(ours, exact),
        compared=stats.compared,
        differences=stats.differences if rtl else None,
        gguf=_same_through_gguf(module, model, found.kind),
    )


def _logits(module: nn.Module) -> NDArray[np.float32]:
    with torch.no_grad():
        found: NDArray[np.float32] = module(torch.tensor([IDS])).logits[0].numpy()
    return found


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _same_through_gguf(module: nn.Module, model: Model, kind: str) -> bool | None:
    if FAMILIES[kind].gguf is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        read = load_gguf(write_gguf(Path(folder) / "m.gguf", module, kind))
    # Of norms that are stored as one more, the last bit.
    return all(
        np.allclose(read.float_tensor(n), model.float_tensor(n), rtol=0, atol=1e-6)
        for n in model.tensors
    )


@dataclass(frozen=True)
class Known:
    """A model that people know: its family, and the shape in its config."""

    name: str
    kind: str
    shape: tuple[int, int, int, int, int, int, int, bool]
    """Layers, width, heads, key-value heads, width of a head, inner width, vocabulary; tied."""

    def config(self, layers: int, vocab: int) -> dict[str, Any]:
        """Its transformers config with other ``layers`` and another ``vocab``."""
        _, width, heads, groups, head, inner, _, tied = self.shape
        if self.kind == "gpt2":
            return {
                "model_type": "gpt2", "n_layer": layers, "n_embd": width, "n_head": heads,
                "vocab_size": vocab,
            }  # fmt: skip
        found = {
            "model_type": self.kind,
            "num_hidden_layers": layers,
            "hidden_size": width,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "head_dim": head,
            "intermediate_size": inner,
            "vocab_size": vocab,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": tied,
            "pad_token_id": None,
        }
        if self.kind == "gpt_neox":
            del found["num_key_value_heads"]
        if self.kind in ("gpt_neox", "phi3", "qwen2", "olmo2", "stablelm", "smollm3"):
            del found["head_dim"]
        return found


KNOWN = (
    Known("GPT-2", "gpt2", (12, 768, 12, 12, 64, 3072, 50257, True)),
    Known("GPT-2 XL", "gpt2", (48, 1600, 25, 25, 64, 6400, 50257, True)),
    Known("SmolLM2-135M", "llama", (30, 576, 9, 3, 64, 1536, 49152, True)),
    Known("SmolLM2-1.7B", "llama", (24, 2048, 32, 32, 64, 8192, 49152, True)),
    Known("Llama 3.2 1B", "llama", (16, 2048, 32, 8, 64, 8192, 128256, True)),
    Known("Llama 3.2 3B", "llama", (28, 3072, 24, 8, 128, 8192, 128256, True)),
    Known("Llama 3.1 8B", "llama", (32, 4096, 32, 8, 128, 14336, 128256, False)),
    Known("Llama 2 7B", "llama", (32, 4096, 32, 32, 128, 11008, 32000, False)),
    Known("Mistral 7B", "mistral", (32, 4096, 32, 8, 128, 14336, 32000, False)),
    Known("Qwen2.5 0.5B", "qwen2", (24, 896, 14, 2, 64, 4864, 151936, True)),
    Known("Qwen2.5 1.5B", "qwen2", (28, 1536, 12, 2, 128, 8960, 151936, True)),
    Known("Qwen3 0.6B", "qwen3", (28, 1024, 16, 8, 128, 3072, 151936, True)),
    Known("Qwen3 1.7B", "qwen3", (28, 2048, 16, 8, 128, 6144, 151936, True)),
    Known("Gemma 2B", "gemma", (18, 2048, 8, 1, 256, 16384, 256000, True)),
    Known("Gemma 2 2B", "gemma2", (26, 2304, 8, 4, 256, 9216, 256000, True)),
    Known("Gemma 3 270M", "gemma3_text", (18, 640, 4, 1, 256, 2048, 262144, True)),
    Known("Gemma 3 1B", "gemma3_text", (26, 1152, 4, 1, 256, 6912, 262144, True)),
    Known("Phi-3 mini", "phi3", (32, 3072, 32, 32, 96, 8192, 32064, False)),
    Known("Pythia 160M", "gpt_neox", (12, 768, 12, 12, 64, 3072, 50304, False)),
    Known("Pythia 1B", "gpt_neox", (16, 2048, 8, 8, 256, 8192, 50304, False)),
    Known("SmolLM3 3B", "smollm3", (36, 2048, 16, 4, 128, 11008, 128256, True)),
    Known("OLMo 2 1B", "olmo2", (16, 2048, 16, 16, 128, 8192, 100352, False)),
    Known("StableLM 2 1.6B", "stablelm", (24, 2048, 32, 32, 64, 5632, 100352, False)),
)
"""Shapes from the configs that their makers have published."""
CONTEXT = 512
"""Positions for which they are compiled."""
CLOCK = 500e6
"""Hz, for tokens a second."""


@dataclass(frozen=True)
class Size:
    """A well-known model on a machine. ``memory``: bytes in all. ``token``: bytes and ``cycles`` of
    a token at position 0. ``error``: why it does not fit."""

    name: str
    kind: str
    config: str
    memory: int = 0
    token: int = 0
    cycles: int = 0
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)


def sizes(known: Known, config: str = "sim", latency: int = 60) -> Size:
    """A well-known model's size and speed on a machine, by the cycle model.

    Layers are alike, and what a vocabulary costs is its length: three smaller models say it.
    """
    machine, found = get_config(config), Size(known.name, known.kind, config)
    layers, vocab = known.shape[0], known.shape[6]
    unit = 32 * machine.rows
    try:
        one, two, longer = (
            _measured(known.config(n, v), known.name, machine, latency)
            for n, v in ((1, unit), (2, unit), (1, 2 * unit))
        )
    except DataError as error:
        return replace(found, error=str(error))
    total = one + (layers - 1) * (two - one) + (vocab - unit) * (longer - one) // unit
    memory, token, cycles = (int(n) for n in total)
    if memory >> machine.addr_bits:
        why = f"{memory / 2**30:.1f} GiB of memory, {2 ** (machine.addr_bits - 30)} are addressed"
        return replace(found, memory=memory, token=token, cycles=cycles, error=why)
    return replace(found, memory=memory, token=token, cycles=cycles)


def _measured(
    config: dict[str, Any], name: str, machine: AccelConfig, latency: int
) -> NDArray[np.int64]:
    """Memory, bytes a token and its cycles."""
    graph = graph_of(config, name)
    model = replace(zero_model(graph, machine.span), name=name)
    program = compile(model, machine, context=min(graph.context, CONTEXT))
    del program.sections["weights"]  # large, and zero
    counters = model_counters(graph, 1, True, 0, machine, latency)
    beats = counters["read_weights"] + counters["read_other"] + counters["written"]
    found = (program.memory_bytes, beats * machine.bus_bytes, counters["cycles"])
    return np.array(found, np.int64)


def page(checks: Sequence[Check], known: Sequence[Size]) -> str:
    """The page of support, as Markdown."""
    lines = [
        "# Which models run",
        "",
        "Written by `rf8 models --check -o docs/support.md`.",
        "",
        "Each family with a small model of random weights and odd sizes: correlation of the",
        "machine's logits with those of transformers' own class, weights rounded to nearest and by",
        "compensated rounding; the largest difference of a logit over the largest; correlation",
        "with the float model that has the decoded weights, and with the same one whose keys and",
        "values are rounded to RF8, too; bytes that RTL and golden machine left, under stalls,",
        "and how many differ; and whether a GGUF file gives the same weights.",
        "",
        "| family | model_type | nearest | worst logit | compensated | decoded weights "
        "| ... and keys, values | RTL bytes | different | GGUF |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for c in checks:
        if c.error:
            lines.append(f"| {c.title} | `{c.kind}` | not yet: {c.error} | | | | | | | |")
            continue
        same = {None: "none", True: "same", False: "**differs**"}[c.gguf]
        different = "not run" if c.differences is None else f"{c.differences:,}"
        lines.append(
            f"| {c.title} | `{c.kind}` | {c.nearest:.4f} | {c.worst:.3f} | {c.compensated:.4f} "
            f"| {c.decoded:.5f} | {c.exact:.6f} | {c.compared:,} | {different} | {same} |"
        )
    lines += [
        "",
        "## Well-known models",
        "",
        f"By their shapes alone, on config `sim` with {CONTEXT} positions: memory in all, bytes",
        "and cycles of a token at position 0 by the cycle model (latency 60), tokens a second at",
        f"{CLOCK / 1e6:g} MHz (a bus of {CLOCK * get_config('sim').bus_bytes / 1e9:g} GB/s).",
        "",
        "| model | model_type | memory | bytes a token | cycles | tokens/s | fits |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in known:
        figures = " | | | "
        if s.cycles:
            figures = f"{s.memory / 1e6:,.0f} MB | {s.token / 1e6:,.1f} MB | {s.cycles:,}"
            figures += f" | {CLOCK / s.cycles:,.1f}"
        fits = f"no: {s.error}" if s.error else "yes"
        lines.append(f"| {s.name} | `{s.kind}` | {figures} | {fits} |")
    return "\n".join([*lines, ""])

"""What torch.export gives is the graph that the shapes give; what cannot be lowered is named."""

import dataclasses

import pytest
import tiny_models
import torch
from torch import nn

import rf8
from rf8.checkpoint.huggingface import from_transformers
from rf8.compiler.graphs import graph_of
from rf8.compiler.ir import Activate, Add, Attention, Broken, Graph, Linear, Split, verify
from rf8.compiler.passes import optimize
from rf8.compiler.trace import export_graph
from rf8.errors import DataError
from rf8.report.throughput import MODELS

CASES = {
    "gpt2": ("gpt2", {}),
    "gpt2, exact gelu, untied": (
        "gpt2",
        {"activation_function": "gelu", "tie_word_embeddings": False},
    ),
    "gpt2, relu": ("gpt2", {"activation_function": "relu"}),
    "llama": ("llama", {}),
    "llama, one key-value head, tied, biases": (
        "llama",
        {
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    "llama, another base": ("llama", {"rope_theta": 500000.0, "head_dim": 16}),
}


def module(case):
    kind, changes = CASES[case]
    return kind, getattr(tiny_models, kind)(**changes)


@pytest.mark.parametrize("case", CASES)
def test_export_gives_the_graph_of_the_shapes(case):
    kind, model = module(case)
    assert export_graph(model, kind) == graph_of(from_transformers(model, kind).spec, kind)


def test_programs_of_both_are_the_same():
    kind, module_ = module("gpt2")
    model = rf8.quantize(from_transformers(module_, kind))
    graph = export_graph(module_, kind)
    programs = [rf8.compile(model, "tiny", graph=g) for g in (None, graph)]
    texts = [program.sections["program"][1].tobytes() for program in programs]
    assert texts[0] == texts[1]


class Sinus(nn.Module):
    def forward(self, x):
        return torch.sin(x)


class Hat(nn.Module):
    def forward(self, x):
        return torch.relu(x) * 0.5


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (Sinus(), r"h\.1\.mlp\.act: operation aten\.sin\.default cannot be lowered"),
        (Hat(), r"h\.1\.mlp\.act: an elementwise function that is none of gelu, .*lowered"),
        (nn.Softmax(-1), r"h\.1\.mlp\.act: operation aten\.softmax\.int cannot be lowered"),
    ],
)
def test_what_cannot_be_lowered_is_named(part, what):
    model = tiny_models.gpt2()
    model.transformer.h[1].mlp.act = part
    with pytest.raises(DataError, match=what):
        export_graph(model, "odd")


def test_attention_that_is_not_causal_is_refused():
    model = tiny_models.gpt2()
    for module_ in model.modules():
        if hasattr(module_, "scale_attn_weights"):
            module_.scale_attn_weights = False
            module_.scaling = 1.0
    with pytest.raises(DataError, match=r"h\.0\.attn: attention with scale 1 cannot be lowered"):
        export_graph(model, "odd")


def test_linears_of_one_vector_are_joined():
    graph = optimize(graph_of(MODELS["smollm2-135m"], "smollm2"))
    first = [op for op in graph.ops if op.module.startswith("layers.0.")]
    joined = [op for op in first if isinstance(op, Linear) and len(op.parts) > 1]
    assert [len(op.parts) for op in joined] == [3, 2]
    assert [op.width for op in joined] == [576 + 2 * 192, 2 * 1536]
    assert sum(isinstance(op, Split) for op in first) == 5


def test_passes_are_checked():
    graph = graph_of(MODELS["default"], "default")
    at, add = next((i, op) for i, op in enumerate(graph.ops) if isinstance(op, Add))

    def changed(**changes):
        ops = list(graph.ops)
        ops[at] = dataclasses.replace(add, **changes)
        return Graph(tuple(ops))

    for broken, what in (
        (changed(b=at + 1), "takes what is not made yet"),
        (changed(width=3), r"\[256, 256\] give 3"),
        (changed(a=add.b, b=add.b), "is made and never used"),
        (changed(width=0), "width is 0"),
    ):
        with pytest.raises(Broken, match=f"after a pass: .*{what}"):
            verify(broken, "a pass")
    at, attention = next(graph.attentions())
    ops = list(graph.ops)
    ops[at] = dataclasses.replace(attention, kv_heads=3)
    with pytest.raises(Broken, match=r"Attention h\.0\.attn: heads do not fit"):
        verify(Graph(tuple(ops)), "a pass")
    assert isinstance(ops[at], Attention)
    ops = list(graph.ops)
    at, act = next((i, op) for i, op in enumerate(ops) if isinstance(op, Activate))
    ops[at] = dataclasses.replace(act, kind="mish")
    with pytest.raises(Broken, match=r"Activate h\.0\.mlp\.act: .* 'mish' is unknown"):
        verify(Graph(tuple(ops)), "a pass")


def test_a_vector_for_two_kinds_of_use_is_refused():
    """A norm's result that also enters a sum would need both a block and its elements."""
    graph = graph_of(MODELS["default"], "default")
    ops = list(graph.ops)
    at = next(i for i, op in enumerate(ops) if isinstance(op, Add) and op.module == "h.0")
    ops[at] = dataclasses.replace(ops[at], a=3)
    model = rf8.load_model("default")
    with pytest.raises(DataError, match=r"h\.0\.ln_1: its result enters a matrix product and h\.0"):
        rf8.compile(model, graph=Graph(tuple(ops)))

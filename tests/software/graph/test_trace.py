"""What torch.export gives is a graph of known operations; what cannot be lowered is named."""

from collections import Counter

import pytest
import tiny_models
import torch
from torch import nn

from rf8.errors import DataError
from rf8.evaluation.samples import sample
from rf8.graph.ir import Cap, Embedding, Linear, Norm, Scale
from rf8.graph.trace import export_graph


def graph_of(kind, **changes):
    return export_graph(sample(kind, **changes), kind)


def ops_of(graph, kind):
    return [op for op in graph.ops if isinstance(op, kind)]


def test_gpt2():
    graph = graph_of("gpt2")
    assert Counter(type(op).__name__ for op in graph.ops) == {
        "Embedding": 2, "Add": 5, "Norm": 5, "Linear": 9, "Take": 6, "Attention": 2, "Activate": 2,
    }  # fmt: skip
    assert [op.by for op in ops_of(graph, Embedding)] == ["token", "position"]
    assert graph.turned() == {n for n in graph.matrices() if n.startswith("h.")}
    assert graph.tied and graph.vocab == 101 and graph.context == 24
    assert graph.layers() == ["h.0", "h.1"]
    (_, first), _ = graph.attentions()
    assert (first.heads, first.kv_heads, first.rotary, first.window) == (5, 5, None, None)
    assert first.scale == pytest.approx(6**-0.5)


def test_options_of_gpt2():
    scales = {
        "scale_attn_weights": [1.0, 1.0],
        "scale_attn_by_inverse_layer_idx": [6**-0.5, 6**-0.5 / 2],
    }
    for option, wanted in scales.items():
        graph = graph_of("gpt2", **{option: option != "scale_attn_weights"})
        assert [op.scale for _, op in graph.attentions()] == pytest.approx(wanted)


LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.7],
    "long_factor": [4.0] * 4,
}
ROTARY = {
    "llama": ({}, 4, 4),
    "gpt_neox": ({"rotary_pct": 0.5}, 2, 2),
    "phi3": ({"rope_parameters": LONG, "original_max_position_embeddings": 20}, 4, 4),
    "stablelm": ({}, 1, 1),
    "smollm3": ({}, 4, None),
}


@pytest.mark.parametrize("kind", ROTARY)
def test_rotary_positions(kind):
    changes, first, last = ROTARY[kind]
    graph = graph_of(kind, **changes)
    found = [op.rotary and len(op.rotary.steps) for _, op in graph.attentions()]
    assert (found[0], found[-1]) == (first, last)
    assert graph.context == (20 if kind == "phi3" else 24)


def test_scaled_rotary_positions_have_other_steps():
    rope = {"rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8}
    plain = next(graph_of("llama").attentions())[1]
    for kind, extra in (
        ("linear", {}),
        ("llama3", {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        ("yarn", {}),
    ):
        graph = graph_of("llama", rope_parameters=rope | extra | {"rope_type": kind})
        _, op = next(graph.attentions())
        assert op.rotary.pairing == "halves" and op.rotary.steps != plain.rotary.steps
        # yarn lengthens queries and keys, which is a factor of the scores.
        assert (op.scale > plain.scale * 1.01) == (kind == "yarn")


def test_gemma():
    first, second, third = (graph_of(kind) for kind in ("gemma", "gemma2", "gemma3_text"))
    for graph in (first, second, third):
        assert [op.factor for op in ops_of(graph, Scale)] == pytest.approx([48**0.5])
        assert all(norm.offset == 1 and not norm.center for norm in ops_of(graph, Norm))
    assert [op.cap for op in ops_of(second, Cap)] == [30.0]
    assert [(op.window, op.cap) for _, op in second.attentions()] == [(5, 50.0), (None, 50.0)]
    assert [op.window for _, op in third.attentions()] == [5, None]
    assert [op.scale for _, op in third.attentions()] == pytest.approx([1 / 3] * 2)
    assert {norm.parts for norm in ops_of(third, Norm)} == {1, 2, 6}
    steps = {op.rotary.steps for _, op in third.attentions()}
    assert len(steps) == 2


def test_parts_of_a_matrix_are_taken():
    graph = graph_of("gpt_neox")
    takes = [op for op in graph.ops if op.module == "layers.0.attention" and hasattr(op, "starts")]
    # Head by head: queries, keys, values of 8 elements.
    assert [op.starts for op in takes] == [tuple(range(first, 144, 24)) for first in (0, 8, 16)]
    assert ops_of(graph, Linear)[-1].parts[0][0] == "lm_head.weight"


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
        (Hat(), r"h\.1\.mlp\.act: an elementwise function that is no scale, .* gelu, .*lowered"),
        (nn.Softmax(-1), r"h\.1\.mlp\.act: operation aten\.softmax\.int cannot be lowered"),
    ],
)
def test_what_cannot_be_lowered_is_named(part, what):
    model = tiny_models.gpt2()
    model.transformer.h[1].mlp.act = part
    with pytest.raises(DataError, match=what):
        export_graph(model, "odd")


def test_attention_that_is_not_causal_is_refused():
    model = sample("gemma3_text", use_bidirectional_attention=True)
    with pytest.raises(DataError, match=r"layers\.0\.self_attn: attention that is not causal"):
        export_graph(model, "odd")


def test_the_model_is_left_as_it_was():
    model = sample("phi3", rope_parameters=LONG)
    before = model.config._attn_implementation, model.config.use_cache
    export_graph(model, "m")
    assert (model.config._attn_implementation, model.config.use_cache) == before
    assert model.model.rotary_emb.rope_type == "longrope"

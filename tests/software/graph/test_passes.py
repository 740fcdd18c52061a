"""Passes leave what a graph computes as it is."""

from dataclasses import replace

import numpy as np
import pytest

import rf8
from golden.config import CONFIGS
from rf8.checkpoint.huggingface import from_transformers
from rf8.errors import DataError
from rf8.evaluation.reference import Transformer
from rf8.evaluation.samples import sample
from rf8.graph.ir import Embedding, Linear, Multiply, Norm, Scale, Take
from rf8.graph.passes import lift_embeddings, optimize, scale_stream
from rf8.graph.trace import export_graph

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 100]


def test_linears_of_one_vector_are_joined():
    graph = optimize(export_graph(sample("llama"), "m"))
    first = [op for op in graph.ops if op.module.startswith("layers.0.")]
    joined = [op for op in first if isinstance(op, Linear) and len(op.parts) > 1]
    assert [len(op.parts) for op in joined] == [3, 2]
    assert [op.width for op in joined] == [48 + 2 * 16, 2 * 50]
    assert sum(isinstance(op, Take) for op in first) == 5


def test_parts_of_parts_are_parts_of_the_whole():
    graph = optimize(export_graph(sample("phi3"), "m"))
    takes = [op for op in graph.ops if isinstance(op, Take)]
    assert takes and all(isinstance(graph.ops[op.x], Linear) for op in takes)


def logits(model):
    reference = Transformer(model, CONFIGS["sim"])
    return reference.logits(reference.hidden(IDS)) * 2.0**-16


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma", "olmo2", "gpt_neox", "gemma3_text"])
@pytest.mark.parametrize(("drop", "lost"), [(2, 4e-5), (5, 2e-4)])
def test_a_narrower_stream_gives_the_same(kind, drop, lost):
    module = sample(kind)
    model = rf8.quantize(from_transformers(module, kind))
    plain = export_graph(module, kind)
    exact = logits(replace(model, graph=plain))
    found = logits(replace(model, graph=scale_stream(lift_embeddings(plain), drop, "m")))
    # All that is lost is resolution: of values far below 1, here.
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 1 - lost
    assert (found != exact).any()


def test_a_factor_goes_into_the_embedding():
    graph = lift_embeddings(export_graph(sample("gemma"), "m"))
    embedding = next(op for op in graph.ops if isinstance(op, Embedding))
    scale = next(op for op in graph.ops if isinstance(op, Scale))
    assert embedding.drop == -2 and scale.factor * 4 == pytest.approx(48**0.5)


def test_a_range_saves_what_would_saturate():
    """Writers times 2**12: 16 whole bits are too few for the stream, 16 and a drop are not."""
    module = sample("llama")
    for layer in module.model.layers:
        layer.mlp.down_proj.weight.data *= 2**12
    model = rf8.quantize(from_transformers(module, "m"))
    _, found = (logits(replace(model, graph=scale_stream(model.graph, d, "m"))) for d in (0, 8))
    assert np.abs(found).max() < 100


def test_streams_that_cannot_be_scaled():
    graph = export_graph(sample("llama"), "m")
    norm = graph.ops[-2]
    assert isinstance(norm, Norm)
    at = norm.x
    ops = list(graph.ops)
    ops[at] = Multiply(ops[at].module, ops[at].width, ops[at].a, ops[at].b)
    with pytest.raises(DataError, match=r"m: layers\.1: Multiply is part of the residual stream"):
        scale_stream(replace(graph, ops=tuple(ops)), 3, "m")

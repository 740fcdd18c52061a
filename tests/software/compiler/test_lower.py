"""A graph that instructions would compute wrongly is refused by the name of its operation."""

from dataclasses import replace

import pytest
import tiny_models

import rf8
from rf8.checkpoint.huggingface import from_transformers
from rf8.compiler.graphs import graph_of
from rf8.compiler.ir import Activate, Add, Attention, Graph, Linear, Norm
from rf8.errors import DataError


@pytest.fixture(scope="module")
def model():
    return rf8.quantize(from_transformers(tiny_models.gpt2(n_layer=1), "tiny"))


def changed(model, change):
    """The model's graph with one operation changed; the first for which ``change`` gives one."""
    ops = list(graph_of(model.spec, "tiny").ops)
    for index, op in enumerate(ops):
        if (new := change(index, op, ops)) is not None:
            ops[index] = new
            return Graph(tuple(ops))
    raise AssertionError("nothing to change")


def norm_after(index, op, ops):
    """A sum takes a norm's result, as where norms come after their layers."""
    if isinstance(op, Add) and isinstance(ops[op.b], Linear):
        norm = next(i for i in range(index) if isinstance(ops[i], Norm))
        return replace(op, a=norm)
    return None


def product_of_words(index, op, ops):
    """A matrix product follows another one, with nothing between."""
    if isinstance(op, Linear) and isinstance(ops[op.x], Activate):
        return replace(op, x=ops[op.x].x)
    return None


def sum_of_context(index, op, ops):
    """A sum takes an attention's context."""
    linear = isinstance(op, Add) and isinstance(ops[op.b], Linear)
    if linear and isinstance(ops[ops[op.b].x], Attention):
        return replace(op, b=ops[op.b].x)
    return None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (norm_after, r"h\.0\.ln_1: its result enters a matrix product and h\.0, which cannot"),
        (
            product_of_words,
            r"product of the result of Linear h\.0\.mlp\.c_fc, which cannot",
        ),
        (sum_of_context, r"h\.0\.attn: the result of Attention enters no matrix product"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(model, change, message):
    with pytest.raises(DataError, match=message):
        rf8.compile(model, "tiny", graph=changed(model, change))


def test_the_graph_itself_is_lowered(model):
    graph = graph_of(model.spec, "tiny")
    assert any(isinstance(op, Activate) for op in graph.ops)
    same = rf8.compile(model, "tiny", graph=graph).sections["program"][1]
    assert same.tobytes() == rf8.compile(model, "tiny").sections["program"][1].tobytes()

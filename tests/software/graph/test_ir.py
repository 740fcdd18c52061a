"""Graphs: what makes one, what is in it, and that it comes back from text as it was."""

import dataclasses
import json

import pytest

import rf8
from rf8.checkpoint.huggingface import from_transformers
from rf8.evaluation.samples import sample
from rf8.graph.ir import Activate, Add, Broken, Graph, Rotary, Take, verify


@pytest.fixture(scope="module")
def graph():
    return rf8.load_model("default").graph


def test_broken_graphs(graph):
    at, add = next((i, op) for i, op in enumerate(graph.ops) if isinstance(op, Add))

    def changed(index=at, op=add, **changes):
        ops = list(graph.ops)
        ops[index] = dataclasses.replace(op, **changes)
        return Graph(tuple(ops), graph.context)

    attention = next(graph.attentions())
    act = next((i, op) for i, op in enumerate(graph.ops) if isinstance(op, Activate))
    take = next((i, op) for i, op in enumerate(graph.ops) if isinstance(op, Take))
    for broken, what in (
        (changed(b=at + 1), "takes what is not made yet"),
        (changed(width=3), r"\[256, 256\] give 3"),
        (changed(a=add.b, b=add.b), "is made and never used"),
        (changed(width=0), "width is 0"),
        (changed(*attention, kv_heads=3), r"Attention h\.0\.attn: heads do not fit"),
        (changed(*attention, rotary=Rotary((1.0,) * 17, "halves")), "34 elements of a head turn"),
        (changed(*act, kind="mish"), r"Activate h\.0\.mlp\.act: .* 'mish' is unknown"),
        (changed(*take, starts=(700,)), "runs do not add up"),
    ):
        with pytest.raises(Broken, match=f"after a pass: .*{what}"):
            verify(broken, "a pass")


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "gemma3_text"])
def test_there_and_back(kind):
    graph = from_transformers(sample(kind), kind).graph
    assert Graph.from_json(graph.to_json()) == graph


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 0}, "version 0, not 1"),
        ({"ops": [{"op": "Spin"}]}, "no graph"),
        ({"ops": None}, "no graph"),
        ({"ops": [{"op": "Add", "module": "x", "width": 3, "a": 0, "b": 0}]}, "not made yet"),
    ],
)
def test_texts_that_are_no_graph(graph, change, words):
    text = json.dumps({**json.loads(graph.to_json()), **change})
    with pytest.raises(ValueError, match=words):
        Graph.from_json(text)


def test_what_is_in_it(graph):
    matrices = graph.matrices()
    assert list(matrices)[:3] == ["wte.weight", "wpe.weight", "h.0.attn.c_attn.weight"]
    assert matrices["h.3.mlp.c_fc.weight"] == (1024, 256)
    assert graph.vectors()["h.3.mlp.c_fc.bias"] == 1024 and graph.vectors()["ln_f.weight"] == 256
    assert graph.layers() == [f"h.{n}" for n in range(4)]
    assert (graph.head, graph.vocab, graph.tied) == (len(graph.ops) - 1, 1024, True)

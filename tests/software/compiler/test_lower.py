"""A graph that instructions would compute wrongly is refused by the name of its operation; others
give what the integer reference gives."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_models

import rf8
from golden.config import CONFIGS
from rf8.checkpoint.families import FAMILIES
from rf8.checkpoint.huggingface import from_transformers
from rf8.errors import DataError
from rf8.evaluation.reference import Transformer
from rf8.evaluation.samples import sample
from rf8.graph.ir import Activate, Add, Attention, Graph, Linear, Norm, Take
from rf8.runtime.session import Session

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 100]


@pytest.fixture(scope="module")
def model():
    return rf8.quantize(from_transformers(tiny_models.gpt2(n_layer=1), "tiny"))


def changed(model, change):
    """The model with one operation changed; the first for which ``change`` gives one."""
    ops = list(model.graph.ops)
    for index, op in enumerate(ops):
        if (new := change(index, op, ops)) is not None:
            ops[index] = new
            return replace(model, graph=Graph(tuple(ops), model.context))
    raise AssertionError("nothing to change")


def check(model, config="tiny"):
    """A program gives what the integer reference gives, to the bit."""
    reference = Transformer(model, CONFIGS[config])
    expected = reference.logits(reference.hidden(IDS))
    found = Session(rf8.compile(model, config=config)).forward(IDS)
    assert np.array_equal(found, expected * 2.0**-16)


@pytest.mark.parametrize("config", ["tiny", "sim"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family(kind, config):
    changes = {"hidden_size": 192} if kind == "olmo2" and config == "sim" else {}
    model = from_transformers(sample(kind, **changes), kind)
    check(rf8.quantize(model, span=CONFIGS[config].span), config)


def norm_after(index, op, ops):
    """A sum takes a norm's result that a matrix product takes, too."""
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


def norm_of_a_part(index, op, ops):
    """A sum takes the norm of what lies between others."""
    if isinstance(op, Take) and op.starts[0]:
        return replace(op, starts=(op.starts[0] - 1,))
    return None


@pytest.mark.parametrize("change", [norm_after, product_of_words, norm_of_a_part])
def test_vectors_have_users_of_all_kinds(model, change):
    check(changed(model, change))


def shared_values(index, op, ops):
    """Keys are values, too."""
    return replace(op, v=op.k) if isinstance(op, Attention) else None


def keys_elsewhere(index, op, ops):
    """Queries enter a sum, too."""
    if isinstance(op, Add) and isinstance(ops[op.b], Linear):
        query = next(i for i in range(index) if isinstance(ops[i], Take))
        return replace(op, a=query)
    return None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (sum_of_context, r"wte: the result of Embedding as heads cannot be lowered"),
        (shared_values, r"h\.0\.attn: attention of vectors that something else takes, too"),
        (keys_elsewhere, r"h\.0\.attn: attention of vectors that something else takes, too"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(model, change, message):
    with pytest.raises(DataError, match=message):
        rf8.compile(changed(model, change), "tiny")


def test_norm_of_heads_with_gaps_is_refused():
    model = rf8.quantize(from_transformers(sample("olmo2"), "m"))
    with pytest.raises(DataError, match=r"q_norm: a norm over heads that are filled up with zeros"):
        rf8.compile(model, "sim")

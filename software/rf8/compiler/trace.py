"""From a transformers model to a graph: `torch.export`, then one walk through what it gives.

The walk computes with descriptions of tensors. What depends on neither weights nor tokens (masks,
angles) is computed for real; of a vector of the model, each element's number is kept, so that
views, transpositions and slices are done on the numbers and looked at where the vector is used.
What is left are the operations of `rf8.compiler.ir`; anything else is an error that names module
and operation.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from golden.layers import ACTIVATIONS
from rf8.compiler.ir import (
    Activate,
    Add,
    Attention,
    Builder,
    Embedding,
    Graph,
    Linear,
    Multiply,
    Norm,
    Pairing,
    Rotary,
    Split,
)
from rf8.errors import DataError

TOKENS = 4
"""Tokens of the text that is traced: enough to see that attention is causal."""
POINTS = torch.linspace(-7, 7, 113, dtype=torch.float64)
"""Where unknown elementwise functions are compared with the known ones."""
KNOWN = {
    kind: torch.tensor([known(x) for x in POINTS.tolist()], dtype=torch.float64)
    for kind, known in ACTIVATIONS.items()
}
"""The activation functions at `POINTS`."""
ROOT = "embeddings"
"""Path of operations of the model itself, outside its layers."""

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Tokens:
    """The token ids."""


@dataclass(frozen=True)
class Parameter:
    """A weight, by its name in the checkpoint."""

    name: str


@dataclass(frozen=True)
class Vector:
    """Elements of a vector of the graph: of token t the element n has the number t * width + n.

    Several terms add up. ``factor``: what a term's elements are multiplied by; None for 1.
    """

    value: int
    terms: tuple[tuple[Tensor, Tensor | None], ...]

    def moved(self, move: Callable[[Tensor], Tensor]) -> Vector:
        """After an operation that only moves elements."""
        terms = tuple((move(i), None if f is None else move(f)) for i, f in self.terms)
        return replace(self, terms=terms)

    def scaled(self, by: Tensor) -> Vector:
        """Times a constant."""
        terms = []
        for index, factor in self.terms:
            one = torch.ones(index.shape) if factor is None else factor
            terms.append((index, one * by))
        return replace(self, terms=tuple(terms))


@dataclass(frozen=True)
class Pointwise:
    """A function of each element of a vector."""

    value: int
    function: Callable[[Tensor], Tensor]
    module: str


@dataclass(frozen=True)
class MeanSquare:
    """The mean square of a vector, plus epsilon."""

    value: int
    epsilon: float


@dataclass(frozen=True)
class InverseRoot:
    """One over the root of a `MeanSquare`."""

    of: MeanSquare


@dataclass(frozen=True)
class Normal:
    """A vector over its root mean square."""

    of: MeanSquare


def export_graph(module: nn.Module, name: str) -> Graph:
    """The graph of a causal language model of transformers, from token to logits.

    Weights are not looked at; names are those of its checkpoint. ``name`` names it in errors.

    Raises
    ------
    DataError
        Where torch cannot export it, or it has an operation that cannot be lowered; the message
        names module path and operation.
    """
    config: Any = module.config
    before = config.use_cache, config._attn_implementation
    config.use_cache = False
    module.set_attn_implementation("sdpa")  # type: ignore[operator]
    try:
        ids = torch.arange(TOKENS)[None]
        exported = torch.export.export(module.eval(), (ids,), strict=False)
    except Exception as error:  # whatever the model's code raises
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{name}: torch.export failed: {reason[0]}") from error
    finally:
        config.use_cache = before[0]
        module.set_attn_implementation(before[1])  # type: ignore[operator]
    return _Walk(module, exported, name).graph()


class _Walk:
    def __init__(self, module: nn.Module, exported: Any, name: str) -> None:
        self.exported, self.name = exported, name
        self.builder = Builder()
        self.widths: list[int] = []
        prefix = f"{module.base_model_prefix}."
        # Tied weights have one name, that of the embedding.
        self.names: dict[str, str] = {}
        seen: dict[int, str] = {}
        parameters = list(module.named_parameters(remove_duplicate=False))
        for path, parameter in sorted(parameters, key=lambda p: p[0].startswith("lm_head")):
            self.names[path] = seen.setdefault(id(parameter), path.removeprefix(prefix))
        self.prefix = prefix
        self.module = ROOT
        self.values: dict[Any, Any] = {}

    def graph(self) -> Graph:
        """Walk through all nodes."""
        for node in self.exported.graph.nodes:
            stack = node.meta.get("nn_module_stack") or {}
            path = list(stack.values())[-1][0] if stack else ""
            path = path.removeprefix(self.prefix)
            self.module = ROOT if path in ("", self.prefix.rstrip(".")) else path
            if node.op == "output":
                break
            self.values[node] = self._node(node)
        return self.builder.graph("torch.export")

    def _fail(self, what: str) -> DataError:
        return DataError(f"{self.name}: {self.module}: {what} cannot be lowered")

    def _add(self, op: Any) -> Vector:
        value = self.builder.add(op)
        self.widths.append(op.width)
        index = torch.arange(TOKENS * op.width).reshape(1, TOKENS, op.width)
        return Vector(value, ((index, None),))

    def _node(self, node: Any) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "get_attr":
            return operator.attrgetter(node.target)(self.exported.graph_module)
        args = torch.fx.node.map_arg(node.args, self.values.__getitem__)
        options = torch.fx.node.map_arg(node.kwargs, self.values.__getitem__)
        found: list[Any] = []
        torch.utils._pytree.tree_map(found.append, [args, options])
        if not any(isinstance(f, _DATA) for f in found):
            return node.target(*args, **options)
        return self._operation(node.target, args, options)

    def _placeholder(self, node: Any) -> Any:
        signature = self.exported.graph_signature
        if node.name in signature.inputs_to_parameters:
            return Parameter(self.names[signature.inputs_to_parameters[node.name]])
        if node.name in signature.inputs_to_buffers:
            name = signature.inputs_to_buffers[node.name]
            held = {**self.exported.state_dict, **self.exported.constants}
            return held[name]
        if node.name in signature.inputs_to_lifted_tensor_constants:
            name = signature.inputs_to_lifted_tensor_constants[node.name]
            return self.exported.constants[name]
        return Tokens()

    # Operations, by target.

    def _operation(self, target: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        first = args[0]
        if target is operator.getitem:
            return first[args[1]]
        overload = getattr(target, "overloadpacket", target)
        if overload in _SAME:
            return first
        if overload in _MOVES and isinstance(first, Tokens):
            return first
        if overload in _MOVES and isinstance(first, Pointwise):
            first = self._activation(first)
        if overload in _MOVES and isinstance(first, Vector):
            return first.moved(lambda t: target(t, *args[1:], **options))
        if overload is aten.cat:
            return self._cat(target, args)
        if overload in _POINTWISE and isinstance(first, Vector | Pointwise):
            return self._pointwise(target, args, options)
        handler = _HANDLERS.get(overload)
        if handler is None:
            raise self._fail(f"operation {target}")
        return handler(self, *args, **options)

    def _plain(self, x: Any, what: str) -> int:
        """The number of a whole vector; makes an activation function of a `Pointwise`."""
        if isinstance(x, Pointwise):
            x = self._activation(x)
        if isinstance(x, Vector) and len(x.terms) == 1 and x.terms[0][1] is None:
            index = x.terms[0][0].reshape(-1)
            if torch.equal(index, torch.arange(TOKENS * self.widths[x.value])):
                return x.value
        raise self._fail(f"{what} of part of a vector, or of something that is none,")

    def _activation(self, x: Pointwise) -> Vector:
        wanted = x.function(POINTS)
        for kind, known in KNOWN.items():
            if torch.allclose(wanted, known, rtol=0, atol=1e-6):
                return self._add(Activate(x.module, self.widths[x.value], x.value, kind))
        self.module = x.module
        raise self._fail(f"an elementwise function that is none of {', '.join(KNOWN)}")

    def _pointwise(self, target: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        x = args[0]
        if isinstance(x, Vector) and x.terms[0][1] is not None:
            raise self._fail(f"operation {target} of rotated elements")
        value = self._plain(x, str(target)) if isinstance(x, Vector) else x.value
        inner = x.function if isinstance(x, Pointwise) else lambda t: t
        return Pointwise(value, lambda t: target(inner(t), *args[1:], **options), self.module)

    def _cat(self, target: Any, args: tuple[Any, ...]) -> Vector:
        parts = args[0]
        same = all(
            isinstance(p, Vector) and len(p.terms) == 1 and p.value == parts[0].value for p in parts
        )
        if not same:
            raise self._fail("concatenation of different vectors")
        dim = args[1] if len(args) > 1 else 0
        index = torch.cat([p.terms[0][0] for p in parts], dim)
        ones = [torch.ones(i.shape) if f is None else f for i, f in (p.terms[0] for p in parts)]
        return Vector(parts[0].value, ((index, torch.cat(ones, dim)),))

    def _neg(self, x: Any) -> Any:
        if isinstance(x, Vector):
            return x.scaled(torch.tensor(-1.0))
        return self._pointwise(aten.neg.default, (x,), {})

    def _mul(self, a: Any, b: Any) -> Any:
        if isinstance(b, Vector) and isinstance(a, Tensor):
            a, b = b, a
        if isinstance(a, Vector) and isinstance(b, Tensor) and b.dim():
            return a.scaled(b)
        for x, scalar in ((a, b), (b, a)):
            if isinstance(scalar, int | float) or (isinstance(scalar, Tensor) and not scalar.dim()):
                return self._pointwise(aten.mul.Tensor, (x, scalar), {})
        for x, other in ((a, b), (b, a)):
            if isinstance(other, InverseRoot):
                if self._plain(x, "a norm") != other.of.value:
                    raise self._fail("a norm of one vector by another")
                return Normal(other.of)
            if isinstance(x, Parameter) and isinstance(other, Normal):
                of = other.of
                width = self.widths[of.value]
                return self._add(Norm(self.module, width, of.value, x.name, None, of.epsilon))
        return self._both(a, b, operator.mul, Multiply)

    def _addition(self, a: Any, b: Any, *, alpha: float = 1) -> Any:
        if alpha != 1:
            raise self._fail("addition with alpha")
        for x, scalar in ((a, b), (b, a)):
            if isinstance(scalar, int | float):
                if isinstance(x, MeanSquare):
                    return replace(x, epsilon=x.epsilon + scalar)
                return self._pointwise(aten.add.Tensor, (x, scalar), {})
        turned = isinstance(a, Vector) and isinstance(b, Vector) and a.value == b.value
        if turned and all(x.terms[0][1] is not None for x in (a, b)):
            return Vector(a.value, (*a.terms, *b.terms))
        return self._both(a, b, operator.add, Add)

    def _both(self, a: Any, b: Any, function: Callable[[Any, Any], Any], kind: Any) -> Any:
        """An elementwise operation of two vectors, or a function of one."""
        same = getattr(a, "value", -1) == getattr(b, "value", -2)
        if same and (isinstance(a, Pointwise) or isinstance(b, Pointwise)):
            f, g = (x.function if isinstance(x, Pointwise) else lambda t: t for x in (a, b))
            return Pointwise(a.value, lambda t: function(f(t), g(t)), self.module)
        first, second = sorted(self._plain(x, kind.__name__) for x in (a, b))
        return self._add(kind(self.module, self.widths[first], first, second))

    def _mean(self, x: Any, dims: list[int], keep: bool = False, **_: Any) -> MeanSquare:
        square = isinstance(x, Pointwise) and torch.allclose(x.function(POINTS), POINTS**2)
        if not square or list(dims) not in ([-1], [2]) or not keep:
            raise self._fail("a mean that is not of squares over the width")
        return MeanSquare(x.value, 0.0)

    def _rsqrt(self, x: Any) -> InverseRoot:
        if not isinstance(x, MeanSquare):
            raise self._fail("an inverse root that is not of a mean square")
        return InverseRoot(x)

    def _embedding(self, weight: Any, index: Any, *_: Any) -> Vector:
        if not isinstance(weight, Parameter):
            raise self._fail("an embedding that is no weight")
        width = self._width_of(weight)
        if isinstance(index, Tokens):
            return self._add(Embedding(self.module, width, weight.name, "token"))
        if isinstance(index, Tensor) and torch.equal(index.reshape(-1), torch.arange(TOKENS)):
            return self._add(Embedding(self.module, width, weight.name, "position"))
        raise self._fail("an embedding of neither tokens nor positions")

    def _shape(self, weight: Parameter) -> torch.Size:
        path = next(path for path, name in self.names.items() if name == weight.name)
        return torch.Size(self.exported.state_dict[path].shape)

    def _width_of(self, weight: Parameter) -> int:
        return self._shape(weight)[1]

    def _layer_norm(
        self, x: Any, shape: list[int], weight: Any = None, bias: Any = None,
        epsilon: float = 1e-5, *_: Any,
    ) -> Vector:  # fmt: skip
        value = self._plain(x, "a norm")
        if not isinstance(weight, Parameter) or list(shape) != [self.widths[value]]:
            raise self._fail("a LayerNorm without a weight")
        offset = bias.name if isinstance(bias, Parameter) else None
        if offset is None:
            raise self._fail("a LayerNorm without a bias")
        width = self.widths[value]
        return self._add(Norm(self.module, width, value, weight.name, offset, epsilon))

    def _linear(self, x: Any, weight: Any, bias: Any = None) -> Vector:
        return self._matrix(x, weight, bias, self._shape(weight)[0])

    def _addmm(self, bias: Any, x: Any, weight: Any, **options: Any) -> Vector:
        if options:
            raise self._fail("a scaled addmm")
        return self._matrix(x, weight, bias, self._shape(weight)[1])

    def _matrix(self, x: Any, weight: Any, bias: Any, width: int) -> Vector:
        if not isinstance(weight, Parameter) or not isinstance(bias, Parameter | None):
            raise self._fail("a product with something that is no weight")
        value = self._plain(x, "a product")
        part = (weight.name, None if bias is None else bias.name, width)
        return self._add(Linear(self.module, width, value, (part,)))

    def _split(self, x: Any, size: Any, dim: int = 0) -> list[Vector]:
        value = self._plain(x, "a split")
        width = self.widths[value]
        sizes = [size] * (width // size) if isinstance(size, int) else list(size)
        if dim not in (-1, 2) or sum(sizes) != width:
            raise self._fail("a split that is not of the width")
        cut = tuple(sizes)
        return [self._add(Split(self.module, n, value, i, cut)) for i, n in enumerate(cut)]

    # Attention.

    def _attention(
        self, q: Any, k: Any, v: Any, mask: Any = None, dropout: float = 0.0,
        is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
    ) -> Vector:  # fmt: skip
        if not all(isinstance(x, Vector) for x in (q, k, v)) or dropout or enable_gqa:
            raise self._fail("this form of attention")
        _, heads, tokens, width = q.terms[0][0].shape
        if scale is not None and abs(scale * width**0.5 - 1) > 1e-6:
            raise self._fail(f"attention with scale {scale:g}")
        causal = torch.ones(tokens, tokens).tril().bool()
        if isinstance(mask, Tensor):
            seen = mask if mask.dtype == torch.bool else mask == 0
            is_causal = torch.equal(seen.broadcast_to(1, 1, tokens, tokens)[0, 0], causal)
        if not is_causal:
            raise self._fail("attention that is not causal")
        groups = {self._heads(x, width) for x in (k, v)}
        if self._heads(q, width) != heads or len(groups) != 1:
            raise self._fail("attention of vectors that are no heads")
        rotary = {self._rotary(x, width) for x in (q, k)}
        if len(rotary) != 1 or len(v.terms) != 1:
            raise self._fail("attention whose queries and keys turn differently")
        op = Attention(
            self.module, heads * width, q.value, k.value, v.value, heads, groups.pop(), rotary.pop()
        )
        made = self._add(op)
        return made.moved(lambda t: t.reshape(1, tokens, heads, width).transpose(1, 2))

    def _heads(self, x: Vector, width: int) -> int:
        """How many heads a vector has, of which each may be repeated."""
        index = x.terms[0][0]
        many = self.widths[x.value] // width
        shown = index.shape[1]
        if many == 0 or shown % many:
            raise self._fail("attention of vectors that are no heads")
        whole = torch.arange(TOKENS * many * width).reshape(1, TOKENS, many, width).transpose(1, 2)
        if not torch.equal(index, whole.repeat_interleave(shown // many, dim=1)):
            raise self._fail("attention of vectors that are no heads")
        return many

    def _rotary(self, x: Vector, width: int) -> Rotary | None:
        """The rotary positions of a sum of two terms, checked at every position."""
        if len(x.terms) == 1 and x.terms[0][1] is None:
            return None
        if len(x.terms) != 2 or any(factor is None for _, factor in x.terms):
            raise self._fail("this form of rotary positions")
        (own, cosine), (other, sine) = x.terms
        assert cosine is not None and sine is not None
        cosine, sine = (t.broadcast_to(own.shape)[0, 0].double() for t in (cosine, sine))
        apart = (other - own)[0, 0, 0]
        half, places = width // 2, torch.arange(width)
        partners: dict[Pairing, Tensor] = {
            "halves": torch.where(places < half, half, -half),
            "neighbours": torch.where(places % 2 == 0, 1, -1),
        }
        firsts: dict[Pairing, Tensor] = {"halves": places < half, "neighbours": places % 2 == 0}
        for pairing, wanted in partners.items():
            if not torch.equal(apart, wanted):
                continue
            first = firsts[pairing]
            angle = torch.atan2(-sine[1, first], cosine[1, first])
            theta = float(f"{float(angle[1]) ** -half:.6g}") if half > 1 else 10000.0
            steps = theta ** (-2 * torch.arange(half).double() / width)
            turn = torch.arange(TOKENS)[:, None] * steps
            right = (
                torch.allclose(cosine[:, first], turn.cos(), atol=1e-5)
                and torch.allclose(cosine[:, ~first], turn.cos(), atol=1e-5)
                and torch.allclose(sine[:, first], -turn.sin(), atol=1e-5)
                and torch.allclose(sine[:, ~first], turn.sin(), atol=1e-5)
            )
            if right:
                return Rotary(theta, pairing)
        raise self._fail("this form of rotary positions")


_DATA = (Tokens, Parameter, Vector, Pointwise, MeanSquare, InverseRoot, Normal)
_SAME = {
    aten.to,
    aten.dropout,
    aten.contiguous,
    aten.clone,
    aten.detach,
    aten.alias,
    aten._assert_tensor_metadata,
}
_MOVES = {
    aten.view,
    aten.reshape,
    aten.transpose,
    aten.permute,
    aten.unsqueeze,
    aten.squeeze,
    aten.expand,
    aten.slice,
}
_POINTWISE = {aten.pow, aten.tanh, aten.sigmoid, aten.silu, aten.gelu, aten.relu}
_HANDLERS: dict[Any, Callable[..., Any]] = {
    aten.neg: _Walk._neg,
    aten.mul: _Walk._mul,
    aten.add: _Walk._addition,
    aten.mean: _Walk._mean,
    aten.rsqrt: _Walk._rsqrt,
    aten.embedding: _Walk._embedding,
    aten.layer_norm: _Walk._layer_norm,
    aten.linear: _Walk._linear,
    aten.addmm: _Walk._addmm,
    aten.split: _Walk._split,
    aten.split_with_sizes: _Walk._split,
    aten.scaled_dot_product_attention: _Walk._attention,
}

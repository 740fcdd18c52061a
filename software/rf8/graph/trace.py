"""From a transformers model to a graph: `torch.export`, then one walk through what it gives.

The walk computes with descriptions of tensors (`rf8.graph.symbols`). What depends on neither
weights nor tokens (masks, angles) is computed for real. What is left are the operations of
`rf8.graph.ir`; anything else is an error that names module and operation.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from golden.layers import ACTIVATIONS
from rf8.errors import DataError
from rf8.graph.heads import Unknown, heads_of, rotary_of
from rf8.graph.ir import (
    Activate,
    Add,
    Attention,
    Builder,
    Cap,
    Embedding,
    Graph,
    Linear,
    Multiply,
    Norm,
    Op,
    Scale,
    Take,
    verify,
)
from rf8.graph.symbols import (
    DATA,
    TOKENS,
    InverseRoot,
    MeanSquare,
    Normal,
    Parameter,
    Pointwise,
    Tokens,
    Vector,
    pattern,
    runs,
)

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


@torch.library.custom_op("rf8::attention", mutates_args=())
def _attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, window: int | None,
    cap: float | None,
) -> Tensor:  # fmt: skip
    """What stands in an exported model where it attends; never computed."""
    raise NotImplementedError


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3])


def _attend(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None,
    softcap: float | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """An attention function of transformers: leaves `_attention` in the graph."""
    harmless = {"is_causal", "position_ids", "output_attentions", "use_cache", "cache_position"}
    odd = [name for name, value in others.items() if value is not None and name not in harmless]
    if odd or dropout:
        raise NotImplementedError(f"attention with {', '.join(odd) or 'dropout'}")
    scale = q.shape[-1] ** -0.5 if scaling is None else float(scaling)
    return torch.ops.rf8.attention(q, k, v, mask, scale, sliding_window, softcap), None


@contextmanager
def _ready(module: nn.Module) -> Iterator[None]:
    """Within the block, a model is as it is exported: no cache, attention as one operation,
    rotary positions that do not depend on how long the text is."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register("rf8_trace", _attend)
    AttentionMaskInterface.register("rf8_trace", eager_mask)
    config: Any = module.config
    cached, implementation = config.use_cache, config._attn_implementation
    types = {id(m): (m, m.rope_type) for m in module.modules() if hasattr(m, "rope_type")}
    config.use_cache = False
    module.set_attn_implementation("rf8_trace")  # type: ignore[operator]
    for part, kind in types.values():
        kinds = kind if isinstance(kind, dict) else {"": kind}
        still = {n: "default" if k in ("dynamic", "longrope") else k for n, k in kinds.items()}
        part.rope_type = still if isinstance(kind, dict) else still[""]  # type: ignore[assignment]
    try:
        yield
    finally:
        config.use_cache = cached
        module.set_attn_implementation(implementation)  # type: ignore[operator]
        for part, kind in types.values():
            part.rope_type = kind


def export_graph(module: nn.Module, name: str) -> Graph:
    """The graph of a causal language model of transformers, from token to logits.

    Weights are not looked at, they may be on the meta device; names are those of its checkpoint
    without the prefix of the base model. ``name`` names it in errors.

    Raises
    ------
    DataError
        Where torch cannot export it, or it has an operation that cannot be lowered; the message
        names module path and operation.
    """
    try:
        with _ready(module):
            ids = torch.arange(TOKENS)[None]
            exported = torch.export.export(module.eval(), (ids,), strict=False)
    except Exception as error:  # whatever the model's code raises
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{name}: torch.export failed: {reason[0]}") from error
    return _Walk(module, exported, name).graph()


class _Walk:
    def __init__(self, module: nn.Module, exported: Any, name: str) -> None:
        self.exported, self.name = exported, name
        self.builder = Builder()
        self.widths: list[int] = []
        self.made: dict[Op, Vector] = {}
        prefix = f"{module.base_model_prefix}."
        # Tied weights have one name, that of the embedding.
        self.names: dict[str, str] = {}
        self.shapes: dict[str, torch.Size] = {}
        seen: dict[int, str] = {}
        head: Any = module.get_output_embeddings()  # type: ignore[operator]
        parameters = list(module.named_parameters(remove_duplicate=False))
        for path, parameter in sorted(parameters, key=lambda p: p[1] is head.weight):
            self.names[path] = seen.setdefault(id(parameter), path.removeprefix(prefix))
            self.shapes[self.names[path]] = parameter.shape
        self.frequencies = [
            buffer for path, buffer in module.named_buffers() if path.endswith("inv_freq")
        ]
        self.context = _context(module.config)
        self.prefix = prefix
        self.module = ROOT
        self.values: dict[Any, Any] = {}

    def graph(self) -> Graph:
        """Walk through all nodes."""
        last: Any = None
        for node in self.exported.graph.nodes:
            stack = node.meta.get("nn_module_stack") or {}
            path = list(stack.values())[-1][0] if stack else ""
            path = path.removeprefix(self.prefix)
            self.module = ROOT if path in ("", self.prefix.rstrip(".")) else path
            if node.op == "output":
                self.module = "logits"
                logits = self._ordered(last, "logits")
                if logits != len(self.widths) - 1:
                    raise self._fail("logits that are not made last")
                break
            self.values[node] = last = self._node(node)
        graph = self.builder.graph(self.context)
        verify(graph, "torch.export")
        return graph

    def _fail(self, what: str) -> DataError:
        return DataError(f"{self.name}: {self.module}: {what} cannot be lowered")

    def _add(self, op: Op, index: Tensor | None = None) -> Vector:
        """Append an operation whose result has the numbers ``index``, its own by default."""
        if op not in self.made:
            value = self.builder.add(op)
            self.widths.append(op.width)
            whole = torch.arange(TOKENS * op.width).reshape(1, TOKENS, op.width)
            self.made[op] = Vector(value, ((whole, None),))
        made = self.made[op]
        return made if index is None else replace(made, terms=((index, None),))

    def _node(self, node: Any) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "get_attr":
            return operator.attrgetter(node.target)(self.exported.graph_module)
        args = torch.fx.node.map_arg(node.args, self.values.__getitem__)
        options = torch.fx.node.map_arg(node.kwargs, self.values.__getitem__)
        found: list[Any] = []
        torch.utils._pytree.tree_map(found.append, [args, options])
        if not any(isinstance(f, DATA) for f in found):
            return node.target(*args, **_on_cpu(options))
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
        if overload in _MOVES:
            if isinstance(first, Tokens):
                return first
            moving = self._vector(first, str(target))
            return moving.moved(lambda t: target(t, *args[1:], **options))
        if overload is aten.cat:
            return self._cat(args)
        if overload in _POINTWISE and isinstance(first, Vector | Pointwise):
            return self._pointwise(target, args, options)
        handler = _HANDLERS.get(overload)
        if handler is None:
            raise self._fail(f"operation {target}")
        return handler(self, *args, **options)

    def _vector(self, x: Any, what: str) -> Vector:
        """Makes operations of what is only described so far."""
        if isinstance(x, Pointwise):
            return self._function(x)
        if isinstance(x, Normal):
            return self._norm(x.of.of, None, None, x.of.epsilon, center=False)
        if isinstance(x, Vector):
            return x
        raise self._fail(f"{what} of something that is no vector")

    def _whole(self, x: Any, what: str) -> Vector:
        """A vector all of whose elements are used; takes a part out where they are not."""
        vector = self._vector(x, what)
        width = self.widths[vector.value]
        found = [pattern(index, width) for index, _ in vector.terms]
        if any(p is None for p in found):
            raise self._fail(f"{what} across tokens")
        used = torch.unique(torch.cat([p.reshape(-1) for p in found if p is not None]))
        if len(used) == width:
            return vector
        starts, length = runs(used)
        made = self._add(Take(self.module, len(used), vector.value, starts, length))
        terms = []
        for index, factor in vector.terms:
            place = torch.searchsorted(used, (index % width).contiguous()) + index // width * len(
                used
            )
            terms.append((place, factor))
        return Vector(made.value, tuple(terms))

    def _ordered(self, x: Any, what: str) -> int:
        """The number of a vector whose elements are all there, in order."""
        x = self._whole(x, what)
        index = x.index
        wanted = torch.arange(TOKENS * self.widths[x.value])
        if index is not None and torch.equal(index.reshape(-1), wanted):
            return int(x.value)
        raise self._fail(f"{what} of elements in another order")

    def _function(self, x: Pointwise) -> Vector:
        """An elementwise function as an operation, found by its values."""
        wanted, (value, index) = x.function(POINTS), (x.of.value, x.of.index)
        width = self.widths[value]
        for kind, known in KNOWN.items():
            if torch.allclose(wanted, known, rtol=0, atol=1e-6):
                return self._add(Activate(x.module, width, value, kind), index)
        factor = self._factor(x)
        if factor:
            return self._add(Scale(x.module, width, value, factor), index)
        cap = float(x.function(torch.tensor(1e12, dtype=torch.float64)))
        if cap > 0 and torch.allclose(wanted, cap * torch.tanh(POINTS / cap), rtol=0, atol=1e-6):
            return self._add(Cap(x.module, width, value, cap), index)
        self.module = x.module
        kinds = ", ".join(KNOWN)
        raise self._fail(f"an elementwise function that is no scale, soft cap or one of {kinds}")

    def _factor(self, x: Pointwise) -> float:
        """What a function multiplies by, or 0 where it does something else."""
        found = x.function(POINTS)
        factor = float(found[-1] / POINTS[-1])
        right = factor > 0 and torch.allclose(found, factor * POINTS, rtol=1e-6, atol=0)
        return factor if right else 0.0

    def _pointwise(self, target: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Pointwise:
        x = args[0]
        if isinstance(x, Pointwise) and target in _POWERS and self._factor(x):
            x = self._function(x)  # of a scaled vector, as norms take it
        if isinstance(x, Vector):
            x = self._whole(x, str(target))
            if x.index is None:
                raise self._fail(f"operation {target} of rotated elements")
            of, inner = x, _identity
        else:
            of, inner = x.of, x.function
        return Pointwise(of, lambda t: target(inner(t), *args[1:], **options), self.module)

    def _cat(self, args: tuple[Any, ...]) -> Vector:
        parts = [self._vector(part, "concatenation") for part in args[0]]
        if any(p.value != parts[0].value for p in parts):
            raise self._fail("concatenation of different vectors")
        dim = args[1] if len(args) > 1 else 0
        terms = []
        for number in range(max(len(p.terms) for p in parts)):
            indices, factors = [], []
            for p in parts:
                index, factor = p.terms[min(number, len(p.terms) - 1)]
                missing = number >= len(p.terms)  # it has no such term: times 0
                indices.append(index)
                one = torch.ones(index.shape) if factor is None else factor
                factors.append((torch.zeros(index.shape) if missing else one).expand(index.shape))
            terms.append((torch.cat(indices, dim), torch.cat(factors, dim)))
        plain = all(factor is None for p in parts for _, factor in p.terms)
        return Vector(parts[0].value, ((terms[0][0], None),) if plain else tuple(terms))

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
                return self._pointwise(aten.mul.Tensor, (x, float(scalar)), {})
        for x, other in ((a, b), (b, a)):
            if isinstance(other, InverseRoot):
                of = other.of
                vector = self._whole(x, "a norm")
                if vector.value != of.of.value or not _same_index(vector, of.of):
                    raise self._fail("a norm of one vector by another")
                return Normal(of)
            if isinstance(x, Parameter) and isinstance(other, Normal):
                return self._norm(other.of.of, x, None, other.of.epsilon, center=False)
        return self._both(a, b, operator.mul, Multiply)

    def _div(self, x: Any, by: Any) -> Any:
        if isinstance(x, Vector | Pointwise) and isinstance(by, int | float):
            return self._pointwise(aten.div.Tensor, (x, float(by)), {})
        raise self._fail("a division by something that is no number")

    def _addition(self, a: Any, b: Any, *, alpha: float = 1) -> Any:
        if alpha != 1:
            raise self._fail("addition with alpha")
        for x, scalar in ((a, b), (b, a)):
            if isinstance(scalar, int | float):
                if isinstance(x, MeanSquare):
                    return replace(x, epsilon=x.epsilon + scalar)
                if isinstance(x, Parameter):
                    return replace(x, offset=x.offset + scalar)
                return self._pointwise(aten.add.Tensor, (x, scalar), {})
        turned = isinstance(a, Vector) and isinstance(b, Vector) and a.value == b.value
        if turned and all(x.terms[0][1] is not None for x in (a, b)):
            return Vector(a.value, (*a.terms, *b.terms))
        return self._both(a, b, operator.add, Add)

    def _both(self, a: Any, b: Any, function: Callable[[Any, Any], Any], kind: Any) -> Any:
        """An elementwise operation of two vectors, or a function of one."""
        x, y = (p.of if isinstance(p, Pointwise) else p for p in (a, b))
        one = isinstance(x, Vector) and isinstance(y, Vector) and x.value == y.value
        if one and (isinstance(a, Pointwise) or isinstance(b, Pointwise)):
            f, g = (p.function if isinstance(p, Pointwise) else _identity for p in (a, b))
            return Pointwise(x, lambda t: function(f(t), g(t)), self.module)
        pair = [self._whole(part, kind.__name__) for part in (a, b)]
        if not _same_index(*pair):
            raise self._fail(f"{kind.__name__} of vectors in different orders")
        first, second = sorted(pair, key=lambda v: v.value)
        width = self.widths[first.value]
        return self._add(kind(self.module, width, first.value, second.value), first.index)

    # Norms.

    def _mean(self, x: Any, dims: list[int], keep: bool = False, **_: Any) -> MeanSquare:
        square = isinstance(x, Pointwise) and torch.allclose(x.function(POINTS), POINTS**2)
        if not square or list(dims) not in ([-1], [x.of.index.dim() - 1]) or not keep:
            raise self._fail("a mean that is not of squares over the last axis")
        return MeanSquare(x.of, 0.0)

    def _rsqrt(self, x: Any) -> InverseRoot:
        if not isinstance(x, MeanSquare):
            raise self._fail("an inverse root that is not of a mean square")
        return InverseRoot(x)

    def _layer_norm(
        self, x: Any, shape: list[int], weight: Any = None, bias: Any = None,
        epsilon: float = 1e-5, *_: Any,
    ) -> Vector:  # fmt: skip
        vector = self._whole(x, "a norm")
        if vector.index is None or list(shape) != [vector.index.shape[-1]]:
            raise self._fail("a LayerNorm over more than the last axis")
        return self._norm(vector, weight, bias, epsilon, center=True)

    def _norm(
        self, x: Vector, weight: Any, bias: Any, epsilon: float, *, center: bool
    ) -> Vector:  # fmt: skip
        """A norm over the last axis of ``x``, which is cut into parts of that size."""
        index, width = x.index, self.widths[x.value]
        if not all(isinstance(p, Parameter | None) for p in (weight, bias)) or index is None:
            raise self._fail("a norm by something that is no weight")
        size = index.shape[-1]
        rows = index.reshape(-1, size)
        if width % size or not torch.equal(rows, rows[:, :1] + torch.arange(size)):
            raise self._fail("a norm of elements that do not lie side by side")
        names = [None if p is None else p.name for p in (weight, bias)]
        if any(n is not None and tuple(self.shapes[n]) != (size,) for n in names):
            raise self._fail("a norm whose weights are not of its width")
        offset = 0.0 if weight is None else weight.offset
        op = Norm(
            self.module, width, x.value, names[0], names[1], epsilon, center, width // size, offset
        )
        return self._add(op, index)

    # Tables and matrices.

    def _embedding(self, weight: Any, index: Any, *_: Any) -> Vector:
        if not isinstance(weight, Parameter):
            raise self._fail("an embedding that is no weight")
        rows, width = self.shapes[weight.name]
        if isinstance(index, Tokens):
            return self._add(Embedding(self.module, width, weight.name, "token", rows))
        if isinstance(index, Tensor) and torch.equal(index.reshape(-1), torch.arange(TOKENS)):
            return self._add(Embedding(self.module, width, weight.name, "position", rows))
        raise self._fail("an embedding of neither tokens nor positions")

    def _linear(self, x: Any, weight: Any, bias: Any = None) -> Vector:
        return self._matrix(x, weight, bias, turned=False)

    def _addmm(self, bias: Any, x: Any, weight: Any, **options: Any) -> Vector:
        if options:
            raise self._fail("a scaled addmm")
        return self._matrix(x, weight, bias, turned=True)

    def _matrix(self, x: Any, weight: Any, bias: Any, *, turned: bool) -> Vector:
        if not isinstance(weight, Parameter) or not isinstance(bias, Parameter | None):
            raise self._fail("a product with something that is no weight")
        value = self._ordered(x, "a product")
        width = self.shapes[weight.name][1 if turned else 0]
        part = (weight.name, None if bias is None else bias.name, width)
        return self._add(Linear(self.module, width, value, (part,), turned))

    def _split(self, x: Any, size: Any, dim: int = 0) -> list[Vector]:
        vector = self._vector(x, "a split")
        pieces = [torch.split(i, size, dim) for i, _ in vector.terms]
        if any(factor is not None for _, factor in vector.terms):
            raise self._fail("a split of rotated elements")
        return [replace(vector, terms=((piece, None),)) for piece in pieces[0]]

    def _chunk(self, x: Any, chunks: int, dim: int = 0) -> list[Vector]:
        vector = self._vector(x, "a split")
        return self._split(vector, -(-vector.terms[0][0].shape[dim] // chunks), dim)

    def _attention(
        self, q: Any, k: Any, v: Any, mask: Any, scale: float, window: int | None = None,
        cap: float | None = None,
    ) -> Vector:  # fmt: skip
        q, k, v = (self._whole(x, "attention") for x in (q, k, v))
        heads, tokens, width = q.terms[0][0].shape[1:]
        apart = torch.arange(tokens)[:, None] - torch.arange(tokens)
        wanted = (apart >= 0) & (apart < (window or tokens))
        seen = mask if not isinstance(mask, Tensor) or mask.dtype == torch.bool else mask == 0
        if not isinstance(seen, Tensor) or not torch.equal(
            seen.broadcast_to(1, 1, tokens, tokens)[0, 0], wanted
        ):
            raise self._fail("attention that is not causal")
        try:
            groups = {heads_of(x, self.widths[x.value]) for x in (k, v)}
            turned = {rotary_of(x, width, self.frequencies) for x in (q, k)}
            if heads_of(q, self.widths[q.value]) != heads or len(groups) != 1 or len(v.terms) != 1:
                raise Unknown("attention of vectors that are no heads")
            if len(turned) != 1:
                raise Unknown("attention whose queries and keys turn differently")
        except Unknown as error:
            raise self._fail(str(error)) from error
        ((rotary, size),) = turned
        op = Attention(
            self.module, heads * width, q.value, k.value, v.value, heads, groups.pop(), rotary,
            scale * size**2, window, cap,
        )  # fmt: skip
        made = self._add(op)
        return made.moved(lambda t: t.reshape(1, tokens, heads, width))


def _context(config: Any) -> int:
    """Positions of a text that a model with its rotary positions as they are can take."""
    rope: Any = getattr(config, "rope_parameters", None) or {}
    kinds = rope.values() if any(isinstance(r, dict) for r in rope.values()) else [rope]
    limits = [config.max_position_embeddings]
    for kind in kinds:
        if kind and kind.get("rope_type") == "longrope":  # beyond, all positions turn differently
            limits.append(kind.get("original_max_position_embeddings") or limits[0])
    return int(min(limits))


def _identity(t: Tensor) -> Tensor:
    return t


def _same_index(a: Vector, b: Vector) -> bool:
    return a.index is not None and b.index is not None and torch.equal(a.index, b.index)


def _on_cpu(options: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments without a device: weights may be on the meta device, constants are not."""
    return {**options, "device": torch.device("cpu")} if "device" in options else options


_SAME = {
    aten.to,
    aten._to_copy,
    aten.type_as,
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
    aten.select,
    aten.flatten,
}
_POWERS = {aten.pow.Tensor_Scalar, aten.square.default}
_POINTWISE = {aten.pow, aten.tanh, aten.sigmoid, aten.silu, aten.gelu, aten.relu, aten.square}
_HANDLERS: dict[Any, Callable[..., Any]] = {
    aten.neg: _Walk._neg,
    aten.mul: _Walk._mul,
    aten.div: _Walk._div,
    aten.add: _Walk._addition,
    aten.mean: _Walk._mean,
    aten.rsqrt: _Walk._rsqrt,
    aten.embedding: _Walk._embedding,
    aten.layer_norm: _Walk._layer_norm,
    aten.linear: _Walk._linear,
    aten.addmm: _Walk._addmm,
    aten.split: _Walk._split,
    aten.split_with_sizes: _Walk._split,
    aten.chunk: _Walk._chunk,
    torch.ops.rf8.attention: _Walk._attention,
}

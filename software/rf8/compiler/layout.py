"""Layout: a model's tensors in external memory, as programs read them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from golden.config import RESULT_BITS, RESULT_FRAC, AccelConfig
from golden.isa import vector_words
from golden.layers import TURN_BITS, Block, rotary_steps
from golden.stream import pack_tiles
from rf8.checkpoint.fixed_point import fixed_point, norm_weight, resolution_loss
from rf8.checkpoint.model import Model, RF8Tensor
from rf8.compiler.arrange import Order, arrange, places_of
from rf8.compiler.memory import Memory, pages
from rf8.compiler.tensors import Cache, Heads, Stream, padded_width
from rf8.errors import DataError
from rf8.graph.ir import Attention, Embedding, Graph, Linear, Norm, Rotary, Take
from rf8.program.image import Buffer, Region
from rf8.progress import Progress

NOTED_LOSS = 1e-3
"""Share of an embedding's energy whose loss is worth a note: that of rounding to RF8 itself."""


class Layout:
    """Where everything of a model lies in external memory.

    Parameters
    ----------
    model: in RF8
    graph: its operations, optimised
    config: the accelerator
    context: the most positions of a sequence
    progress: is told each operation whose weights are laid out

    Attributes
    ----------
    weights: address and bytes of all that is only read
    logits: where programs leave them
    regions: all that programs write
    users: for each vector, the operations that take it
    heads, caches: of each attention, its shape and where its keys and values lie
    orders: of each vector whose elements do not lie one after the other, where they lie
    norms: of each norm, its weight and the addresses of weight and bias
    streams: of each linear layer and embedding, by name
    angles: of each kind of rotary positions, their address
    offsets: of each part of a vector that is split, the element at which it begins
    notes: what a user should know of the model on this machine

    Raises
    ------
    DataError
        Where a dot product is longer than the machine's longest, or a value does not fit.
    """

    def __init__(
        self, model: Model, graph: Graph, config: AccelConfig, context: int, progress: Progress
    ) -> None:
        self.model, self.graph, self.config = model, graph, config
        self.context, self.progress = context, progress
        self.memory = Memory()
        self.users = graph.users()
        self.heads = {index: self._heads(op) for index, op in graph.attentions()}
        self.orders = arrange(model.name, graph, self.heads, config)
        self.offsets: dict[int, int] = {}
        self.streams: dict[str, Stream] = {}
        self.norms: dict[int, tuple[Block, tuple[int, int | None]]] = {}
        self.caches: dict[int, Cache] = {}
        self.angles: dict[tuple[Rotary, int], int] = {}
        self.notes: list[str] = []

        self._check_sizes()
        vocab = -(-model.vocab // config.rows) * config.rows
        size = pages(vocab * RESULT_BITS // 8)
        self.logits = Buffer(self.memory.reserve(config.cols * size), size)
        self.regions = [Region("logits", self.logits.address, config.cols * size)]
        self._put_caches(self.regions)
        self._put_constants()
        self.weights = self.memory.section()

    def _heads(self, op: Attention) -> Heads:
        width = op.width // op.heads
        padded = padded_width(width, self.config)
        return Heads(op.heads, op.kv_heads, width, padded, self.context)

    def _check_sizes(self) -> None:
        model, config = self.model, self.config
        for _, op in self.graph.attentions():
            if not 1 / 256 <= op.scale <= 1:
                raise DataError(
                    f"{model.name}: {op.module}: scores are multiplied by {op.scale:g}, must be "
                    "1/256 to 1"
                )
        found = [self.graph.ops[op.x].width for op in self.graph.ops if isinstance(op, Linear)]
        found += [self.context, *(2 * heads.padded for heads in self.heads.values())]
        found += [heads.queries * heads.stride(config) for heads in self.heads.values()]
        if max(found) > config.max_k:
            raise DataError(
                f"{model.name} has dot products of {max(found)} elements, config {config.name!r} "
                f"does {config.max_k} at most: use a config with a larger max_k, or a shorter "
                "context"
            )

    def _put_caches(self, regions: list[Region]) -> None:
        config = self.config
        for layer, (index, heads) in enumerate(self.heads.items()):
            cache = Cache([], [], [])
            first = self.memory.end
            for _ in range(heads.groups):
                tiles = -(-heads.context // config.rows)
                size = tiles * (1 + 2 * heads.padded) * config.rows
                cache.keys.append(self.memory.reserve(size))
                size = (1 + heads.context) * config.rows
                count = heads.tiles(config)
                cache.values.append([self.memory.reserve(size) for _ in range(count)])
                size = vector_words(heads.context, config) * config.bus_bytes
                cache.biases.append(self.memory.reserve(size))
            name = f"layer {layer}, keys and values"
            regions.append(Region(name, first, self.memory.end - first))
            self.caches[index] = cache

    def _put_constants(self) -> None:
        """Everything that programs only read: matrices, norms, angles."""
        ops = self.graph.ops
        for index, op in enumerate(ops):
            self.progress(op.module, index, len(ops))
            match op:
                case Linear():
                    self._put_linear(index, op)
                case Norm():
                    self._put_norm(index, op)
                case Attention(rotary=Rotary() as rotary):
                    key = rotary, self.heads[index].width
                    if key not in self.angles:
                        self.angles[key] = self._put_angles(*key)
        for op in ops:  # after the head's: they may be the same
            if isinstance(op, Embedding):
                if op.weight not in self.streams:
                    self.streams[op.weight] = self._put_matrix([(op.weight, None)])
                self._check_resolution(op)

    def _check_resolution(self, op: Embedding) -> None:
        embedding = self.model.tensors[op.weight]
        assert isinstance(embedding, RF8Tensor)
        share = resolution_loss(embedding, op.drop)
        if share > NOTED_LOSS:
            self.notes.append(
                f"{op.weight} is small beside the machine's resolution of 2^-{RESULT_FRAC}: "
                f"rounding to it takes {share:.2%} of its energy, and accuracy with it"
            )

    def _put_linear(self, index: int, op: Linear) -> None:
        takes = [i for i in self.users[index] if isinstance(self.graph.ops[i], Take)]
        rows = self.orders.get(index)
        if takes and len(takes) == len(self.users[index]):
            rows = self._taken_rows(takes)
        columns = self.orders.get(op.x)
        parts = [(weight, bias) for weight, bias, _ in op.parts]
        self.streams[op.module] = stream = self._put_matrix(parts, rows, columns, op.drop)
        plain = rows is None and columns is None and len(parts) == 1 and not op.drop
        if plain and not stream.bias:
            self.streams[parts[0][0]] = stream  # an embedding may be the same matrix

    def _taken_rows(self, takes: list[int]) -> Order:
        """Rows of a matrix whose results are taken apart, -1 for one of zeros: each part begins at
        a word and has the order that its users want. Notes where the parts begin."""
        found: list[Order] = []
        place = 0
        for index in takes:
            op = self.graph.ops[index]
            assert isinstance(op, Take)
            elements = np.concatenate([np.arange(s, s + op.length) for s in op.starts])
            order = places_of(self.orders.get(index), op.width, self.config)
            self.offsets[index] = place
            found.append(np.where(order < 0, -1, elements[order]))
            place += len(order)
        return np.concatenate(found)

    def _put_matrix(
        self,
        parts: list[tuple[str, str | None]],
        rows: NDArray[np.int64] | None = None,
        columns: NDArray[np.int64] | None = None,
        drop: int = 0,
    ) -> Stream:
        """A stream of matrices and biases on top of each other, times ``2**-drop``.

        ``rows``, ``columns``: which row or column comes where, -1 for one of zeros.
        """
        model, config = self.model, self.config
        tensors = [model.tensors[weight] for weight, _ in parts]
        matrices = [tensor for tensor in tensors if isinstance(tensor, RF8Tensor)]
        assert len(matrices) == len(tensors)
        codes = np.concatenate([matrix.codes for matrix in matrices])
        exponents = _dropped([matrix.bias for matrix in matrices], drop, model.name, parts[0][0])
        bias: NDArray[np.int64] | None = None
        if any(name is not None for _, name in parts):
            pieces = []
            for (_, name), matrix in zip(parts, matrices, strict=True):
                none = np.zeros(len(matrix.codes), np.int64)
                pieces.append(
                    none if name is None else fixed_point(model, name, RESULT_FRAC - drop)
                )
            bias = np.concatenate(pieces)
        if rows is not None:
            empty = rows < 0
            codes, exponents = codes[rows], exponents[rows]
            codes[empty], exponents[empty] = 0, 0
            bias = None if bias is None else np.where(empty, 0, bias[rows])
        if columns is not None:
            codes = codes[:, columns]
            codes[:, columns < 0] = 0
        address = self.memory.put(pack_tiles(codes, exponents, bias, config))
        tiles = -(-len(codes) // config.rows)
        return Stream(address, codes.shape[1], tiles, bias is not None, tiles * config.rows)

    def _put_norm(self, index: int, op: Norm) -> None:
        gamma = norm_weight(self.model, op)
        beta = None
        if op.bias is not None:
            beta = fixed_point(self.model, op.bias, RESULT_FRAC - op.drop)
        order = self.orders.get(index)
        if order is not None:
            size = len(order) // op.parts
            order = order[:size]
        places = [
            None if values is None else self._put_elements(_in_order(values, order))
            for values in (gamma.mantissa, beta)
        ]
        assert places[0] is not None
        self.norms[index] = gamma, (places[0], places[1])

    def _put_elements(self, values: NDArray[np.int64]) -> int:
        words = vector_words(len(values), self.config)
        elements = np.zeros(words * self.config.results_per_word, "<i4")
        elements[: len(values)] = values
        return self.memory.put(elements)

    def _put_angles(self, rotary: Rotary, width: int) -> int:
        """Steps and offsets for `rf8.compiler.attention.angles`: cosines, then sines, of which the
        first of each pair is negated by half a turn."""
        padded = padded_width(width, self.config)
        steps = np.zeros(padded, np.int64)
        turned = np.repeat(rotary_steps(rotary.steps), 2)
        steps[: len(turned)] = turned
        quarter, half = 1 << (TURN_BITS - 2), 1 << (TURN_BITS - 1)
        sines = np.where(np.arange(padded) % 2 == 0, half, 0)
        offsets = np.concatenate([np.full(padded, quarter), sines])
        return self.memory.put(np.concatenate([steps, steps, offsets]).astype(np.uint32))


def _in_order(values: NDArray[np.int64], order: Order | None) -> NDArray[np.int64]:
    return values if order is None else np.where(order < 0, 0, values[order])


def _dropped(biases: list[NDArray[np.int8]], drop: int, model: str, name: str) -> NDArray[np.int8]:
    """Row biases less ``drop``."""
    found = np.concatenate(biases).astype(np.int64) - drop
    if found.min() < -128 or found.max() > 127:
        raise DataError(
            f"{model}: {name}: a row's exponent is {int(found.min())} to {int(found.max())}, must "
            "be -128 to 127"
        )
    return found.astype(np.int8)

"""Compiler: an RF8 model to a program image for one accelerator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from golden.config import RESULT_BITS, RESULT_FRAC, AccelConfig, get_config
from golden.isa import After, Flag, Function, Opcode, encode_program, vector_words
from golden.layers import TURN_BITS, Block, block_quantize, rotary_steps
from golden.machine import pack_tiles
from rf8.architecture import GPT2Spec, LlamaSpec
from rf8.errors import DataError
from rf8.lower import Cache, Emitter, Heads, Stream, interleaved_rows, padded_width
from rf8.model import Model, RF8Tensor
from rf8.program import Buffer, Entry, Program, Region

PAGE = 4096
"""Streams and buffers begin on multiples of this: no burst is cut short at their start."""

NORM_FRAC = 24
"""Fraction bits of norm weights before they become a block of 16-bit mantissas."""

Progress = Callable[[str, int, int], None]


def fixed_point(model: Model, name: str, frac: int = RESULT_FRAC) -> NDArray[np.int64]:
    """A norm weight or a bias as int32 fixed point, rounded half to even.

    Raises
    ------
    DataError
        Where a value does not fit.
    """
    scaled = np.rint(model.float_tensor(name).astype(np.float64) * 2.0**frac)
    limit = float(1 << (RESULT_BITS - 1))
    largest = float(np.abs(scaled).max())
    if largest >= limit:
        raise DataError(
            f"{model.name}: {name} reaches {largest / 2**frac:g}, must stay below "
            f"{limit / 2**frac:g}"
        )
    return scaled.astype(np.int64)


def norm_weight(model: Model, name: str) -> Block:
    """The weight of a norm, as `golden.layers` takes it."""
    return block_quantize(fixed_point(model, f"{name}.weight", NORM_FRAC), 16, NORM_FRAC)


def head_weight(model: Model) -> str:
    """Name of the matrix that gives the logits."""
    return f"{model.spec.embeddings()[0]}.weight" if model.spec.tied else "lm_head.weight"


def check_operations(model: Model) -> None:
    """Raise DataError where the model has an operation that cannot be lowered; names both."""
    spec = model.spec
    if isinstance(spec, LlamaSpec) and spec.rotary != "default":
        raise DataError(
            f"{model.name}: model.rotary_emb: rotary positions of type {spec.rotary!r} cannot be "
            "lowered, only 'default'"
        )


def compile(
    model: Model,
    config: AccelConfig | str = "sim",
    *,
    context: int | None = None,
    progress: Progress = lambda *_: None,
) -> Program:
    """Compile an RF8 model for the accelerator ``config``.

    ``context``: the most tokens of a sequence, for which memory and scratchpad are laid out; the
    model's own by default.

    Raises
    ------
    DataError
        Where the model is not quantised, was quantised for a wider span than the machine has, does
        not fit it, or has an operation that cannot be lowered.
    ValueError
        Where there is no such config.
    """
    config = get_config(config) if isinstance(config, str) else config
    if model.span is None:
        raise DataError(f"{model.name} is a float model: quantise it first (`rf8 quantize`)")
    if model.span > config.span:
        raise DataError(
            f"{model.name} was quantised for span {model.span}, config {config.name!r} has span "
            f"{config.span}: quantise it again with --span {config.span}"
        )
    if context is not None and not 1 <= context <= model.spec.context:
        raise DataError(
            f"{model.name}: the context is {context}, must be 1 to {model.spec.context}"
        )
    if config.rows != config.bus_bytes:
        raise DataError(
            f"config {config.name!r}: whole models need a bus of `rows` bytes, {config.rows}; this "
            f"one has {config.bus_bytes}"
        )
    check_operations(model)
    return _Build(model, config, context or model.spec.context, progress).program()


@dataclass
class _Memory:
    """Lays out external memory; addresses ascend."""

    end: int = PAGE
    parts: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)

    def reserve(self, size: int) -> int:
        """Address of ``size`` bytes that begin a page and are zero at the start."""
        address, self.end = self.end, pages(self.end + size)
        return address

    def put(self, data: NDArray[np.generic]) -> int:
        """Address of a copy of ``data``."""
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        address = self.reserve(flat.size)
        self.parts.append((address, flat))
        return address

    def section(self) -> tuple[int, NDArray[np.uint8]]:
        """All that was put, as one piece; nothing may have been reserved between."""
        first = self.parts[0][0]
        last, data = self.parts[-1]
        whole = np.zeros(last + data.size - first, np.uint8)
        for address, part in self.parts:
            whole[address - first : address - first + part.size] = part
        self.parts.clear()
        return first, whole


class _Build:
    """One compilation."""

    def __init__(self, model: Model, config: AccelConfig, context: int, progress: Progress) -> None:
        spec = model.spec
        self.model, self.config, self.context, self.progress = model, config, context, progress
        self.memory = _Memory()
        padded = padded_width(spec.head_width, config)
        self.heads = Heads(spec.heads, spec.kv_heads, spec.head_width, padded, context)
        self.streams: dict[str, Stream] = {}
        self.norms: dict[str, tuple[Block, tuple[int, int | None]]] = {}
        self.caches: list[Cache] = []
        self.steps = 0

    def program(self) -> Program:
        """Lay out, lower, encode."""
        model, config, memory = self.model, self.config, self.memory
        spec = model.spec
        self._check_sizes()
        vocab = -(-spec.vocab // config.rows) * config.rows
        size = pages(vocab * RESULT_BITS // 8)
        logits = Buffer(memory.reserve(config.cols * size), size)
        regions = [Region("logits", logits.address, config.cols * size)]
        self._caches(regions)
        self._constants()
        weights = memory.section()

        entries, text = [], b""
        for columns in sorted({1, config.cols}):
            for head in (True, False):
                emitter = Emitter(config, columns, model.name)
                self._lower(emitter, logits if head else None)
                entries.append(Entry(columns, head, memory.end + len(text), emitter.labels))
                text += encode_program(emitter.instructions, config)
        start = memory.reserve(len(text))
        if memory.end >> config.addr_bits:
            raise DataError(
                f"{model.name} needs {memory.end} bytes of memory, config {config.name!r} "
                f"addresses {1 << config.addr_bits}: use a shorter context"
            )
        eos = model.config.get("eos_token_id")
        return Program(
            config=config,
            spec=spec,
            model=model.name,
            context=self.context,
            memory_bytes=memory.end,
            sections={"weights": weights, "program": (start, np.frombuffer(text, np.uint8))},
            entries=entries,
            logits=logits,
            regions=regions,
            eos=eos if isinstance(eos, int) and 0 <= eos < spec.vocab else None,
            files=dict(model.files),
        )

    def _check_sizes(self) -> None:
        model, config, spec = self.model, self.config, self.model.spec
        longest = max(
            spec.width,
            spec.inner,
            self.context,
            2 * self.heads.padded,
            self.heads.queries * self.heads.stride(config),
        )
        if longest > config.max_k:
            raise DataError(
                f"{model.name} has dot products of {longest} elements, config {config.name!r} does "
                f"{config.max_k} at most: use a config with a larger max_k, or a shorter context"
            )

    # Memory.

    def _caches(self, regions: list[Region]) -> None:
        config, heads = self.config, self.heads
        for layer in range(self.model.spec.layers):
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
            regions.append(
                Region(f"layer {layer}, keys and values", first, self.memory.end - first)
            )
            self.caches.append(cache)

    def _matrix(self, name: str) -> RF8Tensor:
        tensor = self.model.tensors[name]
        assert isinstance(tensor, RF8Tensor)
        return tensor

    def _put_matrix(
        self,
        name: str,
        weights: list[str],
        rows: NDArray[np.int64] | None = None,
        columns: NDArray[np.int64] | None = None,
    ) -> None:
        """A stream of one or more matrices on top of each other.

        ``rows``, ``columns``: which row or column comes where, -1 for one of zeros.
        """
        model, config = self.model, self.config
        tensors = [self._matrix(weight) for weight in weights]
        codes = np.concatenate([t.codes for t in tensors])
        exponents = np.concatenate([t.bias for t in tensors])
        bias: NDArray[np.int64] | None = None
        if any(w.removesuffix("weight") + "bias" in model.tensors for w in weights):
            parts = []
            for weight, tensor in zip(weights, tensors, strict=True):
                offset = weight.removesuffix("weight") + "bias"
                found = offset in model.tensors
                none = np.zeros(len(tensor.codes), np.int64)
                parts.append(fixed_point(model, offset) if found else none)
            bias = np.concatenate(parts)
        if rows is not None:
            empty = rows < 0
            codes, exponents = codes[rows], exponents[rows]
            codes[empty], exponents[empty] = 0, 0
            if bias is not None:
                bias = np.where(empty, 0, bias[rows])
        if columns is not None:
            codes = codes[:, columns]
            codes[:, columns < 0] = 0
        address = self.memory.put(pack_tiles(codes, exponents, bias, config))
        tiles = -(-len(codes) // config.rows)
        self.streams[name] = Stream(
            address, codes.shape[1], tiles, bias is not None, tiles * config.rows
        )

    def _head_rows(self, heads: int, rotary: bool) -> NDArray[np.int64]:
        """Rows of a projection, each head padded; pairs that turn are neighbours."""
        width = self.heads.width
        order = interleaved_rows(width) if rotary else np.arange(width)
        rows = np.full((heads, self.heads.padded), -1)
        rows[:, :width] = np.arange(heads)[:, None] * width + order
        return rows.reshape(-1)

    def _context_columns(self) -> NDArray[np.int64] | None:
        """Columns of the projection that follows attention, where heads are padded to words."""
        stride, width = self.heads.stride(self.config), self.heads.width
        if stride == width:
            return None
        columns = np.full((self.heads.queries, stride), -1)
        columns[:, :width] = np.arange(self.heads.queries * width).reshape(-1, width)
        return columns.reshape(-1)

    def _qkv_rows(self, rotary: bool) -> NDArray[np.int64]:
        queries, groups, width = self.heads.queries, self.heads.groups, self.heads.width
        parts, first = [], 0
        for heads, turned in ((queries, rotary), (groups, rotary), (groups, False)):
            rows = self._head_rows(heads, turned)
            parts.append(np.where(rows < 0, -1, rows + first))
            first += heads * width
        return np.concatenate(parts)

    def _constants(self) -> None:
        """Everything that programs only read."""
        spec, model = self.model.spec, self.model
        head = head_weight(model)
        for layer in range(spec.layers):
            self.progress(f"layer {layer}", layer, spec.layers + 1)
            if isinstance(spec, GPT2Spec):
                at = f"h.{layer}."
                self._put_matrix(
                    f"{at}attn.c_attn", [f"{at}attn.c_attn.weight"], self._qkv_rows(False)
                )
                output, others = f"{at}attn.c_proj", ["mlp.c_fc", "mlp.c_proj"]
            else:
                at = f"layers.{layer}."
                parts = [f"{at}self_attn.{part}_proj.weight" for part in "qkv"]
                turned = not spec.interleaved
                self._put_matrix(f"{at}self_attn.qkv_proj", parts, self._qkv_rows(turned))
                output, others = f"{at}self_attn.o_proj", ["mlp.down_proj"]
                both = [f"{at}mlp.{part}_proj.weight" for part in ("gate", "up")]
                self._put_matrix(f"{at}mlp.gate_up_proj", both, self._gate_rows(spec.inner))
            self._put_matrix(output, [f"{output}.weight"], None, self._context_columns())
            for other in others:
                self._put_matrix(at + other, [f"{at}{other}.weight"])
        self.progress("head", spec.layers, spec.layers + 1)
        for name in dict.fromkeys([head, *(f"{name}.weight" for name in spec.embeddings())]):
            self._put_matrix(name, [name])
        for name in spec.norms():
            gamma = norm_weight(model, name)
            beta = None
            if f"{name}.bias" in model.tensors:
                beta = self._put_elements(fixed_point(model, f"{name}.bias"))
            self.norms[name] = gamma, (self._put_elements(gamma.mantissa), beta)
        if isinstance(spec, LlamaSpec):
            self._put_angles(spec)

    def _gate_rows(self, inner: int) -> NDArray[np.int64]:
        """Gate and up on top of each other, each from a word's start."""
        each = vector_words(inner, self.config) * self.config.results_per_word
        rows = np.full((2, each), -1)
        rows[:, :inner] = np.arange(2 * inner).reshape(2, inner)
        return rows.reshape(-1)

    def _put_elements(self, values: NDArray[np.int64]) -> int:
        words = vector_words(len(values), self.config)
        elements = np.zeros(words * self.config.results_per_word, "<i4")
        elements[: len(values)] = values
        return self.memory.put(elements)

    def _put_angles(self, spec: LlamaSpec) -> None:
        """Steps and offsets of `Emitter.angles`: cosines, then sines, the first of a pair's
        negative."""
        padded = self.heads.padded
        steps = np.zeros(padded, np.int64)
        steps[: spec.head_width] = np.repeat(rotary_steps(spec.head_width, spec.theta), 2)
        quarter, half = 1 << (TURN_BITS - 2), 1 << (TURN_BITS - 1)
        sines = np.where(np.arange(padded) % 2 == 0, half, 0)
        offsets = np.concatenate([np.full(padded, quarter), sines])
        both = np.concatenate([steps, steps, offsets]).astype(np.uint32)
        self.steps = self.memory.put(both)

    # Programs.

    def _lower(self, e: Emitter, logits: Buffer | None) -> None:
        spec = self.model.spec
        width = spec.width
        e.label("embedding")
        x = e.scratch.take(e.words(width))
        tokens = self.streams[f"{spec.embeddings()[0]}.weight"]
        e.embed(tokens, spec.vocab, Flag.TOKEN, x)
        table = 0
        if isinstance(spec, GPT2Spec):
            places = e.scratch.take(e.words(width))
            e.embed(self.streams["wpe.weight"], self.context, Flag.INDEX, places)
            e.add(x, places, width)
        else:
            table = e.angles(self.steps, self.heads.padded)
        for layer in range(spec.layers):
            if isinstance(spec, GPT2Spec):
                self._gpt2_block(e, spec, f"h.{layer}.", x, self.caches[layer])
            else:
                self._llama_block(e, spec, f"layers.{layer}.", x, self.caches[layer], table)
        if logits is not None:
            block = self._norm(e, "ln_f" if isinstance(spec, GPT2Spec) else "norm", x)
            self._head(e, block, logits)
        e.halt()

    def _norm(self, e: Emitter, name: str, x: int) -> int:
        gamma, places = self.norms[name]
        e.label(name)
        return e.norm(x, self.model.spec.width, gamma, places, self.model.spec.epsilon)

    def _attention(self, e: Emitter, at: str, qkv: int, cache: Cache, table: int | None) -> int:
        """Block of the context of queries, keys and values that follow each other at ``qkv``."""
        heads, config = self.heads, self.config
        words = e.words(heads.padded)
        q, k = qkv, qkv + heads.queries * words
        v = k + heads.groups * words
        e.label(f"{at}: keys and values")
        if table is not None:
            count = (heads.queries + heads.groups) * heads.padded
            e.rotate(q, count, table, heads.padded)
        e.append_keys(k, heads, cache)
        e.append_values(v, heads, cache)
        e.emit(Opcode.FENCE)
        e.label(f"{at}: attention")
        context = e.attend(q, heads, cache)
        count = heads.queries * heads.stride(config)
        e.vector(Function.SHIFT, count, context, after=After.QUANTIZE, immediate=RESULT_FRAC)
        block = e.quantized(context, count)
        e.scratch.free(context)
        return block

    def _linear(self, e: Emitter, name: str, block: int) -> int:
        e.label(name)
        return e.linear(self.streams[name], block)

    def _gpt2_block(self, e: Emitter, spec: GPT2Spec, at: str, x: int, cache: Cache) -> None:
        qkv = self._linear(e, f"{at}attn.c_attn", self._norm(e, f"{at}ln_1", x))
        context = self._attention(e, f"{at}attn", qkv, cache, None)
        e.add(x, self._linear(e, f"{at}attn.c_proj", context), spec.width)
        inner = self._linear(e, f"{at}mlp.c_fc", self._norm(e, f"{at}ln_2", x))
        e.label(f"{at}mlp.act")
        active = e.activated(inner, spec.inner, spec.activation)
        e.scratch.free(inner)
        e.add(x, self._linear(e, f"{at}mlp.c_proj", active), spec.width)

    def _llama_block(
        self, e: Emitter, spec: LlamaSpec, at: str, x: int, cache: Cache, table: int
    ) -> None:
        normal = self._norm(e, f"{at}input_layernorm", x)
        qkv = self._linear(e, f"{at}self_attn.qkv_proj", normal)
        context = self._attention(e, f"{at}self_attn", qkv, cache, table)
        e.add(x, self._linear(e, f"{at}self_attn.o_proj", context), spec.width)
        normal = self._norm(e, f"{at}post_attention_layernorm", x)
        both = self._linear(e, f"{at}mlp.gate_up_proj", normal)
        e.label(f"{at}mlp.act_fn")
        each = e.words(spec.inner) * self.config.results_per_word
        active = e.gated(both, spec.inner, each, "silu")
        e.scratch.free(both)
        e.add(x, self._linear(e, f"{at}mlp.down_proj", active), spec.width)

    def _head(self, e: Emitter, block: int, logits: Buffer) -> None:
        """Logits, as many tiles at a time as the scratchpad has room for."""
        config = self.config
        stream = self.streams[head_weight(self.model)]
        e.label("lm_head")
        per_tile = config.rows // config.results_per_word
        most = max(1, e.scratch.room() // per_tile)
        result = e.scratch.take(min(most, stream.tiles) * per_tile)
        for first in range(0, stream.tiles, most):
            tiles = min(most, stream.tiles - first)
            e.matmul(stream, block, result, first, tiles)
            for column in range(e.columns):
                place = logits.address + column * logits.stride
                e.emit(
                    Opcode.STORE,
                    column=column,
                    address=place + first * per_tile * config.bus_bytes,
                    count=tiles * per_tile,
                    src=result,
                )


def pages(size: int) -> int:
    """``size`` in bytes, rounded up to whole pages."""
    return -(-size // PAGE) * PAGE

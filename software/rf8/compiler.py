"""Compiler: an RF8 model to a program image for one accelerator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from golden.config import RESULT_BITS, RESULT_FRAC, AccelConfig, get_config
from golden.isa import Flag, Instruction, Opcode, block_words, check, encode_program
from golden.layers import block_quantize, rotary_steps
from golden.machine import pack_tiles
from rf8.architecture import LlamaSpec
from rf8.errors import DataError
from rf8.model import Model, RF8Tensor
from rf8.program import Buffer, Kernel, Program

PAGE = 4096
"""Sections and buffers begin on multiples of this: no burst is cut short at their start."""

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


def linear_layers(model: Model) -> list[tuple[str, str, str | None]]:
    """The matrices of a token's way, in order: (name, weight tensor, bias tensor)."""
    spec = model.spec
    head = f"{spec.embeddings()[0]}.weight" if spec.tied else "lm_head.weight"
    biases = {name: f"{name}.bias" for name in spec.matrices() if f"{name}.bias" in model.tensors}
    layers = [(name, f"{name}.weight", biases.get(name)) for name in spec.matrices()]
    return [*layers, ("lm_head", head, None)]


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
    progress: Progress = lambda *_: None,
) -> Program:
    """Compile an RF8 model for the accelerator ``config``.

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
    check_operations(model)
    layers = linear_layers(model)
    shapes = {name: _matrix(model, weight).codes.shape for name, weight, _ in layers}
    longest = max(k for _, k in shapes.values())
    widest = max(n for n, _ in shapes.values())
    if longest > config.max_k:
        raise DataError(
            f"{model.name} has dot products of {longest} elements, config {config.name!r} does "
            f"{config.max_k} at most: use a config with a larger max_k"
        )
    if block_words(longest, config) + config.rows // config.results_per_word > config.scratch_words:
        raise DataError(
            f"{model.name}: an activation vector of {longest} elements leaves no room for results "
            f"in the scratchpad of config {config.name!r} ({config.scratch_words} words)"
        )

    # Memory: activations in and results out, then weights, then the program.
    x, y = buffers(longest, widest, config)
    address = first = y.address + config.cols * y.stride
    streams: list[NDArray[np.uint8]] = []
    code: list[tuple[Kernel, dict[int, list[Instruction]]]] = []
    for number, (name, weight, bias) in enumerate(layers):
        progress(name, number, len(layers))
        matrix = _matrix(model, weight)
        offset = None if bias is None else fixed_point(model, bias)
        chunks = []
        n, k = matrix.codes.shape
        for rows in split_outputs(n, k, config):
            part = None if offset is None else offset[rows]
            stream = pack_tiles(matrix.codes[rows], matrix.bias[rows], part, config)
            chunks.append((address, -(-len(matrix.bias[rows]) // config.rows)))
            streams.append(stream)
            address += stream.size
        kernel = Kernel(name, k, n, {}, x, y)
        widths = sorted({1, config.cols})
        code.append(
            (
                kernel,
                {c: layer_code(kernel, chunks, offset is not None, c, config) for c in widths},
            )
        )
    address = pages(address)
    weights = np.concatenate(streams)
    streams.clear()

    program, text = address, b""
    for kernel, variants in code:
        for columns, instructions in variants.items():
            kernel.programs[columns] = program + len(text)
            text += encode_program(instructions, config)
    end = pages(program + len(text))
    if end >> config.addr_bits:
        raise DataError(
            f"{model.name} needs {end} bytes of memory, config {config.name!r} addresses "
            f"{1 << config.addr_bits}"
        )
    eos = model.config.get("eos_token_id")
    return Program(
        config=config,
        spec=model.spec,
        model=model.name,
        memory_bytes=end,
        sections={
            "weights": (first, weights),
            "program": (program, np.frombuffer(text, np.uint8)),
        },
        kernels={kernel.name: kernel for kernel, _ in code},
        host=_host_arrays(model),
        eos=eos if isinstance(eos, int) and 0 <= eos < model.spec.vocab else None,
        files=dict(model.files),
    )


def pages(size: int) -> int:
    """``size`` in bytes, rounded up to whole pages."""
    return -(-size // PAGE) * PAGE


def buffers(longest: int, widest: int, config: AccelConfig) -> tuple[Buffer, Buffer]:
    """Where activations go in and results come out, below everything else in memory.

    ``longest`` and ``widest`` are the most inputs and outputs of any layer.
    """
    x_size = pages(block_words(longest, config) * config.bus_bytes)
    y_size = pages(-(-widest // config.rows) * config.rows * RESULT_BITS // 8)
    return Buffer(PAGE, x_size), Buffer(PAGE + config.cols * x_size, y_size)


def _matrix(model: Model, name: str) -> RF8Tensor:
    tensor = model.tensors[name]
    assert isinstance(tensor, RF8Tensor)
    return tensor


def split_outputs(n: int, k: int, config: AccelConfig) -> list[slice]:
    """Runs of rows whose results fit the scratchpad beside the activations."""
    words = config.scratch_words - block_words(k, config)
    step = words * config.results_per_word // config.rows * config.rows
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def layer_code(
    kernel: Kernel,
    chunks: list[tuple[int, int]],
    has_bias: bool,
    columns: int,
    config: AccelConfig,
) -> list[Instruction]:
    """The program of a layer: load activations, then compute and store chunk by chunk.

    ``chunks``: (address of the weight stream, tiles) of each part of the outputs, as
    `split_outputs` cuts them. ``columns``: tokens at once.
    """
    x_words = block_words(kernel.inputs, config)
    result = [
        Instruction(
            opcode=Opcode.LOAD,
            column=c,
            address=kernel.x.address + c * kernel.x.stride,
            count=x_words,
            dst=0,
        )
        for c in range(columns)
    ]
    target = kernel.y.address
    for stream, tiles in chunks:
        words = tiles * config.rows // config.results_per_word
        result.append(
            Instruction(
                opcode=Opcode.MATMUL,
                flags=Flag.BIAS if has_bias else 0,
                column=columns,
                shift=config.result_shift,
                address=stream,
                count=tiles,
                k=kernel.inputs,
                src=0,
                dst=x_words,
            )
        )
        for c in range(columns):
            place = target + c * kernel.y.stride
            result.append(
                Instruction(opcode=Opcode.STORE, column=c, address=place, count=words, src=x_words)
            )
        target += words * config.bus_bytes
    result.append(Instruction(opcode=Opcode.HALT))
    for instruction in result:
        check(instruction, config)
    return result


def _host_arrays(model: Model) -> dict[str, NDArray[np.generic]]:
    """What the host's integer operations need: embeddings as RF8, norms as fixed point, angles."""
    spec, arrays = model.spec, dict[str, NDArray[np.generic]]()
    for name in spec.embeddings():
        tensor = _matrix(model, f"{name}.weight")
        arrays[f"{name}.weight.codes"], arrays[f"{name}.weight.bias"] = tensor.codes, tensor.bias
    for name in spec.norms():
        gamma = block_quantize(fixed_point(model, f"{name}.weight", NORM_FRAC), 16, NORM_FRAC)
        arrays[f"{name}.gamma"] = gamma.mantissa.astype(np.int16)
        arrays[f"{name}.gamma_exponent"] = gamma.exponent.astype(np.int8)
        if f"{name}.bias" in model.tensors:
            arrays[f"{name}.beta"] = fixed_point(model, f"{name}.bias").astype(np.int32)
    if isinstance(spec, LlamaSpec):
        arrays["rotary.steps"] = rotary_steps(spec.head_width, spec.theta).astype(np.uint32)
    return arrays

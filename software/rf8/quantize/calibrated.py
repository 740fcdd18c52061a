"""Quantisation of a whole model on calibration text, one block at a time."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from golden.format_torch import decode, row_bias
from rf8.checkpoint.huggingface import to_transformers
from rf8.checkpoint.model import Float, Model, RF8Tensor
from rf8.errors import DataError
from rf8.graph.ir import Add, Embedding, Graph, Linear, Norm
from rf8.progress import Progress
from rf8.quantize.compensated import Grid, compensate, round_to_rf8, shifted_target
from rf8.quantize.fold import fold
from rf8.quantize.levels import coded_bits
from rf8.quantize.rate import Grids, Rate, RatedGrids, find_rate
from rf8.quantize.rounding import quantize_matrix
from rf8.quantize.state import LayerReport, Parts
from rf8.quantize.survey import survey

WINDOW = 1024  # tokens, or the model's context where that is shorter


@dataclass(frozen=True)
class _Block:
    """Linear layers of one of a model's repeated blocks, by their paths within it.

    ``groups``: those that share their input, in order. ``streams``: of each that writes to the
    residual stream, the norm whose input is that stream before; None: it is the block's input.
    """

    path: str
    groups: tuple[tuple[str, ...], ...]
    streams: dict[str, str | None]


def _blocks(graph: Graph, name: str) -> list[_Block]:
    """The blocks of a model; DataError where a matrix lies in none and is not the head's."""
    paths = graph.layers()
    found = [_block(graph, path) for path in paths]
    inside = {f"{b.path}.{part}" for b in found for group in b.groups for part in group}
    for index, op in enumerate(graph.ops):
        if isinstance(op, Linear) and op.module not in inside and index != graph.head:
            raise DataError(
                f"{name}: {op.module} lies in none of the blocks {paths[0]}, ...: compensated "
                "rounding does not know when to round it; round to nearest"
            )
    return found


def _block(graph: Graph, path: str) -> _Block:
    at = f"{path}."
    inner = [i for i, op in enumerate(graph.ops) if op.module.startswith(at)]
    groups: dict[int, list[str]] = {}
    for i in inner:
        op = graph.ops[i]
        if isinstance(op, Linear):
            groups.setdefault(op.x, []).append(op.module.removeprefix(at))
    norms = {
        op.x: op.module.removeprefix(at) for i in inner if isinstance(op := graph.ops[i], Norm)
    }
    users = graph.users()
    streams: dict[str, str | None] = {}
    for i in inner:
        # Of what goes on from here through a norm or a scale, nothing is known.
        if not isinstance(graph.ops[i], Linear) or len(users[i]) != 1:
            continue
        add = graph.ops[users[i][0]]
        if isinstance(add, Add):
            (before,) = {add.a, add.b} - {i}
            if before < inner[0]:
                streams[graph.ops[i].module.removeprefix(at)] = None
            elif before in norms:
                streams[graph.ops[i].module.removeprefix(at)] = norms[before]
    return _Block(path, tuple(map(tuple, groups.values())), streams)


def _others(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "hidden_states"}


class _Stop(Exception):
    """Ends a forward pass where its inputs have been seen."""


def _input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    found: Tensor = args[0] if args else kwargs["hidden_states"]
    return found


class _Walk:
    """The blocks of a transformers model, run one by one on windows of hidden states."""

    def __init__(self, module: nn.Module, paths: list[str]) -> None:
        self.base = cast(nn.Module, module.base_model)
        self.blocks = [self.base.get_submodule(path) for path in paths]
        self._kwargs: dict[int, dict[str, Any]] = {}

    def embed(self, windows: Tensor) -> list[Tensor]:
        """Hidden states [1, T, d] at the first block's input, for windows [n, T] of tokens."""
        found: list[Tensor] = []
        # Positions and masks: the same for every window.
        with self._hooks(lambda n, args, kwargs: self._kwargs.update({n: _others(kwargs)})):
            self.base(input_ids=windows[:1], use_cache=False)

        def see(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append(_input_of(args, kwargs))
            raise _Stop

        with self._hooks(see):
            for window in windows:
                with suppress(_Stop):
                    self.base(input_ids=window[None], use_cache=False)
        return found

    @contextmanager
    def _hooks(self, see: Callable[[int, tuple[Any, ...], dict[str, Any]], None]) -> Iterator[None]:
        """Within the block, ``see`` gets number and arguments of each block that is run."""

        def hook(number: int) -> Callable[..., None]:
            return lambda _, args, kwargs: see(number, args, kwargs)

        handles = [
            block.register_forward_pre_hook(hook(n), with_kwargs=True)
            for n, block in enumerate(self.blocks)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def run(self, number: int, block: nn.Module, hidden: Tensor) -> Tensor:
        """A block, or its twin, on one window."""
        out = block(hidden, **self._kwargs[number])
        result: Tensor = out[0] if isinstance(out, tuple) else out
        return result

    def see(
        self, number: int, block: nn.Module, hidden: Tensor, names: tuple[str, ...]
    ) -> dict[str, Tensor]:
        """Inputs [T, K] of the named parts of a block, which runs only as far as the last one."""
        found: dict[str, Tensor] = {}

        def hook(name: str) -> Callable[..., None]:
            def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                found[name] = _input_of(args, kwargs).flatten(0, -2)
                if len(found) == len(names):
                    raise _Stop

            return see

        handles = [
            block.get_submodule(n).register_forward_pre_hook(hook(n), with_kwargs=True)
            for n in names
        ]
        with suppress(_Stop):
            self.run(number, block, hidden)
        for handle in handles:
            handle.remove()
        return found


@torch.no_grad()
def quantize_compensated(
    model: Model,
    calibration: Tensor,
    *,
    span: int = 16,
    bits: float | None = None,
    price: float | None = None,
    state: Path | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[Model, list[LayerReport]]:
    """Quantise a float model to RF8 with error-compensated rounding, or with a rate.

    The output head comes first, on the float model's last hidden states; a tied embedding takes its
    codes. Other embeddings are rounded to nearest. Then block by block, each linear layer is
    rounded on the inputs that the model rounded so far gives it, towards the outputs of the float
    model (`rf8.quantize.compensated`). In what is written to the residual stream a token counts by
    the inverse of that stream's power after the block, as the next norm will scale it.

    With a rate, matrices are rounded to few bits, as `golden.code` codes them: grids and scales of
    columns follow `rf8.quantize.rate`, so that the result has other norms, too. Embeddings that are
    no head are read a row at a time and stay at eight bits.

    Parameters
    ----------
    model
        A float model.
    calibration
        Token ids, int64 [n], cut into windows of the context or 1,024 tokens; the rest is unused.
    span
        As for `golden.format.encode`.
    bits
        How many a weight of a linear layer shall have in the mean, about; or else
    price
        of a bit, in nats of the loss of a token. Neither: there is no rate.
    state
        A folder for what is done so far; an interrupted run with the same model, text and options
        goes on from there. Delete it once the result is saved.
    progress
        Called with the part's name, its number and how many there are.

    Raises
    ------
    DataError
        For an RF8 model, too little text, bits that cannot be had, or a state of another run.
    """
    if model.span is not None:
        raise DataError(f"{model.name} is RF8 already: compensated rounding needs the float model")
    graph, blocks = model.graph, _blocks(model.graph, model.name)
    windows = _windows(model, calibration)
    parts = Parts(state, _fingerprint(model, windows, span, bits, price))
    grids = Grids()
    if bits is not None or price is not None:
        model, grids = _rated(model, windows, span, bits, price, parts, progress)
    module = to_transformers(model)
    walk = _Walk(module, [block.path for block in blocks])
    tensors: dict[str, Float | RF8Tensor] = dict(model.tensors)
    reports: list[LayerReport] = []
    total = len(blocks) + 1

    progress("output head", 0, total)
    last = graph.ops[graph.head]
    assert isinstance(last, Linear)
    head = last.parts[0][0]
    done = parts.load("head")
    if done is None:
        done = {head: _head(walk.base, model, head, windows, span, grids)}
        parts.save("head", done)
    grids.note(_bits_of(done))
    embeddings = {op.weight for op in graph.ops if isinstance(op, Embedding)}
    for name in sorted(embeddings - {head}):
        tensors[name] = quantize_matrix(model.float_tensor(name), span=span)
        reports.append(LayerReport(name, None, None))
    tensors[head] = done[head][0]
    reports.append(done[head][1])

    exact = walk.embed(windows)
    for name in embeddings:
        coded = torch.from_numpy(tensors[name].decode())  # type: ignore[union-attr]
        walk.base.get_submodule(name.removesuffix(".weight")).weight = nn.Parameter(coded)
    rounded = walk.embed(windows)
    turned = graph.turned()
    for number, about in enumerate(blocks):
        progress(about.path, number + 1, total)
        block = walk.blocks[number]
        twin = copy.deepcopy(block)
        outputs = [walk.run(number, block, hidden) for hidden in exact]
        done = parts.load(about.path)
        if done is None:
            texts = (exact, rounded, outputs)
            done = _quantize_block(walk, number, about, twin, texts, turned, span, grids)
            parts.save(about.path, done)
        grids.note(_bits_of(done))
        for name, (tensor, report) in done.items():
            part = name.removeprefix(f"{about.path}.").removesuffix(".weight")
            _set_weight(twin, part, tensor, name in turned)
            tensors[name] = tensor
            reports.append(report)
        exact = outputs
        rounded = [walk.run(number, twin, hidden) for hidden in rounded]
    left = [n for n in model.matrices() if not isinstance(tensors[n], RF8Tensor)]
    assert not left, left
    return replace(model, tensors=tensors, span=span, method=grids.method), reports


def _rated(
    model: Model,
    windows: Tensor,
    span: int,
    bits: float | None,
    price: float | None,
    parts: Parts,
    progress: Progress,
) -> tuple[Model, Grids]:
    """The model with the scales of its columns folded in, and grids for it."""
    found = parts.survey()
    if found is None:
        found = survey(model, windows, progress)
        parts.save_survey(found)
    if price is not None:
        rate = Rate(model, found, span, price)
    else:
        assert bits is not None
        rate = find_rate(model, found, span, bits)
    return fold(model, rate.scales), RatedGrids(rate, model, bits)


def _bits_of(done: dict[str, tuple[RF8Tensor, LayerReport]]) -> dict[str, float]:
    return {n: r.bits * t.codes.size for n, (t, r) in done.items() if r.bits is not None}


def _windows(model: Model, calibration: Tensor) -> Tensor:
    window = min(WINDOW, model.context)
    count = len(calibration) // window
    if count < 1:
        raise DataError(
            f"the calibration text has {len(calibration)} tokens, a window of {model.name} has "
            f"{window}: give a longer text"
        )
    if int(calibration.max()) >= model.vocab:
        raise DataError(f"token {int(calibration.max())} is not in the vocabulary of {model.name}")
    return calibration[: count * window].view(count, window)


def _head(
    base: Any, model: Model, name: str, windows: Tensor, span: int, grids: Grids
) -> tuple[RF8Tensor, LayerReport]:
    weight = torch.from_numpy(model.float_tensor(name))
    hessian = torch.zeros(weight.shape[1], weight.shape[1])
    for window in windows:
        out = base(input_ids=window[None], use_cache=False)
        hidden = out.last_hidden_state[0]
        hessian += hidden.T @ hidden
    grid = grids.of(name)
    return _round(name, weight, hessian, hessian, hessian, None, span, grid)


def _quantize_block(
    walk: _Walk,
    number: int,
    about: _Block,
    twin: nn.Module,
    texts: tuple[list[Tensor], list[Tensor], list[Tensor]],
    turned: set[str],
    span: int,
    grids: Grids,
) -> dict[str, tuple[RF8Tensor, LayerReport]]:
    """Round the linear layers of ``twin``, group by group, towards the outputs of its block.

    ``texts``: hidden states at the input, exact and rounded, and exact ones at the output.
    """
    block = walk.blocks[number]
    done: dict[str, tuple[RF8Tensor, LayerReport]] = {}
    for group in about.groups:
        writes = group[0] in about.streams
        norm = about.streams.get(group[0])
        names = (group[0],) if norm is None else (norm, group[0])
        sums: list[Tensor] = []
        for z_hidden, x_hidden, output in zip(*texts, strict=True):
            z_seen = walk.see(number, block, z_hidden, names)
            x_seen = walk.see(number, twin, x_hidden, names)
            z, x = z_seen[group[0]], x_seen[group[0]]
            lack = None
            if writes:
                z_stream = z_hidden.flatten(0, -2) if norm is None else z_seen[norm]
                x_stream = x_hidden.flatten(0, -2) if norm is None else x_seen[norm]
                share = output.flatten(0, -2).square().mean(1, keepdim=True).rsqrt()
                z, x, lack = z * share, x * share, (z_stream - x_stream) * share
            new = [x.T @ x, z.T @ x, z.T @ z] + ([] if lack is None else [lack.T @ x])
            sums = new if not sums else [a.add_(b) for a, b in zip(sums, new, strict=True)]
        hessian, cross, power = sums[:3]
        for part in group:
            name = f"{about.path}.{part}.weight"
            weight = cast(Tensor, block.get_submodule(part).weight)
            weight = weight.T if name in turned else weight
            target = shifted_target(weight, hessian, cross, sums[3] if writes else None)
            grid = grids.of(name)
            done[name] = _round(name, weight, hessian, cross, power, target, span, grid)
            _set_weight(twin, part, done[name][0], name in turned)
    return done


def _round(
    name: str,
    weight: Tensor,
    hessian: Tensor,
    cross: Tensor,
    power: Tensor,
    target: Tensor | None,
    span: int,
    grid: Grid | None,
) -> tuple[RF8Tensor, LayerReport]:
    try:
        codes, bias = compensate(weight, hessian, target=target, span=span, grid=grid)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    nearest = round_to_rf8(weight.contiguous(), row_bias(weight)[:, None].int(), span)
    signal = _product(weight, power, weight)

    def relative(values: Tensor) -> float:
        mixed = _product(weight, cross, values)
        return (signal - 2 * mixed + _product(values, hessian, values)) / signal

    tensor = RF8Tensor(codes.numpy(), bias.numpy())
    report = LayerReport(name, relative(decode(codes, bias[:, None].int())), relative(nearest))
    if grid is not None:
        coded = coded_bits(tensor, span)
        report = replace(report, bits=coded.bits, entropy=coded.entropy)
    return tensor, report


def _product(left: Tensor, middle: Tensor, right: Tensor) -> float:
    """``tr(left middle right^T)``, summed in float64 over bounded blocks of rows."""
    total = 0.0
    for first in range(0, len(left), 4096):
        rows = slice(first, first + 4096)
        total += float(((left[rows].double() @ middle.double()) * right[rows]).sum())
    return total


def _set_weight(block: nn.Module, part: str, tensor: RF8Tensor, turned: bool) -> None:
    values = torch.from_numpy(tensor.decode())
    kept = nn.Parameter(values.T if turned else values, requires_grad=False)
    block.get_submodule(part).weight = kept


def _fingerprint(
    model: Model, windows: Tensor, span: int, bits: float | None, price: float | None
) -> dict[str, Any]:
    """What a run must share with another to go on from its state."""
    text = zlib.crc32(windows.numpy().tobytes())
    asked = {"span": span, "bits": bits, "price": price}
    return {"weights": model.checksum(), "text": text, **asked, "version": 2}

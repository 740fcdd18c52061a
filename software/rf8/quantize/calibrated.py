"""Quantisation of a whole model on calibration text, one block at a time."""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from golden.format_torch import decode, row_bias
from rf8.checkpoint.architecture import is_conv1d, is_matrix
from rf8.checkpoint.huggingface import to_transformers
from rf8.checkpoint.model import Float, Model, RF8Tensor
from rf8.errors import DataError
from rf8.files import replaced_file
from rf8.progress import Progress
from rf8.quantize.compensated import compensate, round_to_rf8, shifted_target
from rf8.quantize.rounding import quantize_matrix

WINDOW = 1024  # tokens, or the model's context where that is shorter


@dataclass(frozen=True)
class _Layout:
    """Where an architecture keeps its parts. Groups of linear layers share their input."""

    blocks: str
    embeddings: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    writers: tuple[str, ...]  # the linear layers that add to the residual stream
    second_norm: str  # its input is the residual stream between the two writers


_LAYOUTS = {
    "gpt2": _Layout(
        "h",
        ("wte", "wpe"),
        (("attn.c_attn",), ("attn.c_proj",), ("mlp.c_fc",), ("mlp.c_proj",)),
        ("attn.c_proj", "mlp.c_proj"),
        "ln_2",
    ),
    "llama": _Layout(
        "layers",
        ("embed_tokens",),
        (
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            ("self_attn.o_proj",),
            ("mlp.gate_proj", "mlp.up_proj"),
            ("mlp.down_proj",),
        ),
        ("self_attn.o_proj", "mlp.down_proj"),
        "post_attention_layernorm",
    ),
}


@dataclass(frozen=True)
class LayerReport:
    """What rounding did to one matrix.

    ``output_error``: ``sum |W z - Q x|^2 / sum |W z|^2`` over the calibration tokens, z and x the
    inputs in the float and the rounded model. ``nearest_error``: the same had this one matrix been
    rounded to nearest. None for embeddings, whose input is no vector.
    """

    name: str
    output_error: float | None
    nearest_error: float | None


class _Stop(Exception):
    """Ends a forward pass where its inputs have been seen."""


def _input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    found: Tensor = args[0] if args else kwargs["hidden_states"]
    return found


class _Blocks:
    """The blocks of a transformers model, run one by one on windows of hidden states."""

    def __init__(self, module: nn.Module, layout: _Layout) -> None:
        self._base: nn.Module = module.base_model  # type: ignore[assignment]
        self.layout = layout
        self.blocks: nn.ModuleList = self._base.get_submodule(layout.blocks)  # type: ignore[assignment]
        self._kwargs: dict[str, Any] = {}

    def embed(self, windows: Tensor) -> list[Tensor]:
        """Hidden states [1, T, d] at the first block's input, for windows [n, T] of tokens."""
        found: list[Tensor] = []

        def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append(_input_of(args, kwargs))
            # Positions and masks: the same for every window and block.
            self._kwargs = {k: v for k, v in kwargs.items() if k != "hidden_states"}
            raise _Stop

        handle = self.blocks[0].register_forward_pre_hook(see, with_kwargs=True)
        for window in windows:
            with suppress(_Stop):
                self._base(input_ids=window[None], use_cache=False)
        handle.remove()
        return found

    def run(self, block: nn.Module, hidden: Tensor) -> Tensor:
        """One block on one window."""
        out = block(hidden, **self._kwargs)
        result: Tensor = out[0] if isinstance(out, tuple) else out
        return result

    def see(self, block: nn.Module, hidden: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
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
            self.run(block, hidden)
        for handle in handles:
            handle.remove()
        return found


@torch.no_grad()
def quantize_compensated(
    model: Model,
    calibration: Tensor,
    *,
    span: int = 16,
    state: Path | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[Model, list[LayerReport]]:
    """Quantise a float model to RF8 with error-compensated rounding.

    The output head comes first, on the float model's last hidden states; a tied embedding takes its
    codes. Other embeddings are rounded to nearest. Then block by block, each linear layer is
    rounded on the inputs that the model rounded so far gives it, towards the outputs of the float
    model (`rf8.quantize.compensated`). In what is written to the residual stream a token counts by
    the inverse of that stream's power after the block, as the next norm will scale it.

    Parameters
    ----------
    model
        A float model, GPT-2 or Llama.
    calibration
        Token ids, int64 [n], cut into windows of the context or 1,024 tokens; the rest is unused.
    span
        As for `golden.format.encode`.
    state
        A folder for what is done so far; an interrupted run with the same model, text and options
        goes on from there. Delete it once the result is saved.
    progress
        Called with the part's name, its number and how many there are.

    Raises
    ------
    DataError
        For an RF8 model, too little text, or a state of another run.
    """
    kind = str(model.config.get("model_type"))
    if model.span is not None:
        raise DataError(f"{model.name} is RF8 already: compensated rounding needs the float model")
    windows = _windows(model, calibration)
    parts = _Parts(state, _fingerprint(model, windows, span))
    module = to_transformers(model)
    layout = _LAYOUTS[kind]
    walk = _Blocks(module, layout)
    tensors: dict[str, Float | RF8Tensor] = dict(model.tensors)
    reports: list[LayerReport] = []
    total = len(walk.blocks) + 1

    progress("output head", 0, total)
    tied = model.spec.tied
    head = f"{layout.embeddings[0]}.weight" if tied else "lm_head.weight"
    done = parts.load("head")
    if done is None:
        done = {head: _head(module, model, head, windows, span)}
        parts.save("head", done)
    for name in (f"{e}.weight" for e in layout.embeddings):
        if name != head:
            tensors[name] = quantize_matrix(model.float_tensor(name), span=span)
            reports.append(LayerReport(name, None, None))
    tensors[head] = done[head][0]
    reports.append(done[head][1])

    exact = walk.embed(windows)
    for e in layout.embeddings:
        coded = torch.from_numpy(tensors[f"{e}.weight"].decode())  # type: ignore[union-attr]
        module.base_model.get_submodule(e).weight = nn.Parameter(coded)  # type: ignore[union-attr]
    rounded = walk.embed(windows)
    for number, block in enumerate(walk.blocks):
        at = f"{layout.blocks}.{number}."
        progress(at.rstrip("."), number + 1, total)
        twin = copy.deepcopy(block)
        outputs = [walk.run(block, hidden) for hidden in exact]
        done = parts.load(at.rstrip("."))
        if done is None:
            done = _quantize_block(walk, block, twin, exact, rounded, outputs, at, span)
            parts.save(at.rstrip("."), done)
        for name, (tensor, report) in done.items():
            _set_weight(twin, name.removeprefix(at).removesuffix(".weight"), tensor, name)
            tensors[name] = tensor
            reports.append(report)
        exact = outputs
        rounded = [walk.run(twin, hidden) for hidden in rounded]
    left = [n for n, t in tensors.items() if is_matrix(n) and not isinstance(t, RF8Tensor)]
    assert not left, left
    return replace(model, tensors=tensors, span=span, method="compensated"), reports


def _windows(model: Model, calibration: Tensor) -> Tensor:
    window = min(WINDOW, model.spec.context)
    count = len(calibration) // window
    if count < 1:
        raise DataError(
            f"the calibration text has {len(calibration)} tokens, a window of {model.name} has "
            f"{window}: give a longer text"
        )
    if int(calibration.max()) >= model.spec.vocab:
        raise DataError(f"token {int(calibration.max())} is not in the vocabulary of {model.name}")
    return calibration[: count * window].view(count, window)


def _head(
    module: nn.Module, model: Model, name: str, windows: Tensor, span: int
) -> tuple[RF8Tensor, LayerReport]:
    weight = torch.from_numpy(model.float_tensor(name))
    hessian = torch.zeros(weight.shape[1], weight.shape[1])
    for window in windows:
        out = module.base_model(input_ids=window[None], use_cache=False)  # type: ignore[operator]
        hidden = out.last_hidden_state[0]
        hessian += hidden.T @ hidden
    return _round(name, weight, hessian, hessian, hessian, None, span)


def _quantize_block(
    walk: _Blocks,
    block: nn.Module,
    twin: nn.Module,
    exact: list[Tensor],
    rounded: list[Tensor],
    outputs: list[Tensor],
    at: str,
    span: int,
) -> dict[str, tuple[RF8Tensor, LayerReport]]:
    """Round the linear layers of ``twin``, group by group, towards the outputs of ``block``."""
    done: dict[str, tuple[RF8Tensor, LayerReport]] = {}
    for group in walk.layout.groups:
        writes = group[0] in walk.layout.writers
        second = writes and group is walk.layout.groups[-1]
        names = (walk.layout.second_norm, group[0]) if second else (group[0],)
        sums: list[Tensor] = []
        for z_hidden, x_hidden, output in zip(exact, rounded, outputs, strict=True):
            z_seen = walk.see(block, z_hidden, names)
            x_seen = walk.see(twin, x_hidden, names)
            z, x = z_seen[group[0]], x_seen[group[0]]
            lack = None
            if writes:
                norm = walk.layout.second_norm
                z_stream = z_seen[norm] if second else z_hidden.flatten(0, -2)
                x_stream = x_seen[norm] if second else x_hidden.flatten(0, -2)
                share = output.flatten(0, -2).square().mean(1, keepdim=True).rsqrt()
                z, x, lack = z * share, x * share, (z_stream - x_stream) * share
            new = [x.T @ x, z.T @ x, z.T @ z] + ([] if lack is None else [lack.T @ x])
            sums = new if not sums else [a.add_(b) for a, b in zip(sums, new, strict=True)]
        hessian, cross, power = sums[:3]
        for part in group:
            name = f"{at}{part}.weight"
            weight: Tensor = block.get_submodule(part).weight  # type: ignore[assignment]
            weight = weight.T if is_conv1d(name) else weight
            target = shifted_target(weight, hessian, cross, sums[3] if writes else None)
            done[name] = _round(name, weight, hessian, cross, power, target, span)
            _set_weight(twin, part, done[name][0], name)
    return done


def _round(
    name: str,
    weight: Tensor,
    hessian: Tensor,
    cross: Tensor,
    power: Tensor,
    target: Tensor | None,
    span: int,
) -> tuple[RF8Tensor, LayerReport]:
    try:
        codes, bias = compensate(weight, hessian, target=target, span=span)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    nearest = round_to_rf8(weight.contiguous(), row_bias(weight)[:, None].int(), span)
    signal = _product(weight, power, weight)

    def relative(values: Tensor) -> float:
        mixed = _product(weight, cross, values)
        return (signal - 2 * mixed + _product(values, hessian, values)) / signal

    report = LayerReport(name, relative(decode(codes, bias[:, None].int())), relative(nearest))
    return RF8Tensor(codes.numpy(), bias.numpy()), report


def _product(left: Tensor, middle: Tensor, right: Tensor) -> float:
    """``tr(left middle right^T)``, summed in float64 over bounded blocks of rows."""
    total = 0.0
    for first in range(0, len(left), 4096):
        rows = slice(first, first + 4096)
        total += float(((left[rows].double() @ middle.double()) * right[rows]).sum())
    return total


def _set_weight(block: nn.Module, part: str, tensor: RF8Tensor, name: str) -> None:
    values = torch.from_numpy(tensor.decode())
    turned = values.T if is_conv1d(name) else values
    block.get_submodule(part).weight = nn.Parameter(turned, requires_grad=False)


def _fingerprint(model: Model, windows: Tensor, span: int) -> dict[str, Any]:
    """What a run must share with another to go on from its state."""
    text = zlib.crc32(windows.numpy().tobytes())
    return {"weights": model.checksum(), "text": text, "span": span, "version": 1}


class _Parts:
    """Finished parts of a run on disk, each written whole or not at all."""

    def __init__(self, folder: Path | None, fingerprint: dict[str, Any]) -> None:
        self._folder = folder
        if folder is None:
            return
        about = folder / "run.json"
        if about.exists():
            try:
                found = json.loads(about.read_text())
            except ValueError:
                found = {}
            changed = [k for k, v in fingerprint.items() if found.get(k) != v]
            if changed:
                raise DataError(
                    f"{folder} holds an interrupted run with another {' and '.join(changed)}: "
                    "delete it, or give the same again"
                )
        elif folder.exists() and any(folder.iterdir()):
            raise DataError(f"{folder} is there and holds other files; give another output")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            with replaced_file(about) as temporary:
                temporary.write_text(json.dumps(fingerprint))

    def load(self, part: str) -> dict[str, tuple[RF8Tensor, LayerReport]] | None:
        """A part that an earlier run finished, or None."""
        from safetensors import SafetensorError, safe_open

        if self._folder is None or not (self._folder / f"{part}.safetensors").exists():
            return None
        path = self._folder / f"{part}.safetensors"
        try:
            with safe_open(path, framework="np") as file:
                reports = [LayerReport(**r) for r in json.loads(file.metadata()["reports"])]
                return {
                    r.name: (
                        RF8Tensor(file.get_tensor(r.name), file.get_tensor(f"{r.name}.bias")),
                        r,
                    )
                    for r in reports
                }
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise DataError(f"{path} is broken ({error}): delete it and run again") from error

    def save(self, part: str, done: dict[str, tuple[RF8Tensor, LayerReport]]) -> None:
        """Keep a finished part."""
        from safetensors.numpy import save_file

        if self._folder is None:
            return
        tensors: dict[str, Any] = {n: np.ascontiguousarray(t.codes) for n, (t, _) in done.items()}
        tensors |= {f"{n}.bias": t.bias for n, (t, _) in done.items()}
        reports = json.dumps([asdict(r) for _, r in done.values()])
        with replaced_file(self._folder / f"{part}.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"reports": reports})

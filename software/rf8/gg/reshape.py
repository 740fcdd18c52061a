"""DeepShape on whole models (`rf8.gg.deepshape` has the method)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from rf8.checkpoint.model import Float, Model, RF8Tensor
from rf8.errors import DataError
from rf8.gg.deepshape import Change, Reshaping, Target, change, target
from rf8.gg.fit import GGFit, fit
from rf8.gg.init import gg_scale
from rf8.gg.rate import STEP
from rf8.progress import Progress

REPORT = "deepshape.safetensors"
"""Name of the file with the changes, in the folder of the reshaped model."""

Group = Literal["tensor", "kind", "model"]


def reshape_model(
    model: Model,
    *,
    shape: float | None = None,
    shape_factor: float = 1.0,
    std: float | None = None,
    std_factor: float = 1.0,
    step: float = STEP,
    min_count: float = 1.0,
    group: Group = "tensor",
    progress: Progress = lambda *_: None,
) -> tuple[Model, list[Change]]:
    """A copy of a float model whose matrices follow generalized Gaussians, and what was done.

    Parameters
    ----------
    model
        A float model; its matrices (linear layers, embeddings, head) are reshaped.
    shape, std
        Of the targets; the fitted ones, times ``shape_factor`` and ``std_factor``, if None.
    step, min_count
        As for `rf8.gg.deepshape.target`.
    group
        What shares one target: each "tensor", all of a "kind" (the same part of every block), or
        the whole "model".
    progress
        Called with a group's name, its number and how many there are.

    Raises
    ------
    DataError
        For an RF8 model, or a group that cannot be fitted or reshaped; the message names it.
    ValueError
        For another group or parameters out of range.
    """
    if model.span is not None:
        raise DataError(f"{model.name} is RF8 already: DeepShape needs the float model")
    if group not in get_args(Group):
        raise ValueError(f"group is {group!r}, must be one of {', '.join(get_args(Group))}")
    groups: dict[str, list[str]] = {}
    for name in model.matrices():
        groups.setdefault(_group_of(name, group), []).append(name)
    tensors: dict[str, Float | RF8Tensor] = dict(model.tensors)
    changes: list[Change] = []
    for number, (title, names) in enumerate(groups.items()):
        progress(title, number, len(groups))
        values = [model.float_tensor(name) for name in names]
        try:
            found: GGFit = fit(values, name=title)
        except ValueError as error:
            raise DataError(str(error)) from error
        new_shape = found.shape * shape_factor if shape is None else shape
        new_std = found.std * std_factor if std is None else std
        new_scale = gg_scale(new_shape, new_std**2)
        try:
            goal = target(found.n, new_shape, new_scale, step=step, min_count=min_count)
        except ValueError as error:
            raise DataError(f"{title}: {error}") from error
        reshaping = Reshaping(values, goal, name=title)
        for name, old in zip(names, values, strict=True):
            tensors[name] = reshaping.apply(old)
        before, after = (found.shape, found.std), (new_shape, new_std)
        changes.append(change(names, before, after, reshaping))
    return replace(model, tensors=tensors), changes


def undo_model(model: Model, changes: list[Change]) -> Model:
    """The model with `Change.undo` applied to each of its reshaped tensors.

    Raises DataError where a tensor is missing or not as the change left it.
    """
    tensors = dict(model.tensors)
    for done in changes:
        for name in done.names:
            if name not in tensors:
                raise DataError(f"{model.name} has no {name}: the report is of another model")
            try:
                tensors[name] = done.undo(model.float_tensor(name))
            except ValueError as error:
                raise DataError(
                    f"{model.name}: cannot undo {name}, {error}: give the model as reshaped"
                ) from error
    return replace(model, tensors=tensors)


def pack_changes(changes: list[Change]) -> bytes:
    """The content of the file `REPORT`."""
    from safetensors.numpy import save

    tensors: dict[str, Any] = {}
    about = []
    for k, done in enumerate(changes):
        tensors |= {f"{k}.counts": done.goal.counts, f"{k}.means": done.means}
        fields = {k: v for k, v in vars(done).items() if k not in ("goal", "means")}
        about.append(fields | {"first": done.goal.first, "step": done.goal.step})
    content: bytes = save(tensors, metadata={"changes": json.dumps(about)})
    return content


def read_changes(path: Path) -> list[Change]:
    """What `pack_changes` packed. Raises DataError for a file that is missing or broken."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            changes = []
            for k, about in enumerate(json.loads(file.metadata()["changes"])):
                first, step = about.pop("first"), about.pop("step")
                goal = Target(first, step, file.get_tensor(f"{k}.counts"))
                about["names"] = tuple(about["names"])
                changes.append(Change(**about, goal=goal, means=file.get_tensor(f"{k}.means")))
            return changes
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: only a model made by DeepShape has it") from error
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is broken: {error}") from error


def _group_of(name: str, group: Group) -> str:
    if group == "model":
        return "all matrices"
    return name if group == "tensor" else re.sub(r"\.\d+\.", ".*.", name)

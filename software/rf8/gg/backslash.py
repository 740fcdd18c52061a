"""BackSlash: training with a rate term, so that weights come out compressible.

The objective is ``J = L + lambda R`` with the loss L and a rate R over the n weights of all
penalised tensors. A tensor whose weights follow a generalized Gaussian of shape v takes, with the
best scale and up to a constant, ``log2(mean(|w|^v)) / v`` bits a weight. With
``r = |w| + epsilon``, which bounds the slope at zero, the two penalties and what they add to the
gradient of weight i are

    bits:   R = sum over tensors t of (n_t / n) log2(mean_t(r^v)) / v
            dR/dw_i = sign(w_i) r_i^(v-1) / (n ln 2 mean_t(r^v))                             (1)
    power:  R = sum over all weights of r^v / n
            dR/dw_i = v sign(w_i) r_i^(v-1) / n                                              (2)

v is a constant in both derivatives, and is estimated again now and then from the weights. (2) is
the form of arXiv 2504.16968; its code, as published with arXiv 2506.00486, takes epsilon = 1, one
shape for the whole model, and subtracts the derivative from the weights after the optimizer's step.
Here the derivative joins the loss's before the step, so that any optimizer descends J itself, and
every tensor has its own shape, as it would be coded on its own. (1) has a unit: lambda is the loss,
in nats, that one bit a weight is worth. Where the loss's gradient is clipped before the step, it is
the clipped loss that lambda weighs against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from rf8.gg.fit import SHAPE_MIN, shape_of_ratio
from rf8.gg.rate import STEP

SHAPE_TOP = 2.0  # flatter tensors count as Gaussian: a higher power would spare all but the largest
Penalty = Literal["bits", "power"]


class BackSlash:
    """Adds the gradient of a rate to that of the loss, before each step of an optimizer.

    Every trainable parameter of two or more dimensions that the optimizer has now is penalised,
    unless its parameter group has ``rate=False``.

    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)       # doctest: +SKIP
    >>> rate = BackSlash(optimizer, weight=0.05)                         # doctest: +SKIP

    Parameters
    ----------
    optimizer
        Any `torch.optim.Optimizer` whose gradients are dense and there before ``step()``, which
        rules out closures. With a gradient scaler, unscale before the step.
    weight
        lambda, or a function from the number of the step (0, 1, ...) to it: a schedule.
    every
        Steps between estimates of the shapes.
    epsilon
        See above. The default is half of the usual quantisation step: what lies below is coded as
        zero anyway.
    penalty
        "bits" (1) or "power" (2).
    sharded
        Whether each process of ``process_group`` holds a part of every parameter, as plain tensors
        of two or more dimensions; otherwise all hold the same. Where torch.distributed is
        initialised, statistics are taken over all processes either way, so that all see the same
        shapes.

    Raises ValueError for a value out of range, or an optimizer without a penalised parameter; a
    step raises it for a closure, a sparse gradient, or a weight that is negative or not finite.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        weight: float | Callable[[int], float],
        *,
        every: int = 10,
        epsilon: float = STEP / 2,
        penalty: Penalty = "bits",
        sharded: bool = False,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every is {every}, must be 1 or more steps")
        if not 0 < epsilon < math.inf:
            raise ValueError(f"epsilon is {epsilon}, must be positive and finite")
        if penalty not in get_args(Penalty):
            raise ValueError(f"penalty is {penalty!r}, must be one of {get_args(Penalty)}")
        self.parameters: list[Tensor] = [
            parameter
            for group in optimizer.param_groups
            if group.get("rate", True)
            for parameter in group["params"]
            if parameter.ndim >= 2 and parameter.requires_grad
        ]
        if not self.parameters:
            raise ValueError("the optimizer has no parameter of two dimensions to penalise")
        self.weight = weight
        self.every, self.epsilon, self.penalty = every, epsilon, penalty
        self.sharded, self.process_group = sharded, process_group
        self.step = 0
        self.shapes: list[float] = []
        self._hook = optimizer.register_step_pre_hook(self._before_step)

    def remove(self) -> None:
        """Take the rate out of the optimizer again."""
        self._hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """Number of the step and the shapes, for a checkpoint."""
        return {"step": self.step, "shapes": list(self.shapes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`. Raises ValueError for another number of parameters."""
        found = len(state["shapes"])
        if found not in (0, len(self.parameters)):
            raise ValueError(f"the state is of {found} parameters, not {len(self.parameters)}")
        self.step, self.shapes = int(state["step"]), list(state["shapes"])

    @torch.no_grad()
    def _before_step(self, _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # args[0] is the optimizer itself.
        if any(value is not None for value in (*args[1:], *kwargs.values())):
            raise ValueError("BackSlash cannot add to gradients that a closure makes: call step()")
        strength = self.weight(self.step) if callable(self.weight) else self.weight
        if not 0 <= strength < math.inf:
            raise ValueError(f"the weight at step {self.step} is {strength}, must be 0 or more")
        if self.step % self.every == 0 or not self.shapes:
            self.shapes = self._estimate()
        self.step += 1
        if strength == 0:
            return
        slopes = []
        sums = []
        for parameter, shape in zip(self.parameters, self.shapes, strict=True):
            size = parameter.abs().float().add_(self.epsilon)
            slope = size.pow(shape - 1)
            sums.append([parameter.numel(), float((slope * size).sum(dtype=torch.float64))])
            slopes.append(slope.mul_(parameter.sign()))
        totals = self._over_all(sums)
        n = float(totals[:, 0].sum()) / (1 if self.sharded else self._processes())
        for k, (parameter, slope) in enumerate(zip(self.parameters, slopes, strict=True)):
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                raise ValueError(f"a parameter {tuple(parameter.shape)} has a sparse gradient")
            if self.penalty == "bits":
                mean = float(totals[k, 1] / totals[k, 0])
                factor = strength / (n * math.log(2) * mean)
            else:
                factor = strength * self.shapes[k] / n
            parameter.grad.add_(slope.to(parameter.grad.dtype), alpha=factor)

    def _estimate(self) -> list[float]:
        sums = []
        for parameter in self.parameters:
            size = parameter.abs().float()
            moments = (size.sum(dtype=torch.float64), size.square_().sum(dtype=torch.float64))
            sums.append([parameter.numel(), *map(float, moments)])
        shapes = []
        for n, first, second in self._over_all(sums).tolist():
            ratio = n * second / first**2 if first > 0 else 1.0
            shapes.append(min(max(shape_of_ratio(max(ratio, 1.0)), SHAPE_MIN), SHAPE_TOP))
        return shapes

    def _processes(self) -> int:
        together = dist.is_available() and dist.is_initialized()
        return dist.get_world_size(self.process_group) if together else 1

    def _over_all(self, sums: list[list[float]]) -> Tensor:
        """Float64 sums over the processes: the same bits in all of them."""
        table = torch.tensor(sums, dtype=torch.float64)
        if self._processes() > 1:
            # On the parameters' device, where the process group can work.
            table = table.to(self.parameters[0].device)
            dist.all_reduce(table, group=self.process_group)
        return table.cpu()

"""Heads and rotary positions, found in the element numbers of a traced vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rf8.graph.ir import Pairing, Rotary
from rf8.graph.symbols import TOKENS, Vector


class Unknown(Exception):
    """A form of attention that is not known; the message says which."""


def heads_of(x: Vector, elements: int) -> int:
    """How many heads [1, heads, TOKENS, width] a vector of ``elements`` holds, in order.

    Raises
    ------
    Unknown
        Where its elements lie in another order.
    """
    index = x.terms[0][0]
    width = index.shape[-1]
    many = elements // width
    whole = torch.arange(TOKENS * elements).reshape(1, TOKENS, many, -1).transpose(1, 2)
    if whole.shape != index.shape or not torch.equal(index, whole):
        raise Unknown("attention of vectors that are no heads")
    return many


def rotary_of(x: Vector, width: int, known: Sequence[Tensor]) -> tuple[Rotary | None, float]:
    """The rotary positions of a vector of heads of ``width`` elements, checked at every position,
    and the factor that cosines and sines have in common.

    ``known``: the model's frequencies; those that fit give the exact steps.

    Raises
    ------
    Unknown
        Where the elements are not turned in pairs by angles that grow with the position.
    """
    odd = Unknown("this form of rotary positions")
    if len(x.terms) == 1 and x.terms[0][1] is None:
        return None, 1.0
    if len(x.terms) != 2 or any(factor is None for _, factor in x.terms):
        raise odd
    (own, first), (other, second) = x.terms
    assert first is not None and second is not None
    cosine, sine = (t.broadcast_to(own.shape)[0, 0].double() for t in (first, second))
    apart = (other - own)[0, 0, 0]
    turning = int((apart != 0).sum())
    still = torch.arange(width) >= turning
    size = float(cosine[0, 0])
    # What does not turn is left as it is.
    if turning == 0 or turning % 2 or not torch.equal(apart != 0, ~still):
        raise odd
    if still.any() and not (bool((cosine[:, still] == 1).all()) and size == 1):
        raise odd
    half, places = turning // 2, torch.arange(turning)
    forms: dict[Pairing, Tensor] = {"halves": places < half, "neighbours": places % 2 == 0}
    for pairing, leads in forms.items():
        distance = half if pairing == "halves" else 1
        if not torch.equal(apart[:turning], torch.where(leads, distance, -distance)):
            continue
        angle = torch.atan2(-sine[1, :turning][leads], cosine[1, :turning][leads])
        steps = _steps(angle, known)
        turn = torch.arange(TOKENS)[:, None] * steps
        right = all(
            torch.allclose(found[:, :turning][:, side], wanted * size, atol=2e-5)
            for side in (leads, ~leads)
            for found, wanted in (
                (cosine, turn.cos()),
                (sine, -turn.sin() if side is leads else turn.sin()),
            )
        )
        if right:
            return Rotary(tuple(steps.tolist()), pairing), size
    raise odd


def _steps(angle: Tensor, known: Sequence[Tensor]) -> Tensor:
    """The frequencies of the model that the angles at position 1 are, or else those angles."""
    for frequencies in known:
        found = frequencies.double().cpu()
        if found.shape == angle.shape and torch.allclose(found, angle, rtol=1e-4, atol=1e-12):
            return found
    return angle

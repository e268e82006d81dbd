"""What one pass of an engine gives: gradients of a chunk of samples, or sums over them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import LossError
from ...tensors.trees import TensorDict, floats, widen


@dataclass(frozen=True, eq=False)
class Chunk:
    """The gradients of some consecutive samples of a batch.

    Args:
        losses: shape (n,).
        gradients: name -> (n, *parameter.shape), in the dtype of the parameter.
    """

    losses: Tensor
    gradients: TensorDict


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a pass gives beside losses, sums and squared norms.

    Args:
        directions: k vectors u by name, each (k, *shape); the pass gives g_iᵀu.
        variance: the pass gives the spread of every coordinate.
        scale: R by name; everything is then of R ⊙ g_i, entry by entry, in place of g_i.
        centre: a by name; a pass over the gradients themselves gives ‖g_i - a‖².
        idle: the samples are borrowed, for the sake of other ranks: they count for nothing.
        total: whether the sums are wanted; engines that have them at hand may give them anyway.
    """

    directions: Mapping[str, Tensor] | None = None
    variance: bool = False
    scale: TensorDict | None = None
    centre: TensorDict | None = None
    idle: bool = False
    total: bool = True


@dataclass(frozen=True, eq=False)
class Summary:
    """Sums over some consecutive samples, without their n×P gradients; float64 is float32 on MPS.

    Args:
        losses: ℓ_i, shape (n,).
        total: Σ_i g_i by name, in the dtype of the parameter or a more precise one.
        sq_norms: ‖g_i‖² by name, each (n,), float64.
        dots: g_iᵀu by name, each (n, k), float64; None when no direction was given.
        squares: Σ_i g_i² by name and coordinate, float64; Σ_i (g_i - ḡ)² where `centred_sq` is
            given; None when not wanted.
        centred_sq: Σ_i ‖g_i - ḡ‖² by name, about the mean of these samples; None from engines
            that do not centre: then it is the difference of the sums above.
        gap_sq_norms: ‖g_i - a‖² by name, each (n,), float64; None when no centre was given.
    """

    losses: Tensor
    total: TensorDict
    sq_norms: TensorDict
    dots: TensorDict | None = None
    squares: TensorDict | None = None
    centred_sq: dict[str, float] | None = None
    gap_sq_norms: TensorDict | None = None

    @classmethod
    def of(cls, chunk: Chunk, wanted: Wanted | None = None) -> Summary:
        """The sums over a chunk of gradients; deviations are centred before they are squared.

        Raises:
            LossError: a gradient that is not finite (its loss can still be).
        """
        wanted = wanted or Wanted()
        total, norms, centred, squares, dots, gaps = {}, {}, {}, {}, {}, {}
        directions, centre = wanted.directions or {}, wanted.centre or {}
        for name, gradient in chunk.gradients.items():
            wide = widen(gradient)
            if wanted.scale is not None:
                wide = wide * wanted.scale[name]
            rows = wide.reshape(len(wide), -1)
            norms[name] = rows.square().sum(1)
            total[name] = wide.sum(0)
            if name in directions:
                along = widen(directions[name])
                dots[name] = rows @ along.reshape(len(along), -1).T
            if name in centre:
                gaps[name] = (rows - widen(centre[name]).reshape(-1)).square_().sum(1)
            mean = total[name] / len(wide)
            deviations = wide.sub_(mean) if wide is not gradient else wide - mean
            flat = deviations.reshape(-1)
            centred[name] = torch.dot(flat, flat)
            if wanted.variance:
                squares[name] = deviations.square_().sum(0)
        return cls(
            losses=chunk.losses,
            total=total,
            sq_norms=check_norms(norms),
            centred_sq=dict(zip(centred, floats(centred.values()), strict=True)),
            dots=None if wanted.directions is None else dots,
            squares=squares if wanted.variance else None,
            gap_sq_norms=None if wanted.centre is None else gaps,
        )


def check_norms(norms: TensorDict) -> TensorDict:
    """The squared norms, name -> (n,), unchanged.

    Raises:
        LossError: one that is not finite, or their sum.
    """
    if math.isfinite(float(torch.stack(list(norms.values())).sum())):
        return norms
    for name, own in norms.items():
        bad = (~torch.isfinite(own)).nonzero().flatten().tolist()
        if bad:
            raise LossError(
                f"the gradient of parameter {name!r} is not finite for {len(bad)} of {len(own)} "
                f"samples (positions {bad[:5]}) although their losses are: look for sqrt, log or "
                f"division at zero, or overflow in half precision."
            )
    raise LossError("the sum of |g|² overflows: multiply the loss by a constant, such as 1e-50")

"""Gradients of a tensor that is computed from a parameter, by the chain rule."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ...problem.memory import entries
from ...tensors.trees import widen
from .factored import NOTHING, Asked, FactoredGradients, Measured, Summed

Place = tuple[torch.Size, tuple[int, ...], int]


def by_chain_rule(
    factored: Sequence[FactoredGradients], derived: Sequence[Tensor], parameter: Tensor
) -> list[FactoredGradients]:
    """Gradients of the parameter by the chain rule; equal views are joined."""
    found: list[FactoredGradients] = []
    views: dict[Place, list[FactoredGradients]] = {}
    for term, tensor in zip(factored, derived, strict=True):
        place = _place(tensor, parameter)
        if place is None:
            found.append(ThroughFunction(term, tensor, parameter))
        else:
            views.setdefault(place, []).append(term)
    return found + [ThroughView(Summed(own), place, parameter) for place, own in views.items()]


def _place(tensor: Tensor, parameter: Tensor) -> Place | None:
    """Size, strides and offset of a view, in entries of the parameter; None for other tensors."""
    if tensor._base is not parameter or not parameter.is_contiguous():
        return None
    if tensor.dtype != parameter.dtype or tensor.is_neg():  # complex numbers of it, and their parts
        return None
    size, stride = tensor.size(), tensor.stride()
    first = int(tensor.storage_offset()) - int(parameter.storage_offset())
    last = first + sum(step * (extent - 1) for step, extent in zip(stride, size, strict=True))
    inside = first >= 0 and last < parameter.numel()  # `torch.as_strided` can look beyond it
    return (size, stride, first) if inside else None


def _seen(whole: Tensor, place: Place) -> Tensor:
    """The view at a place of a contiguous tensor, wherever that begins in its own memory."""
    size, stride, first = place
    return whole.as_strided(size, stride, whole.storage_offset() + first)


@functools.lru_cache(maxsize=4096)
def _most_looks(places: tuple[Place, ...], size: int) -> int:
    """How often views at these places of a parameter see one of its entries, at most.

    On the CPU, once: a device would be waited for at every pass.
    """
    seen = torch.cat([entries(*place, torch.device("cpu")) for place in places])
    return int(torch.bincount(seen, minlength=size).max())


class ThroughView(FactoredGradients):
    """Gradients through a view: the same numbers, in other places of the parameter.

    Args:
        factored: gradients with respect to the view.
        place: size, strides and offset of the view.
        parameter: contiguous.
    """

    def __init__(self, factored: FactoredGradients, place: Place, parameter: Tensor) -> None:
        self.factored, self.count, self.shape = factored, factored.count, parameter.shape
        self._place, self._device = place, parameter.device

    def gradients(self, part: slice) -> Tensor:
        own = self.factored.gradients(part)
        rows = own.new_zeros(len(own), self.shape.numel())
        size, stride, offset = self._place
        if self._repeats():
            return rows.index_add_(1, self._entries(), own.flatten(1)).reshape(-1, *self.shape)
        rows.as_strided([len(own), *size], [rows.shape[1], *stride], offset).copy_(own)
        return rows.reshape(-1, *self.shape)

    def inner(self, other: FactoredGradients) -> Tensor | None:
        """Views that share no entry are orthogonal."""
        places = (self._place, other._place) if isinstance(other, ThroughView) else ()
        if places and _most_looks(places, self.shape.numel()) <= 1:
            return widen(torch.zeros(self.count, device=self._device))
        return None

    def measure(self, asked: Asked = NOTHING) -> Measured:
        if self._repeats():
            return self._written_out(asked)
        directions, scale = asked.directions, asked.scale
        if directions is not None:
            directions = torch.stack([_seen(u.contiguous(), self._place) for u in directions])
        if scale is not None:
            scale = _seen(scale.contiguous(), self._place)
        own = self.factored.measure(asked._replace(directions=directions, scale=scale))
        return Measured(
            None if own.total is None else self._placed(own.total),
            own.sq_norms,
            own.dots,
            None if own.squares is None else self._placed(own.squares),
        )

    def method(self) -> tuple[str, str]:
        name, why = self.factored.method()
        return name, f"{why}, through a view of the parameter"

    def _placed(self, values: Tensor) -> Tensor:
        whole = values.new_zeros(self.shape)
        _seen(whole, self._place).copy_(values)
        return whole

    def _entries(self) -> Tensor:
        """Which entry of the parameter each entry of the view is, flat."""
        return entries(*self._place, self._device)

    def _repeats(self) -> bool:
        size, stride, _ = self._place
        reach = 0  # of the dimensions with smaller strides
        for step, extent in sorted(zip(stride, size, strict=True)):
            if extent > 1 and step <= reach:
                return _most_looks((self._place,), self.shape.numel()) > 1
            reach += step * (extent - 1)
        return False


class ThroughFunction(FactoredGradients):
    """Vector-Jacobian products of φ(p) with the gradients, a few samples at a time.

    Args:
        factored: gradients with respect to φ(p).
        derived: φ(p) with its graph.
        parameter: p.
    """

    def __init__(self, factored: FactoredGradients, derived: Tensor, parameter: Tensor) -> None:
        self.factored, self.count, self.shape = factored, factored.count, parameter.shape
        self._derived, self._parameter = derived, parameter

    def gradients(self, part: slice) -> Tensor:
        own = self.factored.gradients(part).to(self._derived.dtype)
        (product,) = torch.autograd.grad(
            self._derived,
            self._parameter,
            own.reshape(len(own), *self._derived.shape),
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        return own.new_zeros(len(own), *self.shape) if product is None else product

    def method(self) -> tuple[str, str]:
        return "written out", "carried back to the parameter that it was computed from"

"""Where the samples are in a tensor that an operation of the model gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Samples along one axis, each with as many entries as the axis has per sample.

    Args:
        axis: counted from the front.
        major: entry i·k + t belongs to sample i; else (t·n + i) does, as after flattening an axis
            of samples that came second.
    """

    axis: int
    major: bool = True

    def fits(self, tensor: Tensor, count: int) -> bool:
        """Whether the axis can be split among the samples."""
        if tensor.ndim <= self.axis:
            return False
        size = tensor.shape[self.axis]
        return size >= count and size % count == 0

    def split(self, tensor: Tensor, count: int) -> Tensor:
        """(n, ...): for each sample what the operation would see in a batch of it alone."""
        each = tensor.shape[self.axis] // count
        if self.major:
            parted = _parted(tensor, self.axis, count, each)
            return parted.movedim(self.axis, 0) if self.axis else parted
        return _parted(tensor, self.axis, each, count).movedim(self.axis + 1, 0)

    def positions(self, tensor: Tensor, count: int, own: int = 1) -> Tensor:
        """(n, T, ...) with the last `own` dimensions kept and the others before them joined."""
        if self.major and not self.axis:
            return tensor.reshape(count, -1, *tensor.shape[tensor.ndim - own :])
        alone = self.split(tensor, count)
        return alone.reshape(count, -1, *alone.shape[alone.ndim - own :])


def _parted(tensor: Tensor, axis: int, first: int, second: int) -> Tensor:
    return tensor.reshape(*tensor.shape[:axis], first, second, *tensor.shape[axis + 1 :])


def candidates(tensor: Tensor, count: int) -> Iterator[Layout]:
    """Layouts that the shape allows, the likely ones first."""
    fitting = [axis for axis in range(tensor.ndim) if Layout(axis).fits(tensor, count)]
    for axis in fitting:
        if tensor.shape[axis] == count:
            yield Layout(axis)
    for axis in fitting:
        if tensor.shape[axis] > count:
            yield Layout(axis)
            yield Layout(axis, major=False)


@dataclass(frozen=True)
class Found:
    """A layout, and whether it is the only one that fits."""

    layout: Layout
    proven: bool


def touched(gradient: Tensor | None, like: Tensor) -> Tensor:
    """Where a gradient is not zero; entries that are not finite count as zero."""
    if gradient is None:
        return torch.zeros((), dtype=torch.bool, device=like.device).expand(like.shape)
    return gradient.nan_to_num(0.0, 0.0, 0.0) != 0


def find_layout(entries: Tensor) -> Found | None:
    """The layout in which the loss of sample i has a gradient at the entries of sample i alone.

    Args:
        entries: of one tensor, at which each of n losses has a gradient, shape (n, ...).
    """
    count = len(entries)

    def holds(layout: Layout) -> bool:
        by_sample = [layout.split(own, count) for own in entries]
        return not any(
            bool(parts[:i].any()) or bool(parts[i + 1 :].any()) for i, parts in enumerate(by_sample)
        )

    return _first(entries[0], count, holds, bool(entries.any()))


def weighted_layout(
    plain: Tensor, weighted: Sequence[Tensor], weights: Sequence[Tensor]
) -> Found | None:
    """The layout in which a sample's entries scale with the weight of its loss.

    Args:
        plain, weighted: gradient of Σ ℓ_i, and of Σ w_i ℓ_i for each w, with respect to one tensor.
        weights: each w, shape (n,), powers of two, so that scaling is exact.
    """
    count = len(weights[0])
    plain = plain.nan_to_num(0.0, 0.0, 0.0)

    def holds(layout: Layout) -> bool:
        own = layout.split(plain, count).reshape(count, -1)
        largest = own.abs().amax(1, keepdim=True) if own.numel() else own
        for gradient, weight in zip(weighted, weights, strict=True):
            other = layout.split(gradient.nan_to_num(0.0, 0.0, 0.0), count).reshape(count, -1)
            scale = weight.to(largest)[:, None]  # real, also where the entries are complex
            allowed = 64 * torch.finfo(own.dtype).eps * scale * largest
            if not bool(((other - scale * own).abs() <= allowed).all()):
                return False
        return True

    return _first(plain, count, holds, bool(plain.any()))


def _first(
    tensor: Tensor, count: int, holds: Callable[[Layout], bool], tells: bool
) -> Found | None:
    found = [layout for layout in candidates(tensor, count) if holds(layout)]
    return Found(found[0], tells and len(found) == 1) if found else None

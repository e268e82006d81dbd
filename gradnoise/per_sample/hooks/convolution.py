"""Per-sample gradients of convolutions: windows of the input against the output's gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .factored import NOTHING, Asked, FactoredGradients, Measured
from .outer_products import SummedOuterProducts

FEW_INPUTS = 64  # window entries up to which windows are copied out rather than grouped


@dataclass(frozen=True)
class Correlated:
    """How a window of the sizes `kernel` slides; one number per spatial dimension."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    uneven: tuple[int, ...] = ()  # one more entry of padding behind, of padding="same"

    @classmethod
    def of(
        cls, dims: int, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Correlated:
        """From the arguments of a torch convolution."""
        kernel, stride, dilation = (_each(value, dims) for value in (kernel, stride, dilation))
        if padding == "same":
            total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            uneven = tuple(t % 2 for t in total)
            half = tuple(t // 2 for t in total)
            return cls(kernel, stride, half, dilation, groups, uneven if any(uneven) else ())
        sizes = _each(0 if padding == "valid" else padding, dims)
        return cls(kernel, stride, sizes, dilation, groups)

    def evened(self, inputs: Tensor) -> Tensor:
        """Inputs with the uneven part of their padding written out."""
        if not self.uneven:
            return inputs
        return F.pad(inputs, [size for extra in reversed(self.uneven) for size in (0, extra)])

    def windows(self, inputs: Tensor) -> Tensor:
        """(k, c, *spatial) -> (k, c, *positions, *kernel), a view of the padded inputs."""
        padded = F.pad(inputs, [size for p in reversed(self.padding) for size in (p, p)])
        spatial, steps = padded.shape[2:], padded.stride()[2:]
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        counts = [
            (s - r) // stride + 1 for s, r, stride in zip(spatial, reach, self.stride, strict=True)
        ]
        return padded.as_strided(
            [*padded.shape[:2], *counts, *self.kernel],
            [
                *padded.stride()[:2],
                *(s * stride for s, stride in zip(steps, self.stride, strict=True)),
                *(s * d for s, d in zip(steps, self.dilation, strict=True)),
            ],
        )


def _each(value: Any, dims: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dims
    return tuple(value) * dims if len(value) == 1 else tuple(value)


class Convolution(FactoredGradients):
    """g_i of the weight, shape (out, in/groups, *kernel).

    Args:
        inputs: shape (n, frames, in, *spatial).
        deltas: shape (n, frames, out, *positions).
        shape: of the weight.
        how: the sliding.
    """

    def __init__(self, inputs: Tensor, deltas: Tensor, shape: torch.Size, how: Correlated) -> None:
        self.count, self.shape = len(inputs), shape
        self._inputs, self._deltas, self._how = inputs, deltas, how
        self.held = inputs.shape[1:].numel() + deltas.shape[1:].numel()
        if self._copied():
            self.held += math.prod(self._sizes()[::2]) * how.groups

    def gradients(self, part: slice) -> Tensor:
        if self._copied():
            return self._outer(part).gradients(slice(None))
        return self._grouped(self._inputs[part], self._deltas[part])

    def some(self, rows: slice) -> FactoredGradients:
        return Convolution(self._inputs[rows], self._deltas[rows], self.shape, self._how)

    def measure(self, asked: Asked = NOTHING) -> Measured:
        if self._multiplies() and not asked.squares and asked.scale is None:
            return self._outer(slice(None)).measure(asked)
        return self._written_out(asked)

    def method(self) -> tuple[str, str]:
        positions, p, q = self._sizes()
        if self._multiplies():
            how = f"{positions} positions of {p} + {q} numbers for {p} × {q}"
            return "Gram of windows", how
        if self._copied():
            return "windows", f"only {q} entries under the window"
        return "grouped convolution", "the samples as groups, a few at a time"

    def extra_cost(self) -> float:
        positions, p, q = self._sizes()
        if self._multiplies():
            return 2.0 * self._how.groups * positions**2 * (p + q)
        return super().extra_cost()

    def batch_cost(self) -> float:
        return 2.0 * math.prod(self._sizes()) * self._how.groups

    def _sizes(self) -> tuple[int, int, int]:
        positions = self._deltas.shape[1] * self._deltas.shape[3:].numel()
        return positions, self.shape[0] // self._how.groups, self.shape[1:].numel()

    def _multiplies(self) -> bool:
        positions, p, q = self._sizes()
        return 2 * positions * (p + q) <= p * q

    def _copied(self) -> bool:
        """Whether windows are copied out, rather than samples made groups."""
        return self.shape[1:].numel() <= FEW_INPUTS

    def _outer(self, part: slice) -> SummedOuterProducts:
        """Every window against the gradient at its position."""
        inputs, deltas, how = self._inputs[part], self._deltas[part], self._how
        count, frames, dims = len(inputs), inputs.shape[1], len(how.kernel)
        windows = how.windows(how.evened(inputs.flatten(0, 1)))
        windows = windows.reshape(count, frames, how.groups, -1, *windows.shape[2:])
        order = [0, 2, 1, *range(4, 4 + dims), 3, *range(4 + dims, 4 + 2 * dims)]
        right = windows.permute(order).reshape(count, how.groups, -1, self.shape[1:].numel())
        left = deltas.reshape(count, frames, how.groups, -1, deltas.shape[3:].numel())
        left = left.permute(0, 2, 1, 4, 3)
        return SummedOuterProducts(left.flatten(2, 3), right, self.shape)

    def _grouped(self, inputs: Tensor, deltas: Tensor) -> Tensor:
        """Samples as groups of one convolution, whose weight gradient keeps them apart."""
        count, how = len(inputs), self._how
        inputs, deltas = (t.transpose(0, 1).flatten(1, 2) for t in (inputs, deltas))
        weight = inputs.new_empty(()).expand(count * self.shape[0], *self.shape[1:])
        zeros = [0] * len(how.kernel)
        gradient: Tensor = torch.ops.aten.convolution_backward(
            deltas,
            how.evened(inputs),
            weight,
            None,
            how.stride,
            how.padding,
            how.dilation,
            False,
            zeros,
            count * how.groups,
            [False, True, False],
        )[1]
        return gradient.reshape(count, *self.shape)

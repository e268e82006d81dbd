"""Random signs for every parameter, made anew each time: two gradients are compared along them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..tensors.sums import dots

DIRECTIONS = 2  # a wrong sum that is as long as the gradient passes once in 2500 times


class Signs(Mapping[str, Tensor]):
    """Directions of random signs by parameter, shape (2, *shape); only one exists at a time.

    E (dᵀu)² = ‖d‖² for the difference d of two gradients, without a copy of either.

    Args:
        parameters: by name.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters, self._seeds = parameters, {n: k for k, n in enumerate(parameters)}

    def __getitem__(self, name: str) -> Tensor:
        own = self._parameters[name]
        source = torch.Generator(own.device).manual_seed(self._seeds[name])
        shape = (DIRECTIONS, *own.shape)
        bits = torch.randint(0, 2, shape, generator=source, device=own.device, dtype=own.dtype)
        return bits.mul_(2).sub_(1)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)


def along_directions(gradient: Tensor, directions: Tensor) -> Tensor:
    """gᵀu for each of k directions, shape (k,), in float64 (float32 on MPS)."""
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        directions = directions[:, gradient.indices()[0]]  # of the rows that it has
        gradient = gradient.values()
    if gradient.dtype in (torch.float16, torch.bfloat16):
        gradient = gradient.float()
    row = gradient.reshape(1, -1)
    return torch.cat([dots(row, u.reshape(1, -1).to(row)) for u in directions])

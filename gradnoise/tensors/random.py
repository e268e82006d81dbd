"""Random directions drawn from an explicit seed, the same on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from .trees import wide_dtype


def generator(seed: int) -> torch.Generator:
    """A fresh generator, apart from every global random state."""
    return torch.Generator().manual_seed(int(seed))


def is_complete(count: int, size: int) -> bool:
    """Whether `count` sign vectors of length `size` are all there are, up to their own sign."""
    return size <= 32 and count >= 2 ** (size - 1)


def random_signs(count: int, size: int, seed: int) -> Tensor:
    """Independent signs ±1, shape (count, size); every sign vector once where that is no more."""
    if is_complete(count, size):
        codes = torch.arange(2 ** (size - 1)).unsqueeze(1)
        return 1 - 2 * (codes >> torch.arange(size) & 1).to(torch.float64)
    return independent_signs(count, size, seed)


def independent_signs(count: int, size: int, seed: int) -> Tensor:
    """Independent signs ±1, shape (count, size)."""
    bits = torch.randint(0, 2, (count, size), generator=generator(seed))
    return (2 * bits - 1).to(torch.float64)


def random_vector(size: int, source: torch.Generator, device: torch.device) -> Tensor:
    """A vector uniform on the unit sphere, shape (size,)."""
    vector = torch.randn(size, generator=source, dtype=torch.float64)
    unit: Tensor = vector / vector.norm()
    return unit.to(device=device, dtype=wide_dtype(device))

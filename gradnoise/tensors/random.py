"""Random directions drawn from an explicit seed, the same on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from .trees import wide_dtype

BLOCK = 2**20  # random numbers that come from one seed


def generator(seed: int) -> torch.Generator:
    """A new generator on the CPU, independent of every global random state."""
    return torch.Generator().manual_seed(int(seed))


def is_complete(count: int, size: int) -> bool:
    """Whether `count` is enough for all 2^(size - 1) sign vectors, up to a factor -1."""
    return size <= 32 and count >= 2 ** (size - 1)


def random_signs(count: int, size: int, seed: int) -> Tensor:
    """Independent signs ±1, shape (count, size), float64.

    Where `count` is enough, instead every sign vector once, up to a factor -1: shape
    (2^(size - 1), size). Averages of even functions over them are exact.
    """
    if is_complete(count, size):
        codes = torch.arange(2 ** (size - 1)).unsqueeze(1)
        return 1 - 2 * (codes >> torch.arange(size) & 1).to(torch.float64)
    return independent_signs(count, size, seed)


def independent_signs(count: int, size: int, seed: int) -> Tensor:
    """Independent signs ±1, shape (count, size), float64."""
    bits = torch.randint(0, 2, (count, size), generator=generator(seed))
    return (2 * bits - 1).to(torch.float64)


def scattered_signs(count: int, size: int, seed: int, most: int) -> Tensor:
    """Rows with E[s_i s_j] = δ_ij and disjoint entries, shape (count, size), float64.

    `most` random columns, or all if there are fewer, have one entry each, ±√(count·size/most), in a
    random row; rows differ by one entry at most.
    """
    source, used = generator(seed), min(size, most)
    order = torch.randperm(size, generator=source)[:used]
    signs = torch.zeros(count, size, dtype=torch.float64)
    bits = torch.randint(0, 2, (size,), generator=source)[:used]
    entry = (count * size / used) ** 0.5
    signs[torch.arange(used) % count, order] = entry * (2.0 * bits - 1).double()
    return signs


class Normals:
    """Independent standard normal numbers, of which any part can be drawn alone.

    Args:
        size: how many there are.
        source: moves on by as much, whatever part is drawn.

    Example:
        >>> Normals(4, generator(0)).entries(1, 3).shape
        torch.Size([2])
    """

    def __init__(self, size: int, source: torch.Generator) -> None:
        self._size = size
        self._first = self._drawn(0, source)
        # further blocks have seeds of their own
        self._seed = int(torch.randint(2**62, (), generator=source)) if size > BLOCK else 0

    def entries(self, start: int, stop: int) -> Tensor:
        """Those from `start` to `stop`, float64."""
        blocks = [self._block(number) for number in range(start // BLOCK, -(-stop // BLOCK))]
        offset = start // BLOCK * BLOCK
        found: Tensor = torch.cat([self._first[:0], *blocks])[start - offset : stop - offset]
        return found

    def _block(self, number: int) -> Tensor:
        if not number:
            return self._first
        return self._drawn(number, generator(self._seed + number))

    def _drawn(self, number: int, source: torch.Generator) -> Tensor:
        count = min(BLOCK, self._size - number * BLOCK)
        return torch.randn(count, generator=source, dtype=torch.float64)


def random_vector(size: int, source: torch.Generator, device: torch.device) -> Tensor:
    """A vector uniform on the unit sphere, shape (size,), float64 (float32 on MPS)."""
    vector = Normals(size, source).entries(0, size)
    unit: Tensor = vector / vector.norm()
    return unit.to(device=device, dtype=wide_dtype(device))

"""Numbers that change with the values of a tensor.

Fused optimizers and `.data` leave pointers and versions alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an entry


def fingerprint(tensor: Tensor) -> tuple[int, int]:
    """How often it was written to, where it counts that, and a weighted sum of its bits."""
    (found,) = fingerprints([tensor])
    return found


def fingerprints(tensors: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    """Those of several tensors; a device is waited for once, not for each of them."""
    places: dict[torch.device, list[int]] = {}
    for index, tensor in enumerate(tensors):
        places.setdefault(tensor.device, []).append(index)
    sums = [0] * len(tensors)
    for own in places.values():
        found = torch.stack([_bits(tensors[index].detach()) for index in own]).tolist()
        for index, value in zip(own, found, strict=True):
            sums[index] = value
    versions = (0 if tensor.is_inference() else tensor._version for tensor in tensors)
    return tuple(zip(versions, sums, strict=True))


def _bits(tensor: Tensor) -> Tensor:
    """Sum of the entries' bits, read as whole numbers."""
    dense = tensor if tensor.layout is torch.strided else tensor.to_dense()
    real = torch.view_as_real(dense) if dense.is_complex() else dense
    if real.is_floating_point():
        real = real.view(_WHOLE[real.element_size()])
    if real.dtype == torch.int64:  # of 2^63, the sign, a product modulo 2^64 keeps one bit of u_k
        real = real ^ (real >> 32)
    return _weighted_sum(real)


def _weighted_sum(entries: Tensor) -> Tensor:
    """Σ_k u_k x_k modulo 2^64 with random u_k, so that swapped or negated entries change it."""
    weights = _random_weights(entries.device)
    total = weights.new_zeros(())
    for index, part in enumerate(torch.split(entries.reshape(-1), len(weights))):
        total = total + (2 * index + 1) * (part * weights[: len(part)]).sum()
    return total


@functools.cache
def _random_weights(device: torch.device) -> Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randint(-(2**62), 2**62, (2**18,), generator=source).to(device)

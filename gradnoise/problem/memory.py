"""Where the entries of tensors lie in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..tensors.trees import TensorDict


def entries(size: Sequence[int], stride: Sequence[int], first: int, device: torch.device) -> Tensor:
    """Positions of the entries of a tensor in its memory, in order, shape (entries,).

    Example:
        >>> entries((2, 2), (3, 1), 4, torch.device("cpu"))
        tensor([4, 5, 7, 8])
    """
    found = torch.tensor(first, device=device)
    for extent, step in zip(size, stride, strict=True):
        found = found[..., None] + step * torch.arange(extent, device=device)
    return found.reshape(-1)


def refuse_common(parameters: TensorDict) -> None:
    """Raise where parameters share memory: a step along one of them also moves the other.

    Raises:
        ModelError: two parameters are tied through their memory, as by `a.data = b.data.T`.
    """
    ranges: dict[torch.device, list[tuple[int, int, str]]] = {}  # in bytes, by device
    for name, parameter in parameters.items():
        plain = type(parameter) in (Tensor, nn.Parameter)  # subclasses may have no memory
        if plain and parameter.numel():
            first = parameter.data_ptr()
            last = first + parameter.element_size() * _extent(parameter)
            ranges.setdefault(parameter.device, []).append((first, last, name))
    for device, found in ranges.items():
        before: list[tuple[int, int, str]] = []
        for first, last, name in sorted(found) if device.type != "meta" else ():
            before = [own for own in before if own[1] > first]
            for _, _, other in before:
                if _meet(parameters[other], parameters[name]):
                    raise ModelError(
                        f"the parameters {other!r} and {name!r} lie in the same memory: a step "
                        f"along the gradient of one also moves the other, which neither gradient "
                        f"includes. Use {other!r} itself in both places, as weight.T where it is "
                        f"transposed"
                    )
            before.append((first, last, name))


def _extent(tensor: Tensor) -> int:
    """Number of places in memory from the first entry to the last, both included."""
    pairs = zip(tensor.stride(), tensor.shape, strict=True)
    return 1 + sum(step * (extent - 1) for step, extent in pairs)


def _meet(first: Tensor, second: Tensor) -> bool:
    """Whether tensors whose memory ranges overlap have an entry in common."""
    both = first, second
    if all(t.numel() == _extent(t) for t in both):  # without gaps
        return True
    mine, others = (
        t.data_ptr() + t.element_size() * entries(t.shape, t.stride(), 0, t.device) for t in both
    )
    return bool(torch.isin(mine, others).any())

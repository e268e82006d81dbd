"""The user's arrays, torch or numpy, as checked tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError
from ...moments.moments import LARGEST, SMALLEST
from ...tensors.trees import TensorDict, widen


def as_tensor(name: str, array: Any) -> Tensor:
    """A tensor of the array's dtype, detached; integers become float64.

    Raises:
        ArgumentError: not real numbers, or not all finite.
    """
    try:
        tensor = array.detach() if isinstance(array, Tensor) else _of_numbers(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"`{name}` must be numbers in a tensor or an array; got {type(array).__name__}"
        ) from error
    if tensor.is_complex() or tensor.dtype is torch.bool:
        raise ArgumentError(f"`{name}` must be real numbers; got {tensor.dtype}")
    if not tensor.is_floating_point():
        tensor = tensor.double()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if not torch.isfinite(tensor).all():
        bad = (~torch.isfinite(tensor)).nonzero()[:3].tolist()
        raise ArgumentError(f"`{name}` must be finite; it is not at {bad}")
    return tensor


def _of_numbers(array: Any) -> Tensor:
    found = np.asarray(array)  # Python floats become float64, unlike in torch.as_tensor
    shareable = found.flags.writeable and all(stride >= 0 for stride in found.strides)
    return torch.as_tensor(found if shareable else found.copy())


def as_rows(gradients: Any, *, least: int = 2) -> TensorDict:
    """name -> (n, *shape), n the same for all; a single array has the name "".

    Raises:
        ArgumentError: not such arrays, or fewer than `least` samples.
    """
    named = gradients if isinstance(gradients, Mapping) else {"": gradients}
    rows = {str(k): as_tensor("per_sample_gradients", v) for k, v in named.items()}
    shapes = [tuple(tensor.shape) for tensor in rows.values()]
    counts = {shape[0] for shape in shapes if len(shape) > 1}
    if not shapes or len(counts) != 1 or any(len(shape) < 2 for shape in shapes):
        raise ArgumentError(
            f"`per_sample_gradients` must have one row per sample: an array (n, P), or a dict of "
            f"(n, *shape) with the same n; got shapes {shapes}"
        )
    if min(counts) < least or not any(math.prod(shape[1:]) for shape in shapes):
        raise ArgumentError(
            f"`per_sample_gradients` must hold at least {least} samples of one parameter or more; "
            f"got shapes {shapes}"
        )
    largest = max(float(tensor.abs().max()) for tensor in rows.values() if tensor.numel())
    if largest and not SMALLEST < largest < LARGEST:
        raise ArgumentError(
            f"`per_sample_gradients` are of size {largest:.1e}: their products leave the range of "
            f"float64. Multiply them by a constant first; B_simple does not depend on it"
        )
    return rows


def as_vector(name: str, array: Any, count: int | None = None) -> Tensor:
    """A vector in float64, shape (k,); a single number becomes a vector of one.

    Raises:
        ArgumentError: more than one dimension, empty, or not of the length `count`.
    """
    vector = widen(as_tensor(name, array))
    vector = vector.reshape(1) if vector.ndim == 0 else vector
    if vector.ndim != 1 or not len(vector) or (count is not None and len(vector) != count):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise ArgumentError(f"`{name}` must be a vector of {wanted}; got {tuple(vector.shape)}")
    return vector


def as_population(population: str | int, count: int) -> float:
    """N: "dataset" says that the samples are all there are, "distribution" is ∞.

    Raises:
        ArgumentError: neither, nor a number from n on.
    """
    words = {"dataset": float(count), "distribution": math.inf}
    if isinstance(population, str) and population in words:
        return words[population]
    number = isinstance(population, Real) and not isinstance(population, bool)
    if not number or not float(population) >= count:
        raise ArgumentError(
            f'`population` must be "distribution", "dataset" (the {count} samples are all there '
            f"are) or a number from {count} on; got {population!r}"
        )
    return float(population)

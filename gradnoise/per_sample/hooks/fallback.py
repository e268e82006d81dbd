"""An operation without a rule, differentiated sample by sample: vectorised, else in a loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap

from ...errors import EngineError
from ...problem.state.generators import random_states
from .factored import Deferred, FactoredGradients
from .rules import At

Run = Callable[[list[Tensor]], Tensor]


def local(
    at: At, delta: Tensor, run: Run, tensors: list[Tensor], sources: list[int], samples: list[int]
) -> dict[int, FactoredGradients]:
    """Factored gradients for the sources of one operation.

    Args:
        at: where the samples of its output are.
        delta: gradient of the output.
        run: the operation as a function of its tensors.
        tensors: what it was given; `sources` and `samples` are positions in it.
    """
    tensors = [at.like(t) if t.is_floating_point() else t for t in tensors]
    apart = {i: _split_input(at, delta, tensors[i]) for i in samples}
    deltas = at.split(delta)
    found: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def compute(part: slice) -> tuple[Tensor, ...]:
        key = part.start, part.stop
        if key not in found:
            found.clear()
            states = random_states()
            inputs = {i: t[part] for i, t in apart.items()}
            if samples:
                found[key] = _gradients(run, tensors, sources, inputs, deltas[part])
            else:
                found[key] = _copied(at, run, tensors, sources, delta, part)
            if random_states() != states:
                raise EngineError(
                    "an operation that uses a parameter draws random numbers (attention with "
                    "dropout and a learned bias): evaluated for single samples it draws others"
                )
        return found[key]

    def one(index: int) -> Callable[[slice], Tensor]:
        return lambda part: compute(part)[index]

    how = "vmap of this operation", "it has no rule of its own"
    return {
        source: Deferred(
            at.samples,
            tensors[source].shape,
            one(index),
            how,
            0 if samples else delta.numel(),
        )
        for index, source in enumerate(sources)
    }


def _copied(
    at: At, run: Run, tensors: list[Tensor], sources: list[int], delta: Tensor, part: slice
) -> tuple[Tensor, ...]:
    """Gradients of what is computed from parameters alone, with entries for every sample.

    The gradient of the output is split: each sample keeps its own entries, the others are zero.
    """
    values = tuple(tensors[i].detach() for i in sources)
    indices = range(*part.indices(at.samples))
    own = delta.new_zeros(len(indices), *delta.shape)
    apart = at.split(delta)
    for row, index in zip(own, indices, strict=True):
        at.split(row)[index] = apart[index]

    _, product, *_ = vjp(_swapping(run, tensors, sources, {}), *values)
    return tuple(vmap(product)(own))


def _swapping(
    run: Run, tensors: list[Tensor], sources: list[int], own: dict[int, Tensor]
) -> Callable[..., Tensor]:
    """The operation as a function of its sources, with `own` in the place of other tensors."""

    def output(*given: Tensor) -> Tensor:
        swapped = {**own, **dict(zip(sources, given, strict=True))}
        return run([swapped.get(i, tensor) for i, tensor in enumerate(tensors)])

    return output


def _split_input(at: At, delta: Tensor, tensor: Tensor) -> Tensor:
    """An input as (n, ...): samples at the output's axis, counted from the front or the back."""
    axis, each = at.layout.axis, delta.shape[at.layout.axis] // at.samples
    places = {axis, axis - delta.ndim + tensor.ndim, 0}
    fitting = [p for p in places if 0 <= p < tensor.ndim and tensor.shape[p] == each * at.samples]
    if len(fitting) != 1:  # a guess between several would be silent
        which = "several axes that could be those" if fitting else "no axis"
        raise EngineError(f"an input of shape {tuple(tensor.shape)} has {which} of the samples")
    return type(at.layout)(fitting[0], at.layout.major).split(tensor, at.samples)


def _gradients(
    run: Run,
    tensors: list[Tensor],
    sources: list[int],
    inputs: dict[int, Tensor],
    deltas: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients (k, *shape) with respect to each source, for k samples."""
    values = tuple(tensors[i].detach() for i in sources)

    def one(own: dict[int, Tensor], delta: Tensor) -> tuple[Tensor, ...]:
        made, product, *_ = vjp(_swapping(run, tensors, sources, own), *values)
        if made.shape != delta.shape:
            raise EngineError(
                f"an operation gives shape {tuple(made.shape)} for one sample alone, and "
                f"{tuple(delta.shape)} for it within the batch"
            )
        return tuple(product(delta))

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            return vmap(one, randomness="different")(inputs, deltas)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # no batching rule, or control flow on the data
        rows: list[Any] = [
            one({i: t[k] for i, t in inputs.items()}, deltas[k]) for k in range(len(deltas))
        ]
        return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))

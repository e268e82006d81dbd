"""Sources that cost nothing but norms: the micro-batches of an accumulation, and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..per_sample.hooks.live import is_planning
from ..tensors.trees import sample_leaves
from .gradients import StepGradient, gathered, sq_norm
from .ranks import is_alone
from .reading import Own, Reading, combined, equal_shares, refused

TWICE = "a forward pass was followed by several backward passes"
Size = float | Sequence[float] | None


class PartNorms:
    """Listens to one step: the squared gradient norm of every micro-batch, by parameter.

    A new part begins with the first gradient after a forward pass of the model; where the model
    itself is not called (the user calls parts of it), with the second gradient of a parameter.

    Args:
        model: whose forward passes are counted.
        parameters: trainable ones by name.
        group: of ranks whose gradients are averaged; None for this process alone.
    """

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor], group: Any) -> None:
        self._model, self._names, self._group = model, list(parameters), group
        self._norms: list[tuple[str, Tensor]] = []  # ‖c_j‖² by parameter
        self._seen: set[str] = set()  # parameters that have had a gradient in this part
        self._sizes: list[int | None] = []  # of the inputs of the forward passes
        self._parts, self._begins, self.reason = 0, True, ""
        self.gradient = StepGradient(parameters, self._arrive, is_alone(model, group))
        self._handle: Any = model.register_forward_pre_hook(self._forward, with_kwargs=True)

    def __deepcopy__(self, _: Any) -> PartNorms:
        """A model that is copied inside of a step keeps our hook, and it does nothing there."""
        return self

    def _forward(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if module is self._model and torch.is_grad_enabled() and not is_planning():
            if self._begins and len(self._sizes) > self._parts:
                return  # a second forward pass for one backward pass
            self._sizes.append(_leading(args, kwargs))
            self._begins = True

    def _arrive(self, name: str, gradient: Tensor) -> None:
        if self._begins or (name in self._seen and not self._sizes):
            self._begins = False
            self._parts += 1
            self._seen.clear()
        elif name in self._seen:
            self.reason = TWICE
        self._seen.add(name)
        self._norms.append((name, sq_norm(gradient)))

    def remove(self) -> None:
        """Take the hooks off."""
        self._handle.remove()
        self.gradient.remove()

    def reading(self, batch_size: Size, shares: Sequence[float] | None) -> Reading | None:
        """The norms of the step; None, and a `reason`, where it says nothing about the noise.

        Args:
            batch_size: B of this rank, or b_j of its micro-batches; None for the leading dimensions
                of the inputs.
            shares: w_j of the micro-batches, Σw_j = 1; None for equal ones.
        """
        group, names = self._group, self._names
        own = Own.of(lambda: self._own(batch_size, shares), len(names))
        found, self.reason = combined(
            own, lambda: gathered(self.gradient.sq_norms(group).items(), names), group, each=False
        )
        return found

    def _own(self, batch_size: Size, shares: Sequence[float] | None) -> Own:
        """What this rank has."""
        sizes = self._part_sizes(batch_size)
        weights = equal_shares(sizes) if shares is None else list(shares)
        reason = self.reason or self.gradient.check() or refused(sizes, weights)
        return Own(gathered(self._norms, self._names), sizes, weights, reason)

    def _part_sizes(self, batch_size: Size) -> list[float]:
        """b_j: as the inputs had them if they add up to B, else equal ones."""
        if isinstance(batch_size, Sequence):
            return [float(size) for size in batch_size] if len(batch_size) == self._parts else []
        if not self._parts:  # no backward pass inside of the step
            return []
        sizes = self._sizes[: self._parts]  # a forward pass after the last one had no gradient
        seen = [size for size in sizes if size is not None]
        known = len(seen) == self._parts
        if known and batch_size in (None, sum(seen)):
            return [float(size) for size in seen]
        return [] if batch_size is None else [batch_size / self._parts] * self._parts


def _leading(args: Any, kwargs: Any) -> int | None:
    """The number of samples in the inputs of a model: their common leading dimension."""
    sizes = {len(t) for t in sample_leaves((args, kwargs))}
    return sizes.pop() if len(sizes) == 1 else None

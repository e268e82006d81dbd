"""The gradient of a step as training has it: `.grad`, and each backward pass's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..tensors.sums import sq_norms
from .ranks import averaged

OnGradient = Callable[[str, Tensor], None]


def sq_norm(gradient: Tensor) -> Tensor:
    """‖g‖² in float64 (float32 on MPS), a tensor without dimensions: nothing waits for a device."""
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    gradient = gradient.detach()
    if gradient.dtype in (torch.float16, torch.bfloat16):
        gradient = gradient.float()
    return sq_norms(gradient.reshape(1, -1))[0]


def gathered(found: dict[str, Tensor], names: list[str]) -> Tensor:
    """Numbers by name as one tensor in float64 on the CPU; 0 where a name has none.

    One copy for each device.
    """
    result = torch.zeros(len(names), dtype=torch.float64)
    places: dict[torch.device, list[int]] = {}
    for i, name in enumerate(names):
        if name in found:
            places.setdefault(found[name].device, []).append(i)
    for own in places.values():
        result[own] = torch.stack([found[names[i]] for i in own]).cpu().double()
    return result


class StepGradient:
    """‖ḡ‖² of one step by parameter: of what its backward passes add to `.grad`.

    What lies in `.grad` before the first backward pass is taken off; loops may zero it after the
    forward pass. Where the user has hooks on a parameter, which may change its gradient, the
    gradients that backward passes give are added up instead.

    Args:
        parameters: trainable ones by name.
        on_gradient: is called with the name and the gradient of every backward pass, before hooks
            of the user's; None where nobody listens.
    """

    def __init__(
        self, parameters: dict[str, Tensor], on_gradient: OnGradient | None = None
    ) -> None:
        self._parameters, self._on_gradient = parameters, on_gradient
        self._before: dict[str, Tensor] = {}
        self._old = {name for name, p in parameters.items() if p.grad is not None}
        self._hooked = {name for name, p in parameters.items() if _hooked(p)}
        self._own: dict[str, Tensor] = {}  # of those, in this process
        listening = parameters if on_gradient is not None else self._hooked | self._old
        self._handles = [_first_hook(parameters[n], self._listener(n)) for n in listening]

    def _listener(self, name: str) -> Callable[[Tensor], None]:
        def listen(gradient: Tensor) -> None:
            if name in self._old:
                self._old.discard(name)
                self._take_off(name)
            gradient = gradient.detach()
            if name in self._hooked:
                own = self._own.get(name)
                self._own[name] = gradient.clone() if own is None else own + gradient
            if self._on_gradient is not None:
                self._on_gradient(name, gradient)

        return listen

    def _take_off(self, name: str) -> None:
        before = self._parameters[name].grad
        if before is not None and bool(sq_norm(before) > 0):
            self._before[name] = before.clone()

    def sq_norms(self, group: Any = None) -> dict[str, Tensor]:
        """‖ḡ‖² by name; without those that have no gradient.

        Args:
            group: of ranks over which `.grad` was averaged.
        """
        found = {}
        for name, parameter in self._parameters.items():
            gradient = parameter.grad
            if name in self._hooked:
                gradient = averaged(self._own[name], group) if name in self._own else None
            elif name in self._old:  # no gradient came
                gradient = None
            elif gradient is not None and name in self._before:
                gradient = gradient - self._before[name]
            if gradient is not None:
                found[name] = sq_norm(gradient)
        return found

    def remove(self) -> None:
        """Take the hooks off, and let go of gradients."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._before, self._own = {}, {}


def _hooked(parameter: Tensor) -> bool:
    """Whether the user has hooks on the gradient of a parameter.

    Parallel models have hooks on the nodes that add to `.grad`, which are not among these.
    """
    later = getattr(parameter, "_post_accumulate_grad_hooks", None)
    return bool(parameter._backward_hooks) or bool(later)


def _first_hook(parameter: Tensor, hook: Callable[[Tensor], None]) -> Any:
    """A hook that runs before those that are there already."""
    handle: Any = parameter.register_hook(hook)  # type: ignore[no-untyped-call]
    hooks: Any = parameter._backward_hooks
    # torch reads them as a plain dict, in the order of insertion: `move_to_end` has no effect
    others = [(key, hooks.pop(key)) for key in list(hooks) if key != handle.id]
    hooks.update(others)
    return handle

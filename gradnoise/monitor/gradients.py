"""The gradient of a step as training has it: `.grad`, and each backward pass's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..tensors.sums import sq_norms
from ..tensors.trees import floats
from .ranks import averaged, world_size

OnGradient = Callable[[str, Tensor], None]
CHANGED = (
    "`.grad` was changed inside of the step: close the step before gradients are clipped, unscaled "
    "or set to zero"
)
NOT_ADDED = "the gradients were not added to `.grad`: call backward()"


SHORT = 2**12  # entries that are added in their own dtype: relative errors below 1e-6


def sq_norm(gradient: Tensor) -> Tensor:
    """‖g‖² as a tensor without dimensions: nothing waits for a device."""
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    gradient = gradient.detach()
    if gradient.dtype in (torch.float16, torch.bfloat16):
        gradient = gradient.float()
    if gradient.numel() <= SHORT:
        flat = gradient.reshape(-1)
        return torch.dot(flat, flat)
    return sq_norms(gradient.reshape(1, -1))[0]


def gathered(found: Iterable[tuple[str, Tensor]], names: Sequence[str]) -> Tensor:
    """Numbers by name, added where a name has several, in float64 on the CPU.

    One copy for each device.
    """
    index = {name: i for i, name in enumerate(names)}
    places: dict[torch.device, tuple[list[int], list[Tensor]]] = {}
    for name, number in found:
        rows, numbers = places.setdefault(number.device, ([], []))
        rows.append(index[name])
        numbers.append(number)
    result = torch.zeros(len(names), dtype=torch.float64, device="cpu")
    for rows, numbers in places.values():
        own = torch.tensor(rows, device="cpu")
        result.index_add_(0, own, torch.stack(numbers).cpu().double())
    return result


class StepGradient:
    """‖ḡ‖² of one step by parameter: of what its backward passes add to `.grad`.

    What lies in `.grad` when the first gradient of the step comes is taken off. Where the user has
    hooks on a parameter, which may change its gradient, the gradients that backward passes give are
    added up instead.

    Args:
        parameters: trainable ones by name.
        on_gradient: is called with the name and the gradient of every backward pass, before hooks
            of the user's; None where nobody listens.
        is_alone: whether backward passes alone write to `.grad`, and no parallel model. Then it is
            noticed on one parameter if the loop changes `.grad` inside of the step.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        on_gradient: OnGradient | None = None,
        is_alone: bool = True,
    ) -> None:
        self._parameters, self._on_gradient = parameters, on_gradient
        self._filled = {name for name, p in parameters.items() if p.grad is not None}
        self._before: dict[str, Tensor] = {}
        self._hooked = {name for name, p in parameters.items() if _hooked(p)}
        self._own: dict[str, Tensor] = {}  # of those, in this process
        free = [name for name in parameters if name not in self._hooked]
        small = min(reversed(free), key=lambda name: parameters[name].ndim, default="")
        self._witness = small if is_alone else ""
        self._is_waiting = False  # whether a gradient of it is on its way to `.grad`
        self._left: Tensor | None = None  # ‖.grad‖² of it, as the last backward pass left it
        self._found: list[tuple[Tensor, Tensor]] = []  # the same, and what was there later
        self._reason = ""
        listening = {*parameters} if on_gradient is not None else self._hooked | self._filled
        listening |= {self._witness} & {*parameters}
        self._handles = [_first_hook(parameters[n], self._listener(n)) for n in listening]
        if self._witness:
            kept: Any = parameters[self._witness]
            self._handles.append(kept.register_post_accumulate_grad_hook(self._added))

    def _added(self, parameter: Tensor) -> None:
        self._is_waiting, self._left = False, _sq_norm_of_grad(parameter)

    def _look(self) -> None:
        """What the last backward pass left in `.grad`, and what is there now."""
        if self._is_waiting:
            self._reason = NOT_ADDED
        elif self._left is not None:
            self._found.append((self._left, _sq_norm_of_grad(self._parameters[self._witness])))

    def _listener(self, name: str) -> Callable[[Tensor], None]:
        def listen(gradient: Tensor) -> None:
            gradient = gradient.detach()
            if name == self._witness:
                self._look()
                self._is_waiting = True
            if name in self._filled:  # the loop may have zeroed it since
                self._filled.discard(name)
                before = self._parameters[name].grad
                if before is not None and bool(sq_norm(before) > 0):
                    self._before[name] = before.clone()
            if name in self._hooked:
                own = self._own.get(name)
                self._own[name] = gradient.clone() if own is None else own + gradient
            if self._on_gradient is not None:
                self._on_gradient(name, gradient)

        return listen

    def check(self) -> str:
        """At the end of a step: why `.grad` is not what its passes gave; empty where it is."""
        self._look()
        found = floats(norm for pair in self._found for norm in pair)
        pairs = zip(found[::2], found[1::2], strict=True)
        kept = all(math.isclose(*own, rel_tol=1e-6) or not math.isfinite(own[0]) for own in pairs)
        return self._reason or ("" if kept else CHANGED)

    def sq_norms(self, group: Any = None) -> dict[str, Tensor]:
        """‖ḡ‖² by name; without those that have no gradient.

        Args:
            group: of ranks over which `.grad` was averaged.
        """
        found = {}
        for name, parameter in self._parameters.items():
            gradient = parameter.grad
            if name in self._hooked:
                gradient = self._own.get(name)
                if gradient is None and world_size(group) > 1:  # others may have one
                    gradient = torch.zeros_like(parameter)
                gradient = None if gradient is None else averaged(gradient, group)
            elif name in self._filled:  # nothing came in this step
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
        self._before, self._own, self._found = {}, {}, []


def _sq_norm_of_grad(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    return sq_norm(torch.zeros_like(parameter) if gradient is None else gradient)


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
